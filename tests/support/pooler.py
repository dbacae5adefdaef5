"""A pooler in transaction mode: each transaction of a client gets whatever connection to Postgres is free.

It does to LISTEN what PgBouncer does: the statement succeeds, the connection goes back to the pool, and what comes on
an idle connection is thrown away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.loopback import Between, put_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_READY = ord("Z")
_TERMINATE = ord("X")
_IDLE = ord("I")
_ENCRYPTION_BYTES = 8
"""The question whether TLS is spoken here."""


class _Server:
    """One connection to Postgres."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.client: asyncio.StreamWriter | None = None
        self.is_free = asyncio.Event()


class Pooler(Between):
    """Before one Postgres.

    Attributes:
        is_pooling: otherwise each client keeps its own connection, as without a pooler.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.is_pooling = True
        self._free: deque[_Server] = deque()
        self._freed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        self.cut()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def cut(self) -> None:
        """End every connection, on both sides."""
        self._free.clear()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while len(start := await _start(reader)) == _ENCRYPTION_BYTES:
                writer.write(b"N")
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        server = _Server(*await asyncio.open_connection(*self.upstream))
        self._writers.add(server.writer)
        server.writer.write(start)
        server.client = writer
        requests: asyncio.Queue[bytes] = asyncio.Queue()
        for work in (self._replies(server), self._requests(reader, requests), self._serve(server, requests, writer)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, server: _Server, requests: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
        await self._transaction(server, requests)  # the password
        while self.is_pooling:
            self._release(server)
            request = await requests.get()
            if request[0] == _TERMINATE:
                writer.close()
                return
            while not self._free:
                self._freed.clear()
                await self._freed.wait()
            server = self._free.pop()
            server.client = writer
            server.is_free.clear()
            server.writer.write(request)
            await self._transaction(server, requests)
        while True:
            server.writer.write(await requests.get())

    async def _transaction(self, server: _Server, requests: asyncio.Queue[bytes]) -> None:
        """Pass messages on until the server is idle again."""
        is_free = asyncio.ensure_future(server.is_free.wait())
        while not is_free.done():
            request = asyncio.ensure_future(requests.get())
            await asyncio.wait({request, is_free}, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                server.writer.write(request.result())
            else:
                request.cancel()

    async def _requests(self, reader: asyncio.StreamReader, requests: asyncio.Queue[bytes]) -> None:
        try:
            while True:
                requests.put_nowait(await _message(reader))
        except (OSError, asyncio.IncompleteReadError):
            requests.put_nowait(bytes([_TERMINATE]))

    def _release(self, server: _Server) -> None:
        server.client = None
        self._free.append(server)
        self._freed.set()

    async def _replies(self, server: _Server) -> None:
        """Hand the server's messages to the client that has it; to nobody else."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message = await _message(server.reader)
                if server.client is not None:
                    server.client.write(message)
                if message[0] == _READY and message[5] == _IDLE:
                    server.is_free.set()


async def _start(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size) - 4)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


@pytest.fixture
async def pooler_to() -> AsyncIterator[Callable[[str], Awaitable[Pooler]]]:
    """Puts a pooler before the Postgres of a URL."""
    async with put_before(Pooler) as make:
        yield make
