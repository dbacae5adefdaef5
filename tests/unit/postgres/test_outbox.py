"""The deciding parts of the outbox: which rows are new, what an array says, what goes into a batch."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.errors import ConfigError, ProtocolError
from invalidator.model import Column, Invalidation, Lsn, Operation, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction
from invalidator.postgres.outbox.deletion import CONFIRM_SQL, Deletion
from invalidator.postgres.outbox.history import begun
from invalidator.postgres.outbox.images import messages, texts, tuples
from invalidator.postgres.outbox.options import OutboxOptions
from invalidator.postgres.outbox.pace import Pace
from invalidator.postgres.outbox.reader import Layout, Reader, Row
from invalidator.postgres.outbox.window import NOTHING, Window
from invalidator.postgres.outbox.window import page as page_of
from invalidator.postgres.visibility import Snapshot
from invalidator.rules.rows import read_message, row_message
from invalidator.telemetry.state import SourceState
from tests.support.outbox import array

ITEM = Relation(7, "public", "item", "f", (Column("id", 23, is_identity=True), Column("slug", 25, is_identity=True)))
LAYOUT = Layout(7, "public", "item", b"names")


def line(*values: str) -> bytes:
    return struct.pack(">iiIii", 1, 0, 25, len(values), 1) + b"".join(
        struct.pack(">i", len(value.encode())) + value.encode() for value in values
    )


VALUES = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5))
def test_images_become_the_messages_that_logical_replication_would_send(
    rows: list[tuple[str | None, str | None]],
) -> None:
    images = tuples(array(*rows))
    shown = [dict(zip(("id", "slug"), row, strict=True)) for row in rows]
    inserted = list(messages("I", 7, [], images))
    assert inserted == [row_message(ITEM, Operation.INSERT, None, row) for row in shown]
    deleted = list(messages("D", 7, images, []))
    assert deleted == [row_message(ITEM, Operation.DELETE, row, None) for row in shown]
    updated = list(messages("U", 7, images, images[::-1]))
    assert [read_message(ITEM, message)[1:] for message in updated] == list(zip(shown, shown[::-1], strict=True))


def test_names_are_read_from_a_line() -> None:
    assert texts(line("id", "näme")) == ("id", "näme")


@pytest.mark.parametrize("cut", range(1, 20))
def test_an_array_that_ends_early_or_late_is_an_error_of_ours(cut: int) -> None:
    whole = array(["1", None], ["2", "b"])
    with pytest.raises(ProtocolError):
        tuples(whole[:-cut])
    with pytest.raises(ProtocolError):
        tuples(whole + bytes(cut))


class Table:
    """A simulated outbox: transactions begin, write, and end in any order."""

    def __init__(self) -> None:
        self.begun = 3
        self.running: set[int] = set()
        self.committed: set[int] = set()
        self.rows: list[tuple[int, int]] = []

    def begin(self) -> None:
        self.running.add(self.begun)
        self.begun += 1

    def snapshot(self) -> str:
        return f"{min(self.running, default=self.begun)}:{self.begun}:{','.join(map(str, sorted(self.running)))}"

    def find(self, asked: dict[str, Any]) -> list[tuple[int, int]]:
        """What ``fresh_sql`` finds."""
        until = None if asked["until"] is None else Snapshot.parse(asked["until"])
        here, begun = ((int(asked[f"{of}xid"]), int(asked[f"{of}id"])) for of in ("", "begun_"))
        found = [
            row
            for row in sorted(self.rows)
            if (str(row[0]) in asked["open"] and row > here) or (row > begun and row[0] < int(asked["end"]))
        ]
        visible = [row for row in found if row[0] in self.committed and (until is None or until.sees(row[0]))]
        return visible[: int(asked["limit"])]


@given(st.data(), st.integers(1, 3))
def test_windows_hand_over_every_row_once_whatever_commits_when(data: st.DataObject, limit: int) -> None:
    table, window, read = Table(), Window(), list[tuple[int, int]]()

    def page() -> Window:
        snapshot, found = table.snapshot(), table.find(page_of(window, limit))
        read.extend(found)
        return window.after(snapshot, found[-1] if found else None, is_full=len(found) == limit)

    for step in data.draw(st.lists(st.sampled_from(["begin", "write", "commit", "abort", "page"]), max_size=60)):
        if step == "page":
            window = page()
        elif step == "begin":
            table.begin()
        elif table.running:
            xid = data.draw(st.sampled_from(sorted(table.running)))
            if step == "write":
                table.rows.append((xid, len(table.rows)))
            else:
                table.running.discard(xid)
                table.committed |= {xid} if step == "commit" else set()
    for _ in range(2 * len(table.rows) + 4):
        window = page()
    assert sorted(read) == sorted(row for row in table.rows if row[0] in table.committed)


def small(rows: int) -> Deletion:
    """A deletion whose parts have so few rows, because each takes long."""
    deletion = Deletion(CONFIRM_SQL, "7/1/1")
    deletion.want(Lsn(0), NOTHING)
    while (part := deletion.part()) is None or int(str(part["limit"])) > rows:
        deletion.deleted([], seconds=1)
        deletion.want(Lsn(0), NOTHING)
    return deletion


def delete(table: Table, deletion: Deletion) -> list[tuple[int, int]]:
    """Delete one part."""
    part = deletion.part()
    gone = [] if part is None else table.find(part)
    if part is not None:
        deletion.deleted([(len(gone), str(gone[-1][0]), gone[-1][1])] if gone else [], seconds=1)
    table.rows = [row for row in table.rows if row not in gone]
    return gone


@given(st.data(), st.sampled_from([1, 2, 4]))
def test_what_is_confirmed_is_deleted_part_by_part_and_nothing_else_whatever_commits_when(
    data: st.DataObject, limit: int
) -> None:
    table, deletion = Table(), small(limit)
    window, read, confirmed = Window(), set[tuple[int, int]](), set[tuple[int, int]]()
    steps = ["begin", "write", "write", "commit", "abort", "look", "confirm", "delete"]
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=80)):
        if step == "begin":
            table.begin()
        elif step == "look":  # the whole window at once: its pages are another test's
            snapshot = table.snapshot()
            read |= set(table.find(page_of(window, 1000)))
            window = window.after(snapshot, None, is_full=False)
        elif step == "confirm":
            confirmed = set(read)
            deletion.want(Lsn(1), window.seen)
        elif step == "delete":
            assert set(delete(table, deletion)) <= confirmed
        elif table.running:
            xid = data.draw(st.sampled_from(sorted(table.running)))
            if step == "write":
                table.rows.append((xid, len(read) + len(table.rows)))
            else:
                table.running.discard(xid)
                table.committed |= {xid} if step == "commit" else set()
    while deletion.has_more:
        assert set(delete(table, deletion)) <= confirmed
    assert not confirmed & set(table.rows)


def test_parts_of_a_deletion_grow_while_they_take_a_moment_and_shrink_when_they_take_long() -> None:
    deletion, limits = Deletion(CONFIRM_SQL, "7/1/1"), list[int]()
    deletion.want(Lsn(1), "5:5:")
    for seconds in [0.01] * 5 + [0.05] * 2 + [0.2] * 15:
        part = deletion.part()
        assert part is not None
        limits.append(int(str(part["limit"])))
        deletion.deleted([(limits[-1], "3", 1)], seconds=seconds)
    assert limits[:8] == [1024, 2048, 4096, 4096, 4096, 4096, 4096, 4096]
    assert (limits[8], limits[-1]) == (2048, 1)
    deletion.deleted([], seconds=0.01)
    assert not deletion.has_more
    assert deletion.part() is None


def test_nothing_is_seen_by_the_first_snapshot() -> None:
    assert not Snapshot.parse(NOTHING).sees(3)


@dataclass
class Recorder:
    """Rules that name rows by their operation."""

    name: str = "row"
    bound: list[Relation] = field(default_factory=list)

    def bind(self, relation: Relation) -> RowFunction | None:
        self.bound.append(relation)

        def row(data: bytes, invalidation: Invalidation, transaction: Transaction) -> None:
            invalidation.keys.add(f"{self.name} {transaction.xid} ".encode() + data[25:26])

        return row

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        invalidation.key_patterns.add(b"truncated")

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        invalidation.key_patterns.add(reason.encode())


def row(
    xid: int, operation: str = "I", old: bytes | None = None, new: bytes | None = None, layout: Layout = LAYOUT
) -> Row:
    return Row(xid, 1, 1000.0 + xid, layout, operation, old, new)


@pytest.fixture
def reader() -> Reader:
    made = Reader(Recorder(), heartbeat_name="me", max_items=100, state=SourceState())
    made.bind(LAYOUT, ITEM)
    return made


def test_a_batch_knows_its_oldest_row(reader: Reader) -> None:
    image = array(["1", "a"])
    reader.read(row(5, "I", new=image), Lsn(9))
    reader.read(row(6, "D", old=image), Lsn(9))
    batch = reader.take(Lsn(9))
    assert batch.invalidation.keys == {b"row 5 I", b"row 6 D"}
    assert (batch.end, batch.oldest_commit_time) == (Lsn(9), 1005.0)
    assert not reader.has_something


@pytest.mark.parametrize(
    ("operation", "old", "new", "expected"),
    [
        ("T", None, None, b"truncated"),
        ("C", None, None, b"capture_failed"),
        ("U", array(["1", "a"], ["2", "b"]), array(["1", "a"]), b"capture_failed"),
        ("?", None, None, b"capture_failed"),
    ],
)
def test_what_is_not_known_exactly_widens(
    reader: Reader, operation: str, old: bytes | None, new: bytes | None, expected: bytes
) -> None:
    reader.read(row(5, operation, old, new), Lsn(9))
    assert reader.take(None).invalidation.key_patterns == {expected}


def test_other_rules_come_into_force_between_two_transactions(reader: Reader) -> None:
    image = array(["1", "a"])
    reader.read(row(5, "I", new=image), Lsn(9))
    reader.swap(Recorder("other"))
    reader.read(row(5, "D", old=image), Lsn(9))
    reader.read(row(6, "D", old=image), Lsn(9))
    assert reader.take(None).invalidation.keys == {b"row 5 I", b"row 5 D", b"other 6 D"}


def test_only_own_heartbeats_count(reader: Reader) -> None:
    reader.read(row(5, "H", layout=Layout(0, "invalidator", "somebody 12.5", b"")), Lsn(9))
    assert not reader.has_something
    reader.read(row(5, "H", layout=Layout(0, "invalidator", "me 12.5", b"")), Lsn(9))
    assert reader.take(None).heartbeat == 12.5


IDENTITY = "7000000000000000001/16384/16390"


@pytest.mark.parametrize(
    ("confirmed_of", "has_strangers", "told"),
    [
        (IDENTITY, False, None),
        (None, False, None),
        (None, True, "rows of another cluster"),
        ("7/16384/16390", False, "another one"),
        (IDENTITY, True, "rows of another cluster"),
        ("unknown", False, "another one"),
    ],
)
def test_an_outbox_that_contradicts_itself_is_a_gap(
    confirmed_of: str | None, has_strangers: bool, told: str | None
) -> None:
    start = begun((IDENTITY, 3, "0/C8", True, confirmed_of, "0/64", has_strangers, "5:5:"))
    assert (start.system, start.timeline, start.position, start.end) == (IDENTITY, 3, Lsn(100), Lsn(200))
    if told is None:
        assert start.gap is None
    else:
        assert start.gap is not None
        assert told in start.gap.detail


def test_an_outbox_without_its_row_says_how_to_make_it() -> None:
    with pytest.raises(ConfigError, match=r"INSERT INTO invalidator\.confirmed"):
        begun((IDENTITY, 1, "0/C8", None, None, None, False, "5:5:"))


@pytest.mark.parametrize("sizes", [(0, 2), (2**31 - 1, 0), (-1, 2), (2**31 - 1, 2)])
def test_an_array_that_lies_about_its_size_is_an_error_of_ours_and_ends_at_once(sizes: tuple[int, int]) -> None:
    head = struct.pack(">iiI", 2, 1, 25) + b"".join(struct.pack(">ii", size, 1) for size in sizes)
    with pytest.raises(ProtocolError):
        tuples(head)


def test_a_batch_is_full_within_a_few_changes_of_its_bound() -> None:
    reader = Reader(Recorder(), heartbeat_name="h", max_items=100, state=SourceState())
    reader.bind(LAYOUT, ITEM)
    images = array(["1", "a"])
    for number in range(1, 1000):
        reader.read(Row(number, number, 1.0, LAYOUT, "I", None, images), Lsn(number))
        if reader.is_full:
            break
    assert 100 <= number < 100 + 64
    assert not Reader(Recorder(), heartbeat_name="h", max_items=100, state=SourceState()).is_full


@pytest.fixture
def options() -> OutboxOptions:
    return OutboxOptions.model_validate(
        {"type": "outbox", "dsn": "host=x", "poll_min_seconds": 0.5, "poll_max_seconds": 8}
    )


def test_waits_grow_while_nothing_comes(options: OutboxOptions) -> None:
    pace, waits = Pace(options), list[float]()
    pace.looked(1, 9, is_full=False)
    for _ in range(6):
        waits.append(pace.waiting_seconds)
        pace.looked(0, 0, is_full=False)
    assert waits == [0.5, 1, 2, 4, 8, 8]
    assert not pace.may_sleep


@pytest.mark.parametrize(
    ("count", "is_full", "seconds"), [(0, False, 0), (7, False, 0), (8, False, 0.5), (64, True, 0), (9, False, 0.5)]
)
def test_rows_gather_while_many_come_and_none_wait(
    options: OutboxOptions, count: int, is_full: bool, seconds: float
) -> None:
    pace = Pace(options)
    pace.looked(count, 9, is_full=is_full)
    assert pace.gathering_seconds == seconds


def test_a_daemon_that_is_woken_sleeps_when_it_finds_nothing_and_is_roused_when_it_finds_something(
    options: OutboxOptions,
) -> None:
    pace = Pace(options.model_copy(update={"wake": "notify"}))
    pace.looked(1, 9, is_full=False)
    assert (pace.may_sleep, pace.must_rouse) == (False, False)
    for _ in range(9):  # a writer that did not notify is open: it is looked for often
        pace.looked(0, 0, is_full=False)
        assert pace.may_sleep
        assert pace.waiting_seconds <= 4 * 0.5
    pace.is_asleep = True
    assert (pace.may_sleep, pace.must_rouse, pace.waiting_seconds) == (False, False, 8)
    pace.looked(1, 9, is_full=False)
    assert pace.must_rouse


def test_pages_grow_while_their_rows_are_small_and_shrink_when_they_are_large(options: OutboxOptions) -> None:
    pace, limits = Pace(options), list[int]()
    for size in [1000] * 7 + [2 << 20] + [5 << 20] * 13:
        limits.append(pace.limit)
        pace.looked(pace.limit, size, is_full=True)
    assert limits[:9] == [64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]
    assert (limits[9], limits[-1], pace.limit) == (2048, 1, 1)
