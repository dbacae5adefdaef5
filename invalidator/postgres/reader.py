"""Messages of the stream go into the open batch: what rows mean, how far the stream has come, nothing of sockets."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from invalidator.batching import coalesce
from invalidator.model import Batch, Invalidation, Lsn, Relation, Transaction, WidenReason
from invalidator.postgres import decoder
from invalidator.postgres.catalog.told import PREFIX as DDL_PREFIX
from invalidator.postgres.recent import HEAD_BYTES, MAX_MESSAGE_BYTES, Recent, truncated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from invalidator.model import Column
    from invalidator.ports import RowFunction, Rules
    from invalidator.telemetry.state import SourceState

    DdlFunction = Callable[[bytes], Iterable[tuple[str, str]]]
    """Takes what the DDL hook wrote, and gives schema and table of those whose rules widen; never raises for it."""

    class MessageFunction(Protocol):
        """Takes what an application wrote with ``pg_logical_emit_message``; never raises for what it holds."""

        def __call__(self, content: bytes, *, is_transactional: bool, invalidation: Invalidation) -> None:
            """Add what it names to the invalidation."""
            ...


HEARTBEAT_PREFIX = "invalidator.heartbeat"
MESSAGE_PREFIX = "invalidator"
"""Of the messages with which applications invalidate by themselves."""

CHUNK = 256
"""Messages between two looks at the bounds of the batch: what a batch may exceed them by."""


class _Bound(dict[bytes, "RowFunction | None"]):
    """Row functions by the four raw bytes of the relation's OID; None: no rule wants its rows."""

    def __missing__(self, oid: bytes) -> RowFunction | None:
        raise _Unannounced


class _Unannounced(Exception):  # noqa: N818
    """A row came for a relation that the stream has not told."""


