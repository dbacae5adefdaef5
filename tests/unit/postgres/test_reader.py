"""The reader turns scripted bytes into batches: nothing is lost at any bound, nothing unknown is passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.errors import ProtocolError
from invalidator.model import Batch, Invalidation, Lsn, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction
from invalidator.postgres.decoder import LogicalMessage
from invalidator.postgres.reader import HEARTBEAT_PREFIX, Reader
from invalidator.postgres.recent import Recent, RecentRow, RecentTransaction
from invalidator.telemetry.state import SourceState
from tests.support import pgoutput as wire

ITEM = wire.make_relation("id", name="public.item", oid=17)
OTHER = wire.make_relation("id", name="public.other", oid=18)


class FirstColumn:
    """Rules that name each row by its first column."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix

    def bind(self, relation: Relation) -> RowFunction | None:
        if relation.table != "item":
            return None

        def row(data: bytes, invalidation: Invalidation, transaction: Transaction) -> None:
            invalidation.keys.add(self.prefix + data[38 : 38 + int.from_bytes(data[34:38])])

        return row

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        invalidation.key_patterns |= {self.prefix + relation.table.encode() for relation in relations}

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        invalidation.key_patterns.add(self.prefix + relation.table.encode())


class ItemOnly(FirstColumn):
    """The same, also for TRUNCATE only of the table that has a rule."""

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        super().truncate([each for each in relations if each.table == "item"], invalidation, transaction)


def make_reader(max_items: int = 1000, max_bytes: int = 1 << 20, **options: Any) -> Reader:
    made: dict[str, Any] = {"rules": FirstColumn(), "heartbeat_name": "s", "state": SourceState(), **options}
    return Reader(max_items=max_items, max_bytes=max_bytes, **made)


def script(messages: Iterable[bytes]) -> Callable[[int], tuple[int, memoryview]]:
    """libpq's get_copy_data over a list: 0 when it is dry."""
    left = list(messages)

    def read(_: int) -> tuple[int, memoryview]:
        if not left:
            return 0, memoryview(b"")
        message = left.pop(0)
        return len(message), memoryview(message)

    return read


def play(reader: Reader, messages: Iterable[bytes]) -> list[Batch]:
    """Read everything, binding relations and taking full batches on the way."""
    read = script(messages)
    batches = []
    while (size := reader.drain(read)) > 0:
        if reader.unbound is not None:
            reader.bind(reader.unbound)
        else:
            batches.append(reader.take())
    assert size == 0
    return [*batches, reader.take()]


def transaction(number: int, rows: Sequence[int]) -> list[bytes]:
    return [
        wire.begin(final_lsn=number * 100, commit_time=number * 1_000_000, xid=number),
        *(wire.insert(17, [b"%d" % row]) for row in rows),
        wire.commit(lsn=number * 100, end_lsn=number * 100 + 50),
    ]


def test_relations_with_the_same_columns_share_them() -> None:
    """A schema for each tenant: 100,000 tables that are alike."""
    bound: list[Relation] = []

    class Remembering(FirstColumn):
        def bind(self, relation: Relation) -> RowFunction | None:
            bound.append(relation)
            return super().bind(relation)

    tenants = [wire.make_relation("id", "name", name=f"tenant_{n}.item", oid=n) for n in (1, 2)]
    other = wire.make_relation("id", "title", name="tenant_1.other", oid=3)
    play(make_reader(rules=Remembering()), map(wire.relation, (*tenants, other)))

    assert bound == [*tenants, other]
    assert bound[0].columns is bound[1].columns


