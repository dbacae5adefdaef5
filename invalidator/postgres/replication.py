"""The replication connection: COPY BOTH over psycopg's ``pq`` layer, without a blocking call.

Traps that shaped it (all seen on real servers): the blocking ``get_copy_data`` holds the GIL; messages may be inside
libpq before the socket ever turns readable; a clean end of COPY means that the server goes away, not that the stream
is finished; a server that shuts down waits for a consumer that does not confirm.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import re
import socket
import termios
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq

from invalidator.errors import ConfigError, SlotLost, SourceDisconnected
from invalidator.postgres import decoder
from invalidator.postgres.connection import Dsn, answered_within, ask, connect
from invalidator.postgres.failures import ours

if TYPE_CHECKING:
    from collections.abc import Callable

RECEIVE_BUFFER_BYTES = 212_992
"""A bounded receive buffer makes the *walsender* cheaper: while our window is closed, the messages it sends one by one
are gathered in its send queue, and leave as few large segments. A buffer that the kernel grows never closes its window
(measured: 20 to 40 % fewer rows a second). The size is Linux' usual ``rmem_max``; scripts/bench throughput."""

_START_SECONDS = 10
_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")


class ReplicationStream:
    """A walsender that streams one slot to us.

    ``read`` is libpq's ``get_copy_data``: call it as ``read(1)``; it returns ``(size, message)`` with a size of 0 when
    no whole message is there, and below 0 when the stream has ended (then ``ended()`` says why).
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._waiting = array.array("i", [0])
        self._callback: Callable[[], None] | None = None
        self._is_writing = False
        self.content_encoding: str | None = None
        """Python's name of the encoding in which the content of messages comes; None: UTF-8, or none at all."""
        self.pid = self._pgconn.backend_pid
        """Of the walsender."""
        self.socket = self._pgconn.socket
        self.read = self._pgconn.get_copy_data

    @classmethod
    async def open(
        cls, dsn: Dsn, *, slot: str, publication: str, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES
    ) -> Self:
        """Connect and start streaming from what the slot has confirmed.

        Always from 0/0: a remembered position that is ahead of the slot would skip commits in silence.

        Args:
            dsn: where Postgres is.
            slot: what to stream.
            publication: which tables of it.
            receive_buffer_bytes: of the socket; 0 leaves it to the kernel.

        Raises:
            SlotLost: there is no such slot, or its WAL is gone.
            SourceError, ConfigError: see ``failures.ours``.
        """
        connection = await connect(dsn, replication=True, application_name=f"invalidator/{slot}")
        async with contextlib.AsyncExitStack() as stack:
            # Whatever goes wrong, also when nobody waits any more: else its walsender would keep the slot.
            stack.push_async_callback(connection.close)
            encoding = await _start(connection, slot, publication)
            stack.pop_all()
        stream = cls(connection)
        stream.content_encoding = encoding
        stream._pgconn.nonblocking = 1
        if receive_buffer_bytes:
            stream._limit_receive_buffer(receive_buffer_bytes)
        return stream

    def drain(self, take: Callable[[Callable[[int], tuple[int, memoryview]]], int]) -> int:
        """Let ``take`` call ``read`` as often as it likes, and return what it returns.

        Raises:
            SourceDisconnected: libpq lost the thread of the protocol, or memory.
        """
        try:
            return take(self.read)
        except psycopg.Error as error:
            raise ours(error, doing="reading the stream") from error

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back whenever the socket is readable. The first messages may be in libpq already: read first."""
        if self._callback is None and not self.is_closed:
            self._callback = callback
            self._loop.add_reader(self.socket, callback)

    def unwatch(self) -> None:
        """Stop calling back: the kernel's buffer fills, then the server waits (back-pressure)."""
        if self._callback is not None:
            self._callback = None
            self._loop.remove_reader(self.socket)

    def consume(self) -> None:
        """Take what the socket holds into libpq.

        Raises:
            SourceDisconnected: the server closed the connection.
        """
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise ours(error, doing="reading the stream") from error

    def bytes_waiting(self) -> int:
        """Bytes in the kernel's receive buffer."""
        fcntl.ioctl(self.socket, termios.FIONREAD, self._waiting)
        return self._waiting[0]

    def send(self, message: bytes) -> None:
        """Send a standby status update without waiting.

        Raises:
            SourceDisconnected: the connection is gone.
        """
        if self.is_closed:
            return
        try:
            self._pgconn.put_copy_data(message)
            self._flush()
        except psycopg.Error as error:
            raise ours(error, doing="sending the standby status") from error

    def ended(self) -> Exception:
        """Why the stream ended, as an error of ours."""
        for _ in range(5):  # on a dead connection get_result never returns None
            result = self._pgconn.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR:
                error = psycopg.errors.error_from_result(result)
                return ours(error, doing="streaming")
        return SourceDisconnected("the server ended the stream (it is shutting down)", reason="server_shutdown")

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed on our side."""
        return self._connection.closed

    def abort(self) -> None:
        """Close the socket at once, from a callback: the server need not wait for us any longer."""
        # libpq closes the socket itself when it meets its end: the loop must forget it all the same.
        self.unwatch()
        if self._is_writing:
            self._stop_writing()
        if not self.is_closed:
            self._pgconn.finish()

    async def close(self) -> None:
        """Close; the slot is free when the server has noticed it, which is soon."""
        self.abort()
        await self._connection.close()

    def _limit_receive_buffer(self, size: int) -> None:
        with socket.socket(fileno=os.dup(self.socket)) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _flush(self) -> None:
        # 1 means that the socket would block: libpq keeps the rest, and we go on when it is writable.
        if self._pgconn.flush() == 1:
            self._is_writing = True
            self._loop.add_writer(self.socket, self._writable)

    def _writable(self) -> None:
        try:
            if self._pgconn.flush() != 0:
                return
        except psycopg.Error:
            pass  # the reader meets the same end of the connection and reports it
        self._stop_writing()

    def _stop_writing(self) -> None:
        self._is_writing = False
        self._loop.remove_writer(self.socket)


async def _start(connection: psycopg.AsyncConnection[Any], slot: str, publication: str) -> str | None:
    try:
        with answered_within(connection, _START_SECONDS):
            encoding = await ask(connection, _encoding)
            await ask(connection, lambda own: own.execute(_start_replication(slot, publication)))
            return encoding
    except psycopg.errors.UndefinedObject as error:  # a publication that is missing is told later
        msg = f"the replication slot '{slot}' is gone"
        raise SlotLost(msg) from error
    except psycopg.Error as error:
        raise ours(error, doing=f"starting replication from slot '{slot}'") from error


async def _encoding(connection: psycopg.AsyncConnection[Any]) -> str | None:
    """See to it that values come in UTF-8 where that can be; and in which encoding the content of messages comes."""
    server_encoding = connection.info.parameter_status("server_encoding")
    if server_encoding == "SQL_ASCII":
        # Such a database holds any bytes, and the server refuses to send those that are no UTF-8 as UTF-8.
        await connection.execute("SET client_encoding TO 'SQL_ASCII'")
    return decoder.codec(server_encoding or "UTF8")


def _start_replication(slot: str, publication: str) -> bytes:
    if not _SLOT_NAME.fullmatch(slot):
        msg = f"'{slot}' is no name for a replication slot: lower-case letters, digits and _ only, at most 63"
        raise ConfigError(msg)
    # publication_names is a list of identifiers inside a string literal: quoted twice.
    identifier = '"' + publication.replace('"', '""') + '"'
    literal = "'" + identifier.replace("'", "''") + "'"
    return (
        f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 '
        f"(proto_version '1', publication_names {literal}, messages 'true')"
    ).encode()
