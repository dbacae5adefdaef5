"""Asks the lookups of a batch: one read-only statement per lookup on a few connections of their own.

Nothing here depends on the state of a session: each question is a transaction that brings its own settings, so the
connections may lead through a transaction pooler or to a replica. In that transaction it is first seen whether the
changes that ask are visible (``visibility.py``), because a question that comes too early would find the old rows and
nobody would ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Dumper
from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from invalidator.errors import ConfigError, LookupFailed, SourceError
from invalidator.model import Invalidation, WidenReason
from invalidator.ports import Options
from invalidator.postgres.connection import connect_pooled, parse_dsn
from invalidator.postgres.visibility import SEEN_SQL, Seen

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGresult

    from invalidator.telemetry.events import Events
    from invalidator.telemetry.state import RuleState

ROWS_PER_STATEMENT: Final = 200_000
"""Bounds what one statement can bring back, by asking for fewer rows at once."""
_MAX_ASKED: Final = 5_000
_FIRST_WAIT_SECONDS: Final = 0.001
_MAX_WAIT_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 0.5
"""The server ends a statement by itself; after this we no longer believe that it will."""
_FIRST_BACKOFF_SECONDS: Final = 0.2
_MAX_BACKOFF_SECONDS: Final = 5.0
_TEXT_ARRAY_OID: Final = 1009
_MAY_QUOTE_VALUES: Final = ("22", "23", "P0")
"""Classes of SQLSTATE whose messages hold values of rows, which belong in no log."""

Asked = tuple[bytes | None, ...]
Made = TypeVar("Made")


class Settings(Options):
    """Settings of ``lookups:``."""

    dsn: SecretStr = SecretStr("")
    """Where the SELECTs of `lookup:` run: the same cluster, also through a pooler, or a physical replica of it. Empty:
    the source's. It needs SELECT on the tables that the lookups name."""

    @field_validator("dsn")
    @classmethod
    def _is_understood(cls, dsn: SecretStr) -> SecretStr:
        try:
            parse_dsn(dsn.get_secret_value())
        except ConfigError as error:
            code, message = "bad-value", "{text}"
            raise PydanticCustomError(code, message, {"text": str(error)}) from None
        return dsn

    connections: int = Field(default=2, ge=1, le=32)
    """How many of them may run at once. Connections are opened when they are needed."""
    timeout_seconds: float = Field(default=2, gt=0, le=60)
    """How long one answer may take, with the wait until the change is visible there; after that the rule widens."""


class Plan(Protocol):
    """One lookup of one rule; ``rules.lookup.LookupPlan`` is one."""

    state: RuleState
    type_oids: tuple[int, ...]

    @property
    def name(self) -> str:
        """The lookup's name."""
        ...

    @property
    def timeout_seconds(self) -> float | None:
        """Its own timeout, if it has one."""
        ...

    @property
    def limit(self) -> int:
        """Rows for one asked row."""
        ...

    def grouped(self, asked: Iterable[Asked]) -> dict[Asked, list[Asked]]:
        """The asked rows by the parameters of the SQL."""
        ...

    def statement(self, type_names: Sequence[str]) -> str:
        """The SQL for many rows; each parameter is a ``text[]``."""
        ...

    def answer(
        self,
        invalidation: Invalidation,
        asked: Sequence[Sequence[Asked]],
        columns: Sequence[str],
        found: Iterable[tuple[int, Sequence[bytes | None]]],
    ) -> None:
        """Add what was found; raises ``LookupFailed``."""
        ...

    def widen(self, invalidation: Invalidation, reason: WidenReason) -> None:
        """Add the coarse form."""
        ...