class Reader:
    """Reads one connection's messages into the open batch.

    Args:
        rules: make the function for each relation.
        heartbeat_name: what our heartbeats begin with.
        max_items: distinct names at which the batch is full.
        max_bytes: bytes of the stream at which the batch is full.
        state: counts bytes, rows and transactions.
        on_message: takes the messages with which applications invalidate by themselves; None: they are passed over.
        on_ddl: takes the messages of the DDL hook; None: the same.
        recent: keeps row changes for who wants to look at them.
    """

    def __init__(  # noqa: PLR0913  (who takes what)
        self,
        rules: Rules,
        *,
        heartbeat_name: str,
        max_items: int,
        max_bytes: int,
        state: SourceState,
        on_message: MessageFunction | None = None,
        on_ddl: DdlFunction | None = None,
        recent: Recent | None = None,
    ) -> None:
        self._rules = rules
        self._heartbeat_name = heartbeat_name
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._state = state
        self._on_message = on_message
        self._on_ddl = on_ddl
        self._recent = recent
        self._bound = _Bound()
        self._relations: dict[bytes, Relation] = {}
        self._columns: dict[tuple[Column, ...], tuple[Column, ...]] = {}
        if recent is not None:
            recent.relations = self._relations
        self.encoding: str | None = None
        """Of the content of messages, as Python calls it; None: UTF-8, or whatever the application wrote."""
        self.unbound: Relation | None = None
        """A relation whose name must be looked up before anything else is read; see ``bind``."""
        self.rows = 0
        self.end = 0
        """End of the last whole transaction, or of a keepalive while none is open. Compared, never computed."""
        self.is_reply_requested = False
        self._taken_end = 0
        self._invalidation = Invalidation()
        self._bytes = 0
        self._oldest: float | None = None
        self._heartbeat: float | None = None
        self._transaction = Transaction(0, 0, 0)
        self._in_transaction = False
        self._next_rules: Rules | None = None

    def __repr__(self) -> str:
        return f"<Reader end={Lsn(self.end)} in_transaction={self._in_transaction} items={len(self._invalidation)}>"

    def __len__(self) -> int:
        """Distinct names in the open batch."""
        return len(self._invalidation)

    @property
    def is_full(self) -> bool:
        """Whether the open batch has reached its bounds."""
        return self._bytes >= self._max_bytes or len(self._invalidation) >= self._max_items

    @property
    def has_something(self) -> bool:
        """Whether the open batch names anything, or holds a heartbeat."""
        return bool(self._invalidation) or self._heartbeat is not None

    @property
    def has_progress(self) -> bool:
        """Whether a position is known that no batch has carried yet."""
        return self.end > self._taken_end

    def bind(self, relation: Relation) -> None:
        """Learn what rows of this relation mean."""
        oid = relation.oid.to_bytes(4)
        # Kept as long as the connection: the stream tells a relation once. Where each tenant has a schema, most of what
        # that takes is columns, which are the same for very many relations.
        columns = self._columns.setdefault(relation.columns, relation.columns)
        self._relations[oid] = relation = replace(relation, columns=columns)
        self._bound[oid] = self._rules.bind(relation)
        self.unbound = None

    def swap(self, rules: Rules) -> None:
        """Put other rules in force: now, or at the end of the open transaction, which belongs to one set only."""
        self._next_rules = rules
        if not self._in_transaction:
            self._take_over(rules)

    def _take_over(self, rules: Rules) -> None:
        self._rules = rules
        self._next_rules = None
        for oid, relation in self._relations.items():
            self._bound[oid] = rules.bind(relation)

    def take(self) -> Batch:
        """Hand the open batch over and begin the next one; an open transaction goes on in that."""
        invalidation = self._invalidation
        end = Lsn(self.end) if self.has_progress else None
        batch = Batch(invalidation, end, self._oldest if invalidation else None, self._heartbeat)
        self._invalidation = Invalidation()
        self._bytes = 0
        self._heartbeat = None
        self._taken_end = self.end
        self._oldest = decoder.unix_seconds(self._transaction.commit_time) if self._in_transaction else None
        self._state.oldest_undelivered_commit = None
        return batch

    def drain(self, read: Callable[[int], tuple[int, memoryview]]) -> int:
        """Take every whole message out of libpq, up to the bounds of the batch.

        Returns:
            What the last read returned: 0 when dry, below 0 at the end of the stream, above 0 at the bounds or when a
            relation must be bound first.
        """
        size = 1
        while size > 0 and self.unbound is None and not self.is_full:
            size = self._drain_chunk(read)
        if self._invalidation:
            self._state.oldest_undelivered_commit = self._oldest
        self._state.received_position = self.end
        return size

    def _drain_chunk(self, read: Callable[[int], tuple[int, memoryview]]) -> int:
        """Take some messages. The hot loop of the daemon: scripts/bench measures it (throughput, consumer_cpu)."""
        bound = self._bound
        invalidation = self._invalidation
        transaction = self._transaction
        recent = self._recent
        keep = None if recent is None else recent.keep
        size = rows = unwanted = received = 0
        data = b""
        try:
            for _ in range(CHUNK):
                size, message = read(1)
                if size <= 0:
                    break
                data = bytes(message)
                received += size
                if data[0] == 119 and size > 25:  # XLogData with a payload
                    kind = data[25]
                    if kind == 85 or kind == 73 or kind == 68:  # noqa: PLR1714  (quicker than a tuple)
                        row = bound[data[26:30]]
                        rows += 1
                        if row is not None:
                            row(data, invalidation, transaction)
                            if keep is not None:
                                keep(data if size < MAX_MESSAGE_BYTES else data[:HEAD_BYTES])
                        else:
                            unwanted += 1
                        continue
                self._control(data)
                transaction = self._transaction
                keep = None if recent is None else recent.keep
                if self.unbound is not None:
                    break
        except _Unannounced:
            what = f"the stream has not told its relation {int.from_bytes(data[26:30])}"
            raise decoder.damaged(data, "row", what) from None
        self.rows += rows
        self._bytes += received
        self._state.received_bytes += received
        self._state.rows_without_rule += unwanted
        return size

    def _control(self, data: bytes) -> None:
        """Everything that is not a row."""
        if data[0] == decoder.KEEPALIVE:
            self._keepalive(decoder.keepalive(data))
        elif data[0] == decoder.XLOG_DATA and len(data) > decoder.PAYLOAD:
            self._logical(data)
        else:
            raise decoder.damaged(data, "replication", f"its type {data[:1]!r} is unknown, or it is empty")

    def _logical(self, data: bytes) -> None:
        """A message of the plugin that is not a row."""
        match data[decoder.PAYLOAD]:
            case decoder.BEGIN:
                self._begin(data)
            case decoder.COMMIT:
                self._commit(data)
            case decoder.RELATION:
                # Its name may be that of a partition, which only the catalog can tell: stop until it is bound.
                self.unbound = decoder.relation(data)
            case decoder.TRUNCATE:
                self._truncate(data)
            case decoder.MESSAGE:
                self._message(data)
            case decoder.TYPE | decoder.ORIGIN:
                pass  # names of types and of upstream nodes: no rule depends on them
            case _:
                raise decoder.unknown(data)

    def _begin(self, data: bytes) -> None:
        self._transaction = transaction = decoder.begin(data)
        self._in_transaction = True
        if self._recent is not None:
            self._recent.begin(data)
        if self._oldest is None or not self._invalidation:
            self._oldest = decoder.unix_seconds(transaction.commit_time)

    def _commit(self, data: bytes) -> None:
        start, end = decoder.commit(data)
        # Postgres' own subscriber asks for the same. A wrong end, once confirmed, would skip transactions for ever.
        if not self._in_transaction or start != self._transaction.final_lsn or end <= start:
            begun = Lsn(self._transaction.final_lsn) if self._in_transaction else "nothing"
            raise decoder.damaged(data, "Commit", f"it ends {Lsn(start)} at {Lsn(end)}, and {begun} is open")
        self.end = end
        self._in_transaction = False
        self._state.transactions += 1
        if self._recent is not None:
            self._recent.commit(end)
        if self._next_rules is not None:
            self._take_over(self._next_rules)

    def _truncate(self, data: bytes) -> None:
        named = Invalidation()
        self._rules.truncate(truncated(data, self._relations), named, self._transaction)
        if named:
            coalesce.add(self._invalidation, named)
            self._remember(data)

    def _remember(self, data: bytes) -> None:
        if self._recent is not None and self._in_transaction:
            self._recent.keep(data if len(data) < MAX_MESSAGE_BYTES else data[:HEAD_BYTES])

    def _message(self, data: bytes) -> None:
        message = decoder.logical_message(data)
        if self.encoding is not None and message.prefix in (MESSAGE_PREFIX, DDL_PREFIX):
            data = decoder.as_utf8(data, self.encoding)
            message = decoder.logical_message(data)
        if message.prefix == HEARTBEAT_PREFIX:
            name, _, sent = message.content.decode("ascii", "replace").rpartition(" ")
            if name == self._heartbeat_name:
                with contextlib.suppress(ValueError):  # anybody may emit messages
                    self._heartbeat = _finite(sent)
        elif message.prefix == MESSAGE_PREFIX and self._on_message is not None:
            is_transactional = message.is_transactional
            self._on_message(message.content, is_transactional=is_transactional, invalidation=self._invalidation)
            self._remember(data)
        elif message.prefix == DDL_PREFIX and self._on_ddl is not None and message.is_transactional:
            for schema, table in self._on_ddl(message.content):
                changed = Relation(0, schema, table, "n", ())
                self._rules.widen(changed, self._invalidation, self._transaction, WidenReason.CATALOG_CHANGED)

    def _keepalive(self, keepalive: decoder.Keepalive) -> None:
        self._state.server_position = max(self._state.server_position, keepalive.wal_end)
        if not self._in_transaction:
            # Everything before it was sent, and nothing is open: it takes the road of an empty transaction.
            self.end = max(self.end, keepalive.wal_end)
        self.is_reply_requested = self.is_reply_requested or keepalive.reply_requested


def _finite(text: str) -> float:
    """A moment; an infinite one would count as fresh for ever."""
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds
