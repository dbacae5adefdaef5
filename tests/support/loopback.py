"""Servers of tests that stand between a client and a real server, each at a loopback port of its own."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Between:
    """Listens until it is left.

    Attributes:
        port: where clients connect.
        upstream: host and port of the real server; another one counts for new connections.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def through(self, url: str) -> str:
        """The URL (redis://, postgresql://, http://) with this address in place of the server's."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

    @abstractmethod
    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client; may leave tasks in ``_tasks``."""


B = TypeVar("B", bound=Between)


@asynccontextmanager
async def put_before(kind: type[B]) -> AsyncIterator[Callable[[str], Awaitable[B]]]:
    """Puts one before the server of a URL, as often as it is called."""
    async with AsyncExitStack() as stack:

        async def make(url: str) -> B:
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            made = kind(parts.hostname, parts.port)
            await stack.enter_async_context(made)
            return made

        yield make
