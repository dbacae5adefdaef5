"""Notifications go into the open batch: what they mean, nothing of connections.

It reads on whatever the targets do: a listener that stops reading fills the server's queue, and when that is full every
COMMIT that notifies fails. So memory is bounded by widening.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from invalidator.batching import coalesce
from invalidator.model import Batch, Invalidation, Lsn, Operation, Relation, Transaction, WidenReason
from invalidator.postgres.decoder import POSTGRES_EPOCH
from invalidator.postgres.notify.payload import Notice, Shape, Unreadable, message, parse, shape_of, shaped, texts

if TYPE_CHECKING:
    from invalidator.ports import RowFunction, Rules
    from invalidator.postgres.recent import Recent
    from invalidator.telemetry.state import SourceState

_MOST_TABLES: Final = 1000
_MOST_SHAPES: Final = 100
"""Anybody may notify: made-up tables and columns must not fill the memory."""

Name = tuple[str, str]
"""Schema and table."""


class Verdict(StrEnum):
    """What became of a notification."""

    APPLIED = "applied"
    WITHOUT_ROWS = "without_rows"  # it says that a table changed and not how: its rules widen
    UNKNOWN_TABLE = "unknown_table"  # nothing in the database has this name; rules that name it widen
    UNREADABLE = "unreadable"  # nobody can tell which table it is about: nothing was done


@dataclass(frozen=True, slots=True)
class Moment:
    """A look at the server after notifications came: what they are about is visible by then."""

    position: Lsn
    xid: int
    """A transaction that has ended: that of a notification is not told."""
    at: float
    """Unix seconds on the server's clock."""


@dataclass(slots=True, eq=False)
class _Table:
    """One table, and the functions for the shapes that its payloads came in."""

    relation: Relation | None
    """None: nothing in the database has this name."""
    functions: dict[Shape, tuple[Relation, RowFunction | None]] = field(default_factory=dict)