class Lookups:
    """Answers the lookups of batches.

    Args:
        settings: how.
        dsn: where, if the settings do not say.
        events: what it reports to.
    """

    def __init__(self, settings: Settings, *, dsn: str, events: Events) -> None:
        self._settings = settings
        self._events = events
        self._pool = _Pool(settings.dsn.get_secret_value() or dsn, settings.connections)

    async def answer(self, invalidation: Invalidation) -> None:
        """Put names in the place of all questions; those that cannot be answered widen. Raises no error of Postgres."""
        plans: dict[Plan, set[Asked]] = dict(invalidation.lookups)
        transactions = dict(invalidation.lookup_transactions)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for plan, asked in plans.items():
                group.create_task(self._answer(plan, asked, invalidation, transactions, started))
        # Only now: who was cancelled in between must not leave a batch that looks answered.
        invalidation.lookups.clear()
        invalidation.lookup_transactions.clear()

    async def close(self) -> None:
        """End the connections."""
        await self._pool.close()

    async def _answer(
        self,
        plan: Plan,
        asked: Iterable[Asked],
        invalidation: Invalidation,
        transactions: Mapping[int, int],
        started: float,
    ) -> None:
        groups = list(plan.grouped(asked).items())
        size = max(1, min(_MAX_ASKED, ROWS_PER_STATEMENT // (plan.limit + 1)))
        timeout = plan.timeout_seconds or self._settings.timeout_seconds
        for start in range(0, len(groups), size):
            chunk = groups[start : start + size]
            question = _Question(
                plan, [parameters for parameters, _ in chunk], transactions, timeout, started + timeout
            )
            try:
                columns, found = await self._ask(question)
                plan.answer(invalidation, [members for _, members in chunk], columns, found)
            except LookupFailed as error:
                is_timeout = error.reason is WidenReason.LOOKUP_TIMEOUT
                plan.state.lookups["timeout" if is_timeout else "error"] += len(groups) - start
                plan.widen(invalidation, error.reason)
                self._events.lookup_failed(plan.state.name, lookup=plan.name, error=str(error), reason=error.reason)
                return
        self._events.lookup_answered(plan.state.name)

    async def _ask(self, question: _Question) -> tuple[list[str], list[tuple[int, list[bytes | None]]]]:
        async with self._pool.slots:
            begun = time.monotonic()
            question.deadline = begun + question.timeout
            try:
                session = await self._pool.take(question.deadline)
                if session.is_used:
                    try:
                        return await self._asked_of(session, question)
                    except _SessionLostError:
                        # It died while it was idle, as connections through poolers and firewalls do.
                        session = await self._pool.take(question.deadline, fresh=True)
                return await self._asked_of(session, question)
            except _SessionLostError as error:
                raise LookupFailed(error.message, reason=WidenReason.LOOKUP_ERROR) from error
            finally:
                question.plan.state.lookup_duration.observe(time.monotonic() - begun)

    async def _asked_of(
        self, session: _Session, question: _Question
    ) -> tuple[list[str], list[tuple[int, list[bytes | None]]]]:
        try:
            result = await session.bounded(session.ask(question), question.deadline)
        except psycopg.Error as error:
            raise _failure(error, is_lost=session.is_lost, seconds=question.timeout) from error
        finally:
            await self._pool.put(session)
        return _names(result), _rows(result)


@dataclass(slots=True)
class _Question:
    """What one statement asks."""

    plan: Plan
    parameters: Sequence[Asked]
    transactions: Mapping[int, int]
    timeout: float
    visible_by: float
    """When the wait for visibility ends: it is shared by all questions of a batch, or each would wait in turn."""
    deadline: float = 0.0


class _SessionLostError(Exception):
    """The connection is gone.

    Args:
        message: what was seen.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class _TextArray(list[bytes]):
    """A ``text[]`` whose values are bytes as the stream has them."""


class _TextArrayDumper(Dumper):
    oid = _TEXT_ARRAY_OID

    def dump(self, obj: _TextArray) -> Buffer:
        quoted = (value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for value in obj)
        return b'{"' + b'","'.join(quoted) + b'"}' if obj else b"{}"


class _Session:
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

    async def ask(self, question: _Question) -> PGresult:
        """Run one question in a transaction of its own that sees the changes which ask."""
        self.is_used = True
        try:
            await self._begin(question)
            names = [await self._type_name(oid) for oid in question.plan.type_oids]
            columns = range(len(names))
            values = [_TextArray(row[at] or b"" for row in question.parameters) for at in columns]
            cursor = psycopg.AsyncRawCursor(self._connection)
            await cursor.execute(question.plan.statement(names).encode("utf-8", "surrogateescape"), values)
            result = cursor.pgresult
            if result is None:  # pragma: no cover  (execute() has a result or raises)
                raise AssertionError
            return result
        finally:
            if not self.is_lost:
                with contextlib.suppress(psycopg.Error):
                    await self._connection.execute("ROLLBACK")

    async def _begin(self, question: _Question) -> None:
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
            if time.monotonic() + wait > min(question.visible_by, question.deadline):
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
                self._hang_up()
                await asyncio.wait({task})
                task.exception()  # looked at: what it died of is our hanging up
                message = "no answer in time, not even that there is none"
                raise LookupFailed(message, reason=WidenReason.LOOKUP_TIMEOUT)
        except asyncio.CancelledError:
            self._hang_up()
            await asyncio.gather(task, return_exceptions=True)
            raise
        return task.result()

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()

    def _hang_up(self) -> None:
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)


class _Pool:
    """A few connections, opened when they are needed, and not knocked at too often when they cannot be.

    Args:
        dsn: where to; read anew by libpq for each connection, so that password files may change.
        size: how many.
    """

    def __init__(self, dsn: str, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self._dsn = dsn
        self._idle: list[_Session] = []
        self._failures = 0
        self._refused_until = 0.0
        self._refusal = ""

    async def take(self, deadline: float, *, fresh: bool = False) -> _Session:
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
        return _Session(connection)

    async def put(self, session: _Session) -> None:
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


def _failure(error: psycopg.Error, *, is_lost: bool, seconds: float) -> LookupFailed | _SessionLostError:
    if isinstance(error, pg.QueryCanceled):
        message = f"no answer within {seconds:g} s"
        return LookupFailed(message, reason=WidenReason.LOOKUP_TIMEOUT)
    text = _in_words(error)
    return _SessionLostError(text) if is_lost else LookupFailed(text, reason=WidenReason.LOOKUP_ERROR)


def _in_words(error: psycopg.Error) -> str:
    """What Postgres says, without what may be a value of a row."""
    state = error.sqlstate or ""
    if state.startswith(_MAY_QUOTE_VALUES):
        return f"{type(error).__name__} ({state})"
    return " ".join((error.diag.message_primary or str(error)).split())


def _names(result: PGresult) -> list[str]:
    return [(result.fname(at) or b"").decode("utf-8", "surrogateescape") for at in range(1, result.nfields)]


def _rows(result: PGresult) -> list[tuple[int, list[bytes | None]]]:
    columns = range(1, result.nfields)
    value: Callable[[int, int], bytes | None] = result.get_value
    return [(int(value(at, 0) or 0) - 1, [value(at, column) for column in columns]) for at in range(result.ntuples)]
