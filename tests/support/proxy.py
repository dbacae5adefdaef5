"""A proxy between a client and a server that breaks the network in the ways networks break.

Needs neither root nor tc. Faults act on bytes, so they hit any protocol.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

import pytest

from tests.support.loopback import Between, put_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Fault(Enum):
    """What happens to connections and bytes while it is set; set it at any time."""

    NONE = "everything passes"
    REFUSE = "new connections are reset; open ones go on"
    BLACK_HOLE = "connections are accepted, bytes are held back in both directions until the fault ends"
    DROP_REPLIES = "requests reach the server, its answers are thrown away"


class FaultProxy(Between):
    """Forwards a loopback port to a server; also counts what passed.

    Attributes:
        latency_seconds: added to each chunk in each direction.
        connections: how many were accepted so far.
        request_bytes: sent on to the server so far.
        reply_bytes: sent on to clients so far.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.latency_seconds = 0.0
        self.connections = 0
        self.request_bytes = 0
        self.reply_bytes = 0
        self._fault = Fault.NONE
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut_request_at: int | None = None
        self._cut_reply_at: int | None = None
        self._hold_request_at: int | None = None
        self._to_clients: set[asyncio.StreamWriter] = set()
        self._to_servers: set[asyncio.StreamWriter] = set()
        self._ended: set[asyncio.StreamWriter] = set()

    async def __aexit__(self, *_: object) -> None:
        self.reset_connections()  # what is held back would keep its transport open beyond the test
        await super().__aexit__()

    @property
    def fault(self) -> Fault:
        """The fault in force."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        if fault is Fault.BLACK_HOLE:
            self._flowing.clear()
        else:
            self._flowing.set()

    def reset_connections(self) -> None:
        """Cut every open connection with a TCP reset on both sides."""
        for writer in (*self._to_clients, *self._to_servers):
            _reset(writer)

    def half_close(self, *, towards_clients: bool) -> None:
        """End one direction of every open connection with a FIN; bytes in the other one go on."""
        for writer in tuple(self._to_clients if towards_clients else self._to_servers):
            self._end(writer)

    def cut_after(self, *, request_bytes: int | None = None, reply_bytes: int | None = None) -> None:
        """Reset everything once that many more bytes have passed; the last chunk is cut short. Happens once."""
        self._cut_request_at = None if request_bytes is None else self.request_bytes + request_bytes
        self._cut_reply_at = None if reply_bytes is None else self.reply_bytes + reply_bytes

    def hold_after(self, *, request_bytes: int) -> None:
        """Become a black hole once that many more bytes have been sent on to the server. Happens once."""
        self._hold_request_at = self.request_bytes + request_bytes

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._fault is Fault.REFUSE:
                _reset(writer)
            else:
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):  # one side is gone: so is the other; or this proxy is
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self.upstream)
        self._to_clients.add(writer)
        self._to_servers.add(upstream_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer, is_reply=False))
                group.create_task(self._pump(upstream_reader, writer, is_reply=True))
        except* OSError:
            _reset(writer)
            _reset(upstream_writer)
        finally:
            self._to_clients.discard(writer)
            self._to_servers.discard(upstream_writer)
            self._ended -= {writer, upstream_writer}
            upstream_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        while chunk := await reader.read(65536):
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            await self._flowing.wait()
            if is_reply and self._fault is Fault.DROP_REPLIES:
                continue
            part = chunk[: self._room(is_reply=is_reply)]
            if writer not in self._ended:
                writer.write(part)
                await writer.drain()
            self._count(len(part), is_reply=is_reply)
            if len(part) < len(chunk) or self._room(is_reply=is_reply) == 0:
                self._cut_request_at = self._cut_reply_at = None
                self.reset_connections()
                return
        self._end(writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        """Send the FIN of one direction, once."""
        if writer not in self._ended and not writer.is_closing():
            self._ended.add(writer)
            writer.write_eof()

    def _room(self, *, is_reply: bool) -> int | None:
        at, so_far = (self._cut_reply_at, self.reply_bytes) if is_reply else (self._cut_request_at, self.request_bytes)
        return None if at is None else max(0, at - so_far)

    def _count(self, size: int, *, is_reply: bool) -> None:
        if is_reply:
            self.reply_bytes += size
        else:
            self.request_bytes += size
            if self._hold_request_at is not None and self.request_bytes >= self._hold_request_at:
                self._hold_request_at = None
                self.fault = Fault.BLACK_HOLE


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN: SO_LINGER with a time of zero."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def proxy_to() -> AsyncIterator[Callable[[str], Awaitable[FaultProxy]]]:
    """Puts a proxy before the server of a URL: ``proxy = await proxy_to(url); client(proxy.through(url))``."""
    async with put_before(FaultProxy) as make:
        yield make
