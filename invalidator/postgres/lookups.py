"""Asks the lookups of a batch: one read-only statement per lookup on a few connections of their own.

Nothing here depends on the state of a session: each question is a transaction that brings its own settings, so the
connections may lead through a transaction pooler or to a replica. In that transaction it is first seen whether the
changes that ask are visible (``visibility.py``), because a question that comes too early would find the old rows and
nobody would ask again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final, Protocol
from weakref import WeakKeyDictionary

import psycopg
from pydantic import AfterValidator, Field, model_validator

from invalidator.credentials import Secret, checked_secret
from invalidator.errors import LookupFailed
from invalidator.model import Invalidation, WidenReason
from invalidator.ports import Options
from invalidator.postgres.connection import Address, Dsn, checked_dsn
from invalidator.postgres.lookup_breaker import Breaker
from invalidator.postgres.lookup_sessions import Asked, Pool, Question, Session, SessionLostError, failure

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from invalidator.telemetry.events import Events
    from invalidator.telemetry.state import RuleState

ROWS_PER_STATEMENT: Final = 200_000
"""Bounds what one statement can bring back, by asking for fewer rows at once."""
_MAX_ASKED: Final = 5_000

Answer = tuple[list[str], list[tuple[int, list[bytes | None]]]]
"""The names of the columns, and per found row the index of its question and the values."""


class Settings(Options):
    """Settings of ``lookups:``."""

    dsn: Annotated[Secret, AfterValidator(checked_dsn)] = Secret("")
    """Where the SELECTs of `lookup:` run: the same cluster, also through a pooler, or a physical replica of it. Empty:
    the source's. It needs SELECT on the tables that the lookups name. Of several hosts the first that answers is asked,
    or what `target_session_attrs` says."""
    password: Annotated[Secret, AfterValidator(checked_secret)] = Secret("")
    """The password for it; as that of the source."""
    connections: int = Field(default=2, ge=1, le=32)
    """How many of them may run at once. Connections are opened when they are needed."""
    timeout_seconds: float = Field(default=2, gt=0, le=60)
    """How long a batch of changes waits for the answers of a lookup, with the waits for a connection and until the
    change is visible there; after that the rule widens, and the lookup is not asked for a while: up to 0.2 s at first,
    up to 30 s when it fails again and again."""

    @model_validator(mode="after")
    def _has_use_for_its_password(self) -> Settings:
        if self.password.get_secret_value() and not self.dsn.get_secret_value():
            msg = "lookups.password is for lookups.dsn, which is not set: lookups use the source's connection settings"
            raise ValueError(msg)
        return self

    @property
    def address(self) -> Address | None:
        """What connections are opened with; None: the source's."""
        dsn = self.dsn.get_secret_value()
        return Address(dsn, self.password.get_secret_value(), "lookups") if dsn else None


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

    def __init__(self, settings: Settings, *, dsn: Dsn, events: Events) -> None:
        self._settings = settings
        self._events = events
        self._breakers: WeakKeyDictionary[Plan, Breaker] = WeakKeyDictionary()
        self._pool = Pool(settings.address or dsn, settings.connections)

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
        breaker = self._breakers.setdefault(plan, Breaker())
        for start in range(0, len(groups), size):
            chunk = groups[start : start + size]
            parameters = [each for each, _ in chunk]
            question = Question(
                plan.statement, plan.type_oids, parameters, transactions, timeout, deadline=started + timeout
            )
            try:
                breaker.check(time.monotonic())
                columns, found = await self._ask(question, plan.state)
                plan.answer(invalidation, [members for _, members in chunk], columns, found)
            except LookupFailed as error:
                breaker.failed(error, time.monotonic())
                self._widen(plan, invalidation, error, len(groups) - start)
                return
        breaker.answered()
        self._events.lookup_answered(plan.state.name)

    def _widen(self, plan: Plan, invalidation: Invalidation, error: LookupFailed, unanswered: int) -> None:
        is_timeout = error.reason is WidenReason.LOOKUP_TIMEOUT
        plan.state.lookups["timeout" if is_timeout else "error"] += unanswered
        plan.widen(invalidation, error.reason)
        self._events.lookup_failed(plan.state.name, lookup=plan.name, error=str(error), reason=error.reason)

    async def _ask(self, question: Question, state: RuleState) -> Answer:
        async with self._pool.slot(question):
            begun = time.monotonic()
            try:
                session = await self._pool.take(question.deadline)
                if session.is_used:
                    try:
                        return await self._asked_of(session, question)
                    except SessionLostError:
                        # It died while it was idle, as connections through poolers and firewalls do.
                        session = await self._pool.take(question.deadline, fresh=True)
                return await self._asked_of(session, question)
            except SessionLostError as error:
                raise LookupFailed(error.message, reason=WidenReason.LOOKUP_ERROR) from error
            finally:
                state.lookup_duration.observe(time.monotonic() - begun)

    async def _asked_of(self, session: Session, question: Question) -> Answer:
        try:
            result = await session.bounded(session.ask(question), question.deadline)
        except psycopg.Error as error:
            raise failure(error, is_lost=session.is_lost, seconds=question.timeout) from error
        finally:
            await self._pool.put(session)
        return _names(result), _rows(result)


def _names(result: PGresult) -> list[str]:
    return [(result.fname(at) or b"").decode("utf-8", "surrogateescape") for at in range(1, result.nfields)]


def _rows(result: PGresult) -> list[tuple[int, list[bytes | None]]]:
    columns = range(1, result.nfields)
    value: Callable[[int, int], bytes | None] = result.get_value
    return [(int(value(at, 0) or 0) - 1, [value(at, column) for column in columns]) for at in range(result.ntuples)]
