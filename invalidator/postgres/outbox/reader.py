"""Rows of the outbox go into the open batch: what they mean, nothing of connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from invalidator.batching import coalesce
from invalidator.model import Batch, Invalidation, Lsn, Relation, Transaction, WidenReason
from invalidator.postgres.decoder import POSTGRES_EPOCH
from invalidator.postgres.outbox.images import messages, tuples

if TYPE_CHECKING:
    from invalidator.ports import RowFunction, Rules
    from invalidator.postgres.recent import Recent
    from invalidator.telemetry.state import SourceState

HEARTBEAT: Final = "H"
LOST: Final = "L"
"""Somebody else removed rows (``provision.outbox_table``)."""
_TRUNCATE: Final = "T"
_COUNT_AFTER: Final = 64
"""Changes between two looks whether the batch is full."""
_ROWS: Final = frozenset("IUD")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where a row of the outbox comes from, and what its columns are: one object for very many rows."""

    relation: int
    schema: str
    table: str
    columns: bytes
    """The names, a ``text[]`` in binary form; empty when the row has no values."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the outbox: the changes of one statement, or a part of them."""

    xid: int
    id: int
    written_at: float
    """Unix seconds on the server's clock."""
    layout: Layout
    operation: str
    old: bytes | None
    new: bytes | None

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return len(self.old or b"") + len(self.new or b"")


class Reader:
    """Reads rows in the order of their transactions.

    Args:
        rules: make the function for each relation.
        heartbeat_name: what our heartbeats begin with.
        max_items: distinct names at which the batch is full.
        state: counts bytes, rows and transactions.
        recent: keeps changes for who wants to look at them.
    """

    def __init__(
        self, rules: Rules, *, heartbeat_name: str, max_items: int, state: SourceState, recent: Recent | None = None
    ) -> None:
        self._rules = rules
        self._next_rules: Rules | None = None
        self._heartbeat_name = heartbeat_name
        self._max_items = max_items
        self._count_after = min(_COUNT_AFTER, max_items)
        self._uncounted = 0
        self._state = state
        self._relations: dict[Layout, Relation] = {}
        self._functions: dict[Layout, RowFunction | None] = {}
        self._recent = recent
        self._transaction = Transaction(0, 0, 0)
        self._position = Lsn(0)
        self._xid = 0
        self._invalidation = Invalidation()
        self._oldest: float | None = None
        self._heartbeat: float | None = None

    @property
    def is_full(self) -> bool:
        """Whether the open batch has reached its bound."""
        if self._uncounted < self._count_after:  # counting takes as long as reading a row
            return False
        self._uncounted = 0
        return len(self._invalidation) >= self._max_items

    @property
    def has_something(self) -> bool:
        """Whether the open batch names anything, or holds a heartbeat."""
        return bool(self._invalidation) or self._heartbeat is not None

    def unknown(self, rows: Iterable[Row]) -> list[Layout]:
        """The layouts among these that must be bound first."""
        layouts = dict.fromkeys(row.layout for row in rows if row.operation not in (HEARTBEAT, LOST))
        return [layout for layout in layouts if layout not in self._relations]

    def bind(self, layout: Layout, relation: Relation) -> None:
        """Learn what rows of this layout mean."""
        self._relations[layout] = relation
        self._functions[layout] = self._rules.bind(relation) if layout.columns else None

    def forget(self) -> None:
        """Forget the relations, because they may have other names and types by now."""
        self._relations.clear()
        self._functions.clear()

    def swap(self, rules: Rules) -> None:
        """Put other rules in force before the next transaction."""
        self._next_rules = rules

    def read(self, row: Row, position: Lsn) -> None:
        """Take one row in.

        Args:
            row: its layout is bound.
            position: an end of the log that was read after the row's commit.
        """
        if row.xid != self._xid:
            self._begin(row, position)
        self._state.received_bytes += row.size
        if row.operation == HEARTBEAT:
            self._beat(row.layout.table)
            return
        if row.operation == LOST:
            return
        is_first = self._oldest is None
        self._change(row)
        if is_first and self._invalidation:
            self._oldest = row.written_at
            self._state.oldest_undelivered_commit = self._oldest

    def commit(self) -> None:
        """All rows of the transaction that was read last have been read."""
        if self._recent is not None:
            self._recent.commit(self._position.value)

    def take(self, end: Lsn | None) -> Batch:
        """Hand the open batch over and begin the next one."""
        batch = Batch(self._invalidation, end, self._oldest if self._invalidation else None, self._heartbeat)
        self._invalidation = Invalidation()
        self._heartbeat = self._oldest = None
        self._uncounted = 0
        self._state.oldest_undelivered_commit = None
        return batch

    def _begin(self, row: Row, position: Lsn) -> None:
        if self._next_rules is not None:
            self._rules, self._next_rules = self._next_rules, None
            for layout, relation in self._relations.items():
                self.bind(layout, relation)
        self.commit()
        self._xid = row.xid
        commit_time = round((row.written_at - POSTGRES_EPOCH) * 1_000_000)
        # The commit lies before the position, and a standby that has replayed this much has seen it.
        self._transaction = Transaction(position.value - 1, row.xid & 0xFFFFFFFF, commit_time)
        self._position = position
        self._state.transactions += 1
        if self._recent is not None:
            self._recent.begin(replace(self._transaction, bulk_rows={}))

    def _beat(self, text: str) -> None:
        name, _, sent = text.rpartition(" ")
        if name == self._heartbeat_name:  # another daemon's means nothing to us
            with contextlib.suppress(ValueError):
                self._heartbeat = float(sent)

    def _change(self, row: Row) -> None:
        self._uncounted += 1
        relation = self._relations[row.layout]
        if row.operation == _TRUNCATE:
            named = Invalidation()
            self._rules.truncate([relation], named, self._transaction)
            self._take_coarse(relation, named, None)
            return
        old = tuples(row.old) if row.old is not None else []
        new = tuples(row.new) if row.new is not None else []
        self._uncounted += len(old or new)
        is_paired = row.operation != "U" or len(old) == len(new)
        if row.operation not in _ROWS or not is_paired:
            # The trigger could not write the values down, or (a row that another trigger kept from its new partition)
            # old and new ones do not belong together.
            named, reason = Invalidation(), WidenReason.CAPTURE_FAILED
            self._rules.widen(relation, named, self._transaction, reason)
            self._take_coarse(relation, named, reason)
            return
        function = self._functions[row.layout]
        if function is None:
            self._state.rows_without_rule += len(old or new)
            return
        for message in messages(row.operation, relation.oid, old, new):
            function(message, self._invalidation, self._transaction)
            if self._recent is not None:
                self._recent.keep_row(relation, message)

    def _take_coarse(self, relation: Relation, named: Invalidation, reason: WidenReason | None) -> None:
        if named:
            coalesce.add(self._invalidation, named)
            if self._recent is not None:
                self._recent.keep_row(relation, b"", reason)
