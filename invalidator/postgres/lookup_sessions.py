"""The connections that lookups are asked on: a few, opened when they are needed, each question its own transaction."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Dumper

from invalidator.errors import ConfigError, LookupFailed, SourceError
from invalidator.model import WidenReason
from invalidator.postgres.connection import Dsn, connect_pooled, hang_up
from invalidator.postgres.visibility import SEEN_SQL, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGresult

_FIRST_WAIT_SECONDS: Final = 0.001
_MAX_WAIT_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 0.5
"""The server ends a statement by itself; after this we no longer believe that it will."""
_FIRST_BACKOFF_SECONDS: Final = 0.2
_MAX_BACKOFF_SECONDS: Final = 5.0
_TEXT_ARRAY_OID: Final = 1009
_MAY_QUOTE_VALUES: Final = ("22", "23", "P0")
"""Classes of SQLSTATE whose messages hold values of rows, which belong in no log."""

_MAY_BE_RENAMED: Final = "42"
"""The class of SQLSTATE of names that do not exist: also of a type that had another name when we asked."""

Asked = tuple[bytes | None, ...]
Made = TypeVar("Made")


@dataclass(slots=True)
class Question:
    """What one statement asks."""

    statement: Callable[[Sequence[str]], str]
    """The SQL for these names of types."""
    type_oids: tuple[int, ...]
    parameters: Sequence[Asked]
    transactions: Mapping[int, int]
    timeout: float
    deadline: float
    """When its batch has waited for so long: shared by all questions of a batch, or each would wait in turn."""


class SessionLostError(Exception):
    """The connection is gone.

    Args:
        message: what was seen.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class LookupNotAskedError(LookupFailed):
    """Others took all the time: it says nothing about this lookup."""


class _TextArray(list[bytes]):
    """A ``text[]`` whose values are bytes as the stream has them."""


class _TextArrayDumper(Dumper):
    oid = _TEXT_ARRAY_OID

    def dump(self, obj: _TextArray) -> Buffer:
        quoted = (value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for value in obj)
        return b'{"' + b'","'.join(quoted) + b'"}' if obj else b"{}"