@given(
    rows=st.lists(st.lists(st.integers(0, 10_000), max_size=600), min_size=1, max_size=4),
    max_items=st.integers(1, 700),
    max_bytes=st.integers(1, 30_000),
)
def test_bounds_split_the_stream_anywhere_without_losing_a_row_or_confirming_an_open_transaction(
    rows: list[list[int]], max_items: int, max_bytes: int
) -> None:
    messages = [wire.relation(ITEM)]
    for number, each in enumerate(rows, 1):
        messages += transaction(number, each)

    batches = play(make_reader(max_items, max_bytes), messages)

    assert set().union(*(batch.invalidation.keys for batch in batches)) == {b"%d" % r for each in rows for r in each}
    seen: set[bytes] = set()
    for batch in batches:
        seen |= batch.invalidation.keys
        if batch.end is not None:
            whole = [each for number, each in enumerate(rows, 1) if number * 100 + 50 <= batch.end.value]
            assert {b"%d" % row for each in whole for row in each} <= seen
    ends = [batch.end for batch in batches if batch.end is not None]
    assert ends == sorted(set(ends))
    assert ends[-1] == Lsn(len(rows) * 100 + 50)


@given(rows=st.lists(st.integers(1, 6), min_size=1, max_size=5), data=st.data())
def test_every_transaction_is_read_by_one_rule_set_whenever_rules_are_swapped(
    rows: list[int], data: st.DataObject
) -> None:
    """Rules are swapped between any two messages; the set of a transaction is the one in force at its Begin."""
    script_of = [transaction(number, range(number * 10, number * 10 + count)) for number, count in enumerate(rows, 1)]
    messages = [wire.relation(ITEM), *(message for each in script_of for message in each)]
    begins = {id(each[0]): number for number, each in enumerate(script_of, 1)}
    reader = make_reader(rules=FirstColumn(b"0:"))
    in_force: dict[int, int] = {}
    newest = 0
    for message in messages:
        if data.draw(st.booleans()):
            newest += 1
            reader.swap(FirstColumn(b"%d:" % newest))
        if id(message) in begins:
            in_force[begins[id(message)]] = newest
        reader.drain(script([message]))
        if reader.unbound is not None:
            reader.bind(reader.unbound)

    keys = reader.take().invalidation.keys

    assert keys == {
        b"%d:%d" % (in_force[number], number * 10 + row) for number, count in enumerate(rows, 1) for row in range(count)
    }


def test_a_truncate_belongs_to_the_rules_of_its_transaction_too() -> None:
    reader = make_reader()
    begin, _, commit = transaction(1, [1])
    play(reader, [wire.relation(ITEM), begin])
    reader.swap(FirstColumn(b"new:"))

    (batch,) = play(reader, [wire.truncate([17]), commit, *transaction(2, [2])])

    assert batch.invalidation.key_patterns == {b"item"}
    assert batch.invalidation.keys == {b"new:2"}


def test_a_batch_is_as_old_as_the_first_commit_that_named_something_in_it() -> None:
    reader = make_reader()
    quiet = [wire.begin(final_lsn=1, commit_time=1_000_000), wire.commit(lsn=1, end_lsn=2)]

    (batch,) = play(reader, [wire.relation(ITEM), *quiet, *transaction(7, [1]), *transaction(8, [2])])

    assert batch.oldest_commit_time == 946_684_800 + 7


def test_a_keepalive_moves_the_end_only_while_nothing_is_open() -> None:
    reader = make_reader()
    read = script([wire.keepalive(end=500), wire.begin(final_lsn=600), wire.keepalive(end=9000)])

    reader.drain(read)

    assert reader.end == 500


def test_a_keepalive_that_wants_an_answer_is_noted() -> None:
    reader = make_reader()
    reader.drain(script([wire.keepalive(end=1, reply=True), wire.keepalive(end=2)]))

    assert reader.is_reply_requested


def test_a_relation_is_bound_before_anything_behind_it_is_read() -> None:
    reader = make_reader()
    read = script([wire.relation(ITEM), wire.insert(17, [b"1"])])

    assert reader.drain(read) > 0
    assert (reader.unbound, len(reader)) == (ITEM, 0)
    reader.bind(ITEM)
    reader.drain(read)

    assert len(reader) == 1


def test_rows_that_no_rule_wants_are_counted_and_name_nothing() -> None:
    state = SourceState()
    reader = Reader(FirstColumn(), heartbeat_name="s", max_items=10, max_bytes=1000, state=state)

    (batch,) = play(reader, [wire.relation(OTHER), wire.insert(18, [b"1"]), wire.delete(18, key=[b"1"])])

    assert not batch.invalidation
    assert state.rows_without_rule == 2


