"""The side connection: a plain session on the same server that lives beside the stream.

It notices the server's shutdown (a walsender is not told: the server waits for it), carries the heartbeat, and answers
small questions about the catalog and the slot.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, LiteralString, Self, TypeVar

import psycopg

from invalidator.errors import ConfigError, SourceError
from invalidator.postgres.connection import Dsn, ask, connect, hang_up
from invalidator.postgres.failures import ours

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

QUERY_TIMEOUT_SECONDS = 10

Answer = TypeVar("Answer")


class SideConnection:
    """One statement at a time; between statements the socket is watched for the end of the session."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._on_loss: Callable[[SourceError | ConfigError], None] | None = None
        self._probe: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, dsn: Dsn, *, slot: str) -> Self:
        """Connect.

        Raises:
            ConfigError, SourceDisconnected: see ``connect``.
        """
        return cls(await connect(dsn, application_name=f"invalidator/{slot}/side"))

    @property
    def server_version(self) -> int:
        """As in ``180002``."""
        return self.connection.info.server_version

    @property
    def server_name(self) -> str:
        """As in ``18.2``."""
        return f"{self.server_version // 10000}.{self.server_version % 10000}"

    def watch(self, on_loss: Callable[[SourceError | ConfigError], None]) -> None:
        """Call back once when the session ends, for whatever reason."""
        self._on_loss = on_loss
        self._listen()

    async def fetch(self, statement: LiteralString, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all rows.

        Raises:
            SourceError, ConfigError: the statement failed, or took longer than ten seconds.
        """

        async def run(connection: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

        return await self.ask(run)

    async def ask(self, question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Answer]]) -> Answer:
        """Let one question use the connection, such as those of ``catalog``, and return its answer.

        Raises:
            SourceError, ConfigError: the question failed, or took longer than ten seconds.
        """
        async with self._lock:
            self._ignore()
            try:
                return await self._answer(question)
            except (SourceError, ConfigError) as error:
                if self.connection.closed:
                    self._lost(error)
                raise
            finally:
                self._listen()

    def hang_up(self) -> None:
        """End the session from a callback: whoever waits for an answer gets an error at once."""
        self._on_loss = None
        self._ignore()
        hang_up(self.connection)

    async def close(self) -> None:
        """End the session; the callback is not called any more."""
        self._on_loss = None
        if self._probe is not None:
            self._probe.cancel()
        self._ignore()
        await self.connection.close()

    def _listen(self) -> None:
        if self._on_loss is not None and not self.connection.closed:
            self._loop.add_reader(self.connection.fileno(), self._readable)

    def _ignore(self) -> None:
        if not self.connection.closed:
            self._loop.remove_reader(self.connection.fileno())

    def _readable(self) -> None:
        # Nothing was asked, so this is the server's farewell, a notice or a parameter change: a statement tells.
        self._ignore()
        self._probe = self._loop.create_task(self._ask(), name="side connection probe")

    async def _ask(self) -> None:
        try:
            await self.fetch("SELECT 1")
        except (SourceError, ConfigError) as error:
            self._lost(error)

    async def _answer(self, question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Answer]]) -> Answer:
        doing = "asking Postgres on the side connection"
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS):
                return await ask(self.connection, question)
        except psycopg.Error as error:
            raise ours(error, doing=doing) from error
        except TimeoutError as error:
            raise ours(psycopg.OperationalError(f"no answer within {QUERY_TIMEOUT_SECONDS} s"), doing=doing) from error

    def _lost(self, error: SourceError | ConfigError) -> None:
        on_loss, self._on_loss = self._on_loss, None
        if on_loss is not None:
            on_loss(error)
