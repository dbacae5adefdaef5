"""An HTTP server that answers by script: any status, header and body, or none, or half of one."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from tests.support.scripted import LoopbackServer


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the script.

    Args:
        status: of the answer.
        headers: in addition to Content-Length.
        body: of the answer.
        hold: the answer waits for this event; one that is never set is a server that hangs.
        cut_after: close the connection after so many bytes of the body; -1 means before the status line.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hold: asyncio.Event | None = None
    cut_after: int | None = None

    def encoded(self) -> bytes:
        reason = HTTPStatus(self.status).phrase
        lines = [f"HTTP/1.1 {self.status} {reason}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        match self.cut_after:
            case None:
                return head + self.body
            case -1:
                return b""
            case length:
                return head + self.body[:length]


def accepted() -> Reply:
    """What every provider that we know takes for success, each by what it looks at."""
    body = {"success": True, "status": "ok", "errors": [], "result": {"id": "1"}}
    return Reply(200, {"Content-Type": "application/json", "X-Purged": "1"}, json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came over the wire; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    raw_head: bytes

    @property
    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    def tags(self) -> list[str]:
        """The tags that this purge names, wherever a provider puts them."""
        if self.body:
            return [tag for value in self.json.values() if isinstance(value, list) for tag in value]
        return [tag for name, value in self.headers.items() if name.startswith("xkey-") for tag in value.split()]


class ScriptedServer(LoopbackServer):
    """Plays its replies in order, then ``otherwise`` (or what it returns) for ever; keeps every request."""

    def __init__(self) -> None:
        super().__init__("http")
        self.requests: list[Received] = []
        self.replies: deque[Reply] = deque()
        self.otherwise: Reply | Callable[[Received], Reply] = accepted()
        self.most_at_once = 0
        self._at_once = 0

    @property
    def kept(self) -> list[Received]:
        return self.requests

    def script(self, *replies: Reply) -> None:
        """Add answers for the next requests."""
        self.replies.extend(replies)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._answer(reader, writer):
            pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read(reader)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            async with self._came:
                self.requests.append(request)
                self._came.notify_all()
            reply = self._next_reply(request)
            if reply.hold is not None:
                await _held(reply.hold, reader)
            writer.write(reply.encoded())
            await writer.drain()
        finally:
            self._at_once -= 1
        return reply.cut_after is None

    def _next_reply(self, request: Received) -> Reply:
        if self.replies:
            return self.replies.popleft()
        return self.otherwise if isinstance(self.otherwise, Reply) else self.otherwise(request)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"the header {name} came twice"
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, head)


async def _held(hold: asyncio.Event, reader: asyncio.StreamReader) -> None:
    """Wait for the event, or until the client goes away."""
    released, gone = asyncio.create_task(hold.wait()), asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait([released, gone], return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ConnectionResetError
    finally:
        released.cancel()
        gone.cancel()
        await asyncio.gather(released, gone, return_exceptions=True)  # one reader at a time


@pytest.fixture
async def http_server() -> AsyncIterator[ScriptedServer]:
    """A scripted HTTP server on a free port of the loopback."""
    async with ScriptedServer() as server:
        yield server