def test_a_truncate_names_the_relations_that_are_known() -> None:
    (batch,) = play(make_reader(), [wire.relation(ITEM), wire.relation(OTHER), wire.truncate([17, 18, 99])])

    assert batch.invalidation.key_patterns == {b"item", b"other"}


def test_our_heartbeat_is_carried_and_that_of_another_slot_is_not() -> None:
    ours = wire.message(HEARTBEAT_PREFIX, b"s 123.5", transactional=True)
    others = [
        wire.message(HEARTBEAT_PREFIX, b"another 200.0"),
        wire.message(HEARTBEAT_PREFIX, b"s nonsense"),
        wire.message(HEARTBEAT_PREFIX, b"s inf"),
        wire.message(HEARTBEAT_PREFIX, b"s nan"),
        wire.message(HEARTBEAT_PREFIX, b"\xff\xfe"),
        wire.message("application", b"s 300.0"),
    ]

    (batch,) = play(make_reader(), [ours, *others])

    assert batch.heartbeat == 123.5


@pytest.mark.parametrize(
    "message",
    [
        wire.xlog_data(b"Z???"),
        wire.xlog_data(b"S" + bytes(5)),  # a stream start of protocol version 2
        wire.xlog_data(b""),
        b"x" + bytes(30),
        b"w",
        wire.insert(99, [b"1"]),  # a row of a relation that was never announced
        wire.insert(17, [b"1"])[:28],
        wire.commit(lsn=100, end_lsn=150),  # once more: nothing is open
    ],
)
def test_what_is_not_understood_stops_the_stream_with_the_position_kept(message: bytes) -> None:
    reader = make_reader()
    read = script([*transaction(1, []), message, *transaction(2, [])])

    with pytest.raises(ProtocolError, match="position was kept"):
        reader.drain(read)

    assert reader.end == 150


@pytest.mark.parametrize(("lsn", "end_lsn"), [(300, 350), (200, 200), (200, 150)])
def test_a_commit_that_does_not_fit_its_begin_is_not_believed(lsn: int, end_lsn: int) -> None:
    reader = make_reader()
    begin, row, _ = transaction(2, [1])
    read = script([wire.relation(ITEM), *transaction(1, []), begin, row, wire.commit(lsn=lsn, end_lsn=end_lsn)])
    reader.drain(read)
    reader.bind(ITEM)

    with pytest.raises(ProtocolError, match=f"it ends 0/{lsn:X} at 0/{end_lsn:X}, and 0/C8 is open"):
        reader.drain(read)

    assert reader.end == 150


# ---------------------------------------------------------------- what is kept for who wants to look


def relations_of(kept: RecentTransaction) -> list[Relation]:
    return [each.relation for each in kept.changes if isinstance(each, RecentRow)]


def test_the_newest_rows_are_kept_by_whole_transactions() -> None:
    recent = Recent(4)
    reader = make_reader(recent=recent)

    play(reader, [wire.relation(ITEM), *transaction(1, [1, 2]), *transaction(2, [3]), *transaction(3, [4, 5])])

    older, newer = recent.transactions()
    assert [(each.transaction.xid, each.end, len(each.changes)) for each in (older, newer)] == [
        (2, Lsn(250), 1),
        (3, Lsn(350), 2),
    ]
    assert older.is_whole
    assert newer.is_whole
    assert relations_of(newer) == [ITEM, ITEM]


def test_of_a_transaction_with_more_rows_than_are_kept_the_newest_are_there_and_that_is_said() -> None:
    recent = Recent(3)
    reader = make_reader(recent=recent)

    play(reader, [wire.relation(ITEM), *transaction(1, [1]), *transaction(2, [2, 3, 4, 5])])

    (kept,) = recent.transactions()
    assert not kept.is_whole
    assert [each.message[38:] for each in kept.changes if isinstance(each, RecentRow)] == [b"3", b"4", b"5"]