class Session:
    """One connection; between questions nothing is kept in it but names of types."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._type_names: dict[int, str] = {}
        self.is_used = False
        connection.adapters.register_dumper(_TextArray, _TextArrayDumper)

    @property
    def is_lost(self) -> bool:
        """Whether it cannot be used any more."""
        return self._connection.closed

    async def ask(self, question: Question) -> PGresult:
        """Run one question in a transaction of its own that sees the changes which ask."""
        self.is_used = True
        try:
            return await self._result(question)
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(_MAY_BE_RENAMED):
                self._type_names.clear()
            raise
        finally:
            if not self.is_lost:
                with contextlib.suppress(psycopg.Error):
                    await self._connection.execute("ROLLBACK")

    async def _result(self, question: Question) -> PGresult:
        await self._begin(question)
        names = [await self._type_name(oid) for oid in question.type_oids]
        columns = range(len(names))
        values = [_TextArray(row[at] or b"" for row in question.parameters) for at in columns]
        cursor = psycopg.AsyncRawCursor(self._connection)
        await cursor.execute(question.statement(names).encode("utf-8", "surrogateescape"), values)
        result = cursor.pgresult
        if result is None:  # pragma: no cover  (execute() has a result or raises)
            raise AssertionError
        return result

    async def _begin(self, question: Question) -> None:
        """Begin a transaction, again and again until it sees what it must."""
        wait = _FIRST_WAIT_SECONDS
        while True:
            remaining = question.deadline - time.monotonic()
            cursor = await self._connection.execute(_begin_statement(remaining).encode())
            while cursor.nextset():
                pass
            result = cursor.pgresult
            if result is None:  # pragma: no cover  (execute() has a result or raises)
                raise AssertionError
            if Seen.parse(*(result.get_value(0, at) for at in range(3))).all(question.transactions):
                return
            if time.monotonic() + wait > question.deadline:
                message = (
                    f"the change is not visible there after {question.timeout:g} s: a replica that lags, or a commit "
                    "that waits for a synchronous standby"
                )
                raise LookupFailed(message, reason=WidenReason.LOOKUP_TIMEOUT)
            await self._connection.execute("ROLLBACK")  # a pooler may give the server to somebody else meanwhile
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_WAIT_SECONDS)

    async def _type_name(self, oid: int) -> str:
        name = self._type_names.get(oid)
        if name is None:
            # -1: bpchar and bit by their own names; "character" would mean character(1) and cut values.
            cursor = await self._connection.execute("SELECT pg_catalog.format_type(%s, -1)", [oid])
            row = await cursor.fetchone()
            name = str(row[0]) if row else "???"
            if name == "???":
                message = f"the lookups' database knows no type with OID {oid}: it is no replica of the source's"
                raise LookupFailed(message, reason=WidenReason.LOOKUP_ERROR)
            self._type_names[oid] = name
        return name

    async def bounded(self, work: Coroutine[Any, Any, Made], deadline: float) -> Made:
        """Wait for the work until shortly behind the deadline, then hang up; also when cancelled.

        psycopg would answer a cancellation by cancelling the statement over a second connection and waiting for its
        end, which does not come over a dead network.

        Raises:
            LookupFailed: it took too long.
        """
        task = asyncio.get_running_loop().create_task(work, name="lookup")
        try:
            await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()) + _GRACE_SECONDS)
            if not task.done():
                hang_up(self._connection)
                await asyncio.wait({task})
                task.exception()  # looked at: what it died of is our hanging up
                message = "no answer in time, not even that there is none"
                raise LookupFailed(message, reason=WidenReason.LOOKUP_TIMEOUT)
        except asyncio.CancelledError:
            hang_up(self._connection)
            await asyncio.gather(task, return_exceptions=True)
            raise
        return task.result()

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()


class Pool:
    """A few connections, opened when they are needed, and not knocked at too often when they cannot be.

    Args:
        dsn: where to; what it refers to is read anew for each connection.
        size: how many.
    """

    def __init__(self, dsn: Dsn, size: int) -> None:
        self._slots = asyncio.Semaphore(size)
        self._dsn = dsn
        self._idle: list[Session] = []
        self._failures = 0
        self._refused_until = 0.0
        self._refusal = ""

    async def take(self, deadline: float, *, fresh: bool = False) -> Session:
        """A connection that was used before, or a new one.

        Raises:
            LookupFailed: there is none to be had now.
        """
        if fresh:
            for session in self._idle:  # they are as old as the one that died
                await session.close()
            self._idle.clear()
        elif self._idle:
            return self._idle.pop()
        if time.monotonic() < self._refused_until:
            raise LookupFailed(self._refusal, reason=WidenReason.LOOKUP_ERROR)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                connection = await connect_pooled(self._dsn, application_name="invalidator/lookups")
        except (ConfigError, SourceError) as error:
            raise self._refused(str(error)) from error
        except TimeoutError as error:
            late = "connecting to Postgres: no answer in time"
            raise self._refused(late) from error
        self._failures = 0
        return Session(connection)

    @contextlib.asynccontextmanager
    async def slot(self, question: Question) -> AsyncIterator[None]:
        """One of the connections that there may be, for the block.

        Raises:
            LookupNotAskedError: the others took all the time.
        """
        try:
            async with asyncio.timeout(max(0.0, question.deadline - time.monotonic())):
                await self._slots.acquire()
        except TimeoutError as error:
            message = f"no connection of lookups.connections was free within {question.timeout:g} s"
            raise LookupNotAskedError(message, reason=WidenReason.LOOKUP_TIMEOUT) from error
        try:
            yield
        finally:
            self._slots.release()

    async def put(self, session: Session) -> None:
        """Give a connection back."""
        if session.is_lost:
            await session.close()
        else:
            self._idle.append(session)

    async def close(self) -> None:
        """End all connections that are idle."""
        while self._idle:
            await self._idle.pop().close()

    def _refused(self, text: str) -> LookupFailed:
        bound = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        self._refused_until = time.monotonic() + random.uniform(bound / 2, bound)  # noqa: S311
        self._refusal = text
        return LookupFailed(text, reason=WidenReason.LOOKUP_ERROR)


_SESSION: Final = (
    # As the stream's walsender writes values (postgres.connection): a name must be the same from both.
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO,MDY'; SET LOCAL IntervalStyle = 'postgres'; "
    "SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL standard_conforming_strings = on; "
    # Compiling takes longer than a lookup that is worth asking.
    "SET LOCAL jit = off; "
)


def _begin_statement(seconds: float) -> str:
    milliseconds = max(1, int(seconds * 1000))
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; "
    return f"{begin}SET LOCAL statement_timeout = {milliseconds}; {_SESSION}{SEEN_SQL}"


def failure(error: psycopg.Error, *, is_lost: bool, seconds: float) -> LookupFailed | SessionLostError:
    """What a driver error means for the lookup that met it."""
    if isinstance(error, pg.QueryCanceled):
        message = f"no answer within {seconds:g} s"
        return LookupFailed(message, reason=WidenReason.LOOKUP_TIMEOUT)
    text = _in_words(error)
    return SessionLostError(text) if is_lost else LookupFailed(text, reason=WidenReason.LOOKUP_ERROR)


def _in_words(error: psycopg.Error) -> str:
    """What Postgres says, without what may be a value of a row."""
    state = error.sqlstate or ""
    if state.startswith(_MAY_QUOTE_VALUES):
        return f"{type(error).__name__} ({state})"
    return " ".join((error.diag.message_primary or str(error)).split())
