"""What servers have in common that answer by script: a free port of the loopback, and tests that wait for them."""

from __future__ import annotations

import abc
import asyncio
import ssl
from collections.abc import Sized
from typing import Self

from tests.support.processes import DEADLINE_SECONDS


class LoopbackServer(abc.ABC):
    """Serves each connection in a task, until it is left.

    Args:
        scheme: of its URL.
        tls: with a certificate, for a server that speaks TLS.
    """

    def __init__(self, scheme: str, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = scheme
        self._tls = tls
        self._came = asyncio.Condition()
        """Told of each thing that comes."""
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    @abc.abstractmethod
    def kept(self) -> Sized:
        """What has come."""

    @abc.abstractmethod
    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def received(self, count: int, *, within_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(within_seconds), self._came:
            await self._came.wait_for(lambda: len(self.kept) >= count)

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
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self.converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()