def test_heartbeats_and_transactions_without_anything_of_interest_push_nothing_out() -> None:
    recent = Recent(2)
    reader = make_reader(recent=recent, rules=ItemOnly(), on_message=lambda *_, **__: None)
    idle = [
        wire.begin(final_lsn=500),
        wire.message(HEARTBEAT_PREFIX, b"s 1.0", transactional=True),
        wire.message("another", b"{}", transactional=True),
        wire.insert(18, [b"1"]),
        wire.truncate([18]),
        wire.commit(lsn=500, end_lsn=550),
    ]

    play(reader, [wire.relation(ITEM), wire.relation(OTHER), *transaction(1, [1]), *idle * 10])

    (kept,) = recent.transactions()
    assert kept.transaction.xid == 1


def test_an_open_transaction_is_shown_without_its_end_as_soon_as_a_rule_wants_a_row() -> None:
    recent = Recent(100)
    reader = make_reader(recent=recent)

    play(reader, [wire.relation(ITEM), wire.relation(OTHER), wire.begin(final_lsn=7), wire.insert(18, [b"1"])])
    assert recent.transactions() == []
    play(reader, [wire.insert(17, [b"1"])])

    (open_one,) = recent.transactions()
    assert (open_one.end, open_one.transaction.final_lsn) == (None, 7)
    assert relations_of(open_one) == [ITEM]


def test_a_message_too_long_to_keep_makes_its_transaction_incomplete() -> None:
    recent = Recent(100)
    reader = make_reader(recent=recent)
    begin, _, commit = transaction(1, [1])

    play(reader, [wire.relation(ITEM), begin, wire.insert(17, [b"x" * 10_000]), wire.insert(17, [b"1"]), commit])

    (kept,) = recent.transactions()
    assert not kept.is_whole
    assert len(kept.changes) == 1


def test_a_truncate_of_a_partitioned_table_counts_once() -> None:
    """Postgres names the root and each partition; all of them are bound by the root's name."""
    leaf = replace(ITEM, oid=19)
    counted: list[list[int]] = []

    class Counting(FirstColumn):
        def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
            counted.append([relation.oid for relation in relations])
            super().truncate(relations, invalidation, transaction)

    recent = Recent(100)
    reader = make_reader(recent=recent, rules=Counting())
    begin, _, commit = transaction(1, [1])

    play(reader, [wire.relation(ITEM), wire.relation(leaf), begin, wire.truncate([17, 19]), commit])

    (kept,) = recent.transactions()
    assert relations_of(kept) == [ITEM]
    assert counted == [[17]]


def test_messages_with_which_an_application_invalidates_are_kept() -> None:
    recent = Recent(100)
    reader = make_reader(recent=recent, on_message=lambda *_, **__: None)
    begin, _, commit = transaction(1, [1])

    play(reader, [begin, wire.message("invalidator", b'{"keys": ["a"]}', transactional=True), commit])

    (kept,) = recent.transactions()
    assert kept.changes == [LogicalMessage(is_transactional=True, prefix="invalidator", content=b'{"keys": ["a"]}')]


def test_what_messages_say_in_the_encoding_of_the_database_is_handed_on_and_kept_in_utf8() -> None:
    recent = Recent(100)
    heard: list[bytes] = []

    def on_message(content: bytes, *, is_transactional: bool, invalidation: Invalidation) -> None:
        heard.append(content)

    def on_ddl(content: bytes) -> Iterable[tuple[str, str]]:
        heard.append(content)
        return ()

    reader = make_reader(recent=recent, on_message=on_message, on_ddl=on_ddl)
    reader.encoding = "iso8859-1"
    begin, _, commit = transaction(1, [1])
    messages = [
        wire.message(name, b"caf\xe9", transactional=True) for name in ("invalidator", "invalidator.ddl", "other")
    ]

    play(reader, [begin, *messages, commit])

    assert heard == ["café".encode()] * 2
    (kept,) = recent.transactions()
    assert kept.changes == [LogicalMessage(is_transactional=True, prefix="invalidator", content="café".encode())]
