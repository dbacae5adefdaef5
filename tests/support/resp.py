"""A server that speaks Redis' protocol and answers by script: any reply, an error, half of one, or none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Self

import hiredis
import pytest

from tests.support.processes import DEADLINE_SECONDS

Command = tuple[bytes, ...]


class Silence:
    """An answer that never comes."""


class Cut:
    """The connection ends in the middle of the answer.

    Args:
        sent: what still comes through.
    """

    def __init__(self, sent: bytes = b"") -> None:
        self.sent = sent


Answer = bytes | Silence | Cut


def well(command: Command) -> bytes:
    """What a healthy, empty server answers, as far as our targets ask."""
    match command[0].upper():
        case b"ROLE":
            return b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
        case b"EVALSHA" | b"EVAL":
            return b"*4\r\n:%d\r\n:0\r\n:0\r\n:0\r\n" % int(command[2])
        case b"SCAN":
            return b"*2\r\n$1\r\n0\r\n*0\r\n"
        case b"UNLINK" | b"PUBLISH":
            return b":0\r\n"
        case b"PING":
            return b"+PONG\r\n"
        case b"INFO":
            return b"$44\r\n# Server\r\nredis_version:8.2.1\r\nmaxmemory:0\r\n\r\n"
        case b"PUBSUB":
            return b"*2\r\n$%d\r\n%s\r\n:0\r\n" % (len(command[2]), command[2])
        case _:
            return b"+OK\r\n"


class ScriptedRedis:
    """Answers every command by ``answer``; keeps all commands but those that introduce a connection.

    Args:
        tls: with a certificate, for a server that speaks TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.commands: list[Command] = []
        self.introductions: list[Command] = []
        self.answer: Callable[[Command], Answer] = well
        self._came = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def received(self, count: int, *, within_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until so many commands have come."""
        async with asyncio.timeout(within_seconds), self._came:
            await self._came.wait_for(lambda: len(self.commands) >= count)

    async def idle(self, *, within_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until no connection is open."""
        async with asyncio.timeout(within_seconds):
            while self._connections:
                await asyncio.wait(self._connections, return_when=asyncio.FIRST_COMPLETED)

    async def hang_up(self) -> None:
        """Close all connections, as a server does with idle ones."""
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    assert isinstance(command, list)
                    if not await self._reply(tuple(command), writer):
                        return
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()

    async def _reply(self, command: Command, writer: asyncio.StreamWriter) -> bool:
        async with self._came:
            kept = self.introductions if command[0] in {b"CLIENT", b"ROLE", b"AUTH", b"SELECT"} else self.commands
            kept.append(command)
            self._came.notify_all()
        match self.answer(command):
            case bytes() as answer:
                writer.write(answer)
            case Cut() as cut:
                writer.write(cut.sent)
                await writer.drain()
                return False
            case Silence():
                pass
        await writer.drain()
        return True


@pytest.fixture
async def resp_server() -> AsyncIterator[ScriptedRedis]:
    """A scripted Redis on a free port of the loopback."""
    async with ScriptedRedis() as server:
        yield server