class Reader:
    """Reads payloads in the order in which they came.

    Args:
        rules: make the function for each relation.
        max_items: distinct names from which on payloads only widen.
        state: counts bytes, rows and payloads.
        recent: keeps changes for who wants to look at them.
    """

    def __init__(self, rules: Rules, *, max_items: int, state: SourceState, recent: Recent | None = None) -> None:
        self._rules = rules
        self._max_items = max_items
        self._state = state
        self._tables: dict[Name, _Table] = {}
        self._fresh: set[Name] = set()
        self._recent = recent
        self._transaction = Transaction(0, 0, 0)
        self._position = Lsn(0)
        self._invalidation = Invalidation()
        self._oldest: float | None = None
        self._end: Lsn | None = None
        self._heartbeat: float | None = None

    @property
    def has_something(self) -> bool:
        """Whether the open batch names anything, or holds a heartbeat."""
        return bool(self._invalidation) or self._heartbeat is not None

    def parse(self, payload: bytes) -> Notice | None:
        """What a payload says; None, and counted, if nobody can tell."""
        self._state.received_bytes += len(payload)
        try:
            return parse(payload)
        except Unreadable as verdict:
            self._state.notifications.counts[Verdict.UNREADABLE] += 1
            self._state.notifications.refusal = str(verdict)
            return None

    def unknown(self, notices: Iterable[Notice]) -> list[Name]:
        """The tables among these that must be looked up first; there is room for all of them then."""
        names = dict.fromkeys((notice.schema, notice.table) for notice in notices)
        if len(self._tables) + len(names) > 2 * _MOST_TABLES:
            self._tables.clear()  # here and not in between: what these are about must not be taken for unknown
            self._fresh.clear()
        return [name for name in names if name not in self._fresh]

    def bind(self, name: Name, relation: Relation | None) -> None:
        """Learn what a table is; None: there is none."""
        table = self._tables.get(name)
        if table is None or table.relation != relation:
            self._tables[name] = _Table(relation)
        self._fresh.add(name)

    def forget(self) -> None:
        """Look every table up again when it comes next: it may have been altered."""
        self._fresh.clear()

    def swap(self, rules: Rules) -> None:
        """Put other rules in force for what comes from now on."""
        self._rules = rules
        for table in self._tables.values():
            table.functions.clear()

    def begin(self, moment: Moment) -> None:
        """What is read from now on came before this moment."""
        commit_time = round((moment.at - POSTGRES_EPOCH) * 1_000_000)
        self._transaction = Transaction(moment.position.value - 1, moment.xid & 0xFFFFFFFF, commit_time)
        self._position = moment.position
        self._state.transactions += 1
        if self._recent is not None:
            self._recent.begin(replace(self._transaction, xid=0, bulk_rows={}))  # whose it was is not told

    def commit(self) -> None:
        """Everything that came before the moment has been read."""
        if self._recent is not None:
            self._recent.commit(self._position.value)

    def read(self, notice: Notice, at: float) -> None:
        """Take one payload in.

        Args:
            notice: its table is bound.
            at: when it came; unix seconds on the server's clock.
        """
        before = len(self._invalidation)
        self._change(notice)
        if len(self._invalidation) > before and self._oldest is None:
            self._oldest = self._state.oldest_undelivered_commit = at

    def beat(self, sent: float, position: Lsn) -> None:
        """A notification of our own came back: everything that was committed before the position was heard."""
        self._heartbeat = sent
        self._end = position

    def take(self) -> Batch:
        """Hand the open batch over and begin the next one."""
        batch = Batch(self._invalidation, self._end, self._oldest if self._invalidation else None, self._heartbeat)
        self._invalidation = Invalidation()
        self._end = self._heartbeat = self._oldest = None
        self._state.oldest_undelivered_commit = None
        return batch

    def _change(self, notice: Notice) -> None:
        table = self._tables.get((notice.schema, notice.table))
        relation = None if table is None else table.relation
        verdict, reason = Verdict.APPLIED, WidenReason.CAPTURE_FAILED
        if table is None or relation is None:
            verdict, relation = Verdict.UNKNOWN_TABLE, Relation(0, notice.schema, notice.table, "n", ())
            self._state.notifications.refusal = "it names a table that the database does not have"
        elif len(self._invalidation) >= self._max_items:
            reason = WidenReason.BULK
        elif notice.operation is not None and self._applied(notice, notice.operation, table, relation):
            self._state.notifications.counts[verdict] += 1
            return
        else:
            verdict = Verdict.WITHOUT_ROWS
        self._state.notifications.counts[verdict] += 1
        named = Invalidation()
        self._rules.widen(relation, named, self._transaction, reason)
        self._take_coarse(relation, named, reason)

    def _applied(self, notice: Notice, operation: Operation, table: _Table, relation: Relation) -> bool:
        """Take the change in; False if the payload does not hold what the operation needs."""
        if operation is not Operation.TRUNCATE:
            return self._row(notice, operation, table, relation)
        named = Invalidation()
        self._rules.truncate([relation], named, self._transaction)
        self._take_coarse(relation, named, None)
        return True

    def _take_coarse(self, relation: Relation, named: Invalidation, reason: WidenReason | None) -> None:
        if named:
            coalesce.add(self._invalidation, named)
            if self._recent is not None:
                self._recent.keep_row(relation, b"", reason)

    def _row(self, notice: Notice, operation: Operation, table: _Table, relation: Relation) -> bool:
        """Read a changed row; False if the payload does not hold it."""
        old, new = texts(notice.old, relation), texts(notice.new, relation)
        shape = shape_of(operation, old, new)
        if shape is None:
            return False
        bound = table.functions.get(shape)
        if bound is None:
            if len(table.functions) >= _MOST_SHAPES:
                table.functions.clear()
            sent = shaped(relation, shape)
            bound = table.functions[shape] = sent, self._rules.bind(sent)
        sent, function = bound
        if function is None:
            self._state.rows_without_rule += 1
        else:
            row = message(sent, operation, old, new)
            function(row, self._invalidation, self._transaction)
            if self._recent is not None:
                self._recent.keep_row(sent, row)
        return True
