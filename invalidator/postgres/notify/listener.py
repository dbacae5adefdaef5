"""The connection that hears notifications: it has no transaction open, ever, and reads whatever the targets do.

A session that listens inside an open transaction, or does not read, keeps the server's queue from being emptied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import sql

from invalidator.model import Lsn
from invalidator.postgres.notify.reader import Moment
from invalidator.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGconn
    from psycopg.pq.misc import PGnotify

    from invalidator.errors import ConfigError, SourceError

_NOW: Final[LiteralString] = """
    SELECT pg_current_wal_insert_lsn()::text, pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1,
           extract(epoch FROM clock_timestamp())::float8
"""

_MOST: Final = 2000
"""Notifications that wait here to be read; the next ones wait in the socket."""

Heard = tuple[str, bytes]
"""Channel and payload."""


class Listener(SideConnection):
    """A side connection on which notifications come: while it is idle, and with the answer to a statement."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._heard: deque[Heard] = deque()
        self._stirred = asyncio.Event()
        self._loss: SourceError | ConfigError | None = None
        # Below psycopg's own handler, which decodes payloads: those of a database in SQL_ASCII may be no text.
        connection.pgconn.notify_handler = self._hear

    def watch(self, on_loss: Callable[[SourceError | ConfigError], None]) -> None:
        """Hear notifications from now on, and call back once when the session ends, for whatever reason."""

        def lost(error: SourceError | ConfigError) -> None:
            self._loss = error
            self._stirred.set()
            on_loss(error)

        super().watch(lost)

    async def listen(self, channels: Sequence[str]) -> None:
        """Hear what is sent to these channels from now on.

        Raises:
            SourceError, ConfigError: the server refused.
        """
        for channel in channels:
            await self.ask(partial(_listen, channel))

    async def take(self, most: int) -> list[Heard]:
        """Wait until something was heard; at most so many at once.

        Raises:
            SourceError, ConfigError: the session has ended.
        """
        while not self._heard:
            await self._stir()
        taken = [self._heard.popleft() for _ in range(min(most, len(self._heard)))]
        if not self._lock.locked():  # else psycopg watches the socket for an answer, and who asks listens again
            self._listen()
        return taken

    async def heard(self, channel: str) -> None:
        """Wait until something has come on this channel that is not taken yet.

        Raises:
            SourceError, ConfigError: the session has ended.
        """
        while not any(each == channel for each, _ in self._heard):
            await self._stir()

    async def now(self) -> Moment:
        """Where the server is: what was heard before this call was committed before, and can be seen.

        Raises:
            SourceError, ConfigError: it does not answer.
        """
        position, xid, at = (await self.fetch(_NOW))[0]
        return Moment(Lsn.parse(position), xid, at)

    async def _stir(self) -> None:
        if self._loss is not None:
            raise self._loss
        self._stirred.clear()
        await self._stirred.wait()

    def _hear(self, notification: PGnotify) -> None:
        self._heard.append((notification.relname.decode("utf-8", "replace"), notification.extra))
        self._stirred.set()

    def _listen(self) -> None:
        if len(self._heard) < _MOST:
            super()._listen()

    def _readable(self) -> None:
        """Notifications, or the end: a statement tells which."""
        self._ignore()  # before libpq finds the connection lost and closes its socket, whose number is then another's
        if self._collected(self.connection.pgconn):
            self._listen()
        else:
            super()._readable()

    def _collected(self, server: PGconn) -> bool:
        """Take what libpq holds; whether it was anything."""
        before = len(self._heard)
        try:
            server.consume_input()
            while (notification := server.notifies()) is not None:
                self._hear(notification)
        except psycopg.OperationalError:
            return False
        return len(self._heard) > before


async def _listen(channel: str, connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
