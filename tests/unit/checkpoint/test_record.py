"""What a record beside a cache says about the stream that starts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.checkpoint.record import Record, judge
from invalidator.model import Gap, GapReason, Lsn, StreamStart

START = StreamStart("7000000000000000001", 1, Lsn(100))


def record(applied: int = 100, *, system: str = START.system, timeline: int = 1) -> Record:
    return Record("shop", system, timeline, Lsn(applied), "8f3c2a91d04e", (1, 2))


def reasons(records: dict[str, Record | None], start: StreamStart = START) -> list[tuple[GapReason, str | None]]:
    return [(gap.reason, gap.target) for gap in judge(records, start)]


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**31), st.lists(st.integers(0, 2**40)).map(tuple))
def test_a_record_comes_back_as_it_was(applied: int, timeline: int, new_slots: tuple[int, ...]) -> None:
    made = replace(record(applied, timeline=timeline), new_slots=new_slots)

    assert Record.decode(made.encode()) == made


@given(st.binary(max_size=40) | st.sampled_from([b"null", b"[]", b"{}", b'{"format":1}', b"[" * 10_000]))
def test_anything_else_is_no_record(content: bytes) -> None:
    assert Record.decode(content) is None


@pytest.mark.parametrize("name", ["timeline", "new_slots"])
def test_a_number_without_end_is_no_record(name: str) -> None:
    fields = json.loads(record().encode()) | {name: [float("inf")] if name == "new_slots" else float("inf")}
    assert Record.decode(json.dumps(fields).encode()) is None


def test_nothing_kept_is_no_record() -> None:
    assert Record.decode(None) is None


@pytest.mark.parametrize("applied", [100, 101, 10**9])
def test_a_slot_that_goes_on_at_or_before_the_record_is_whole(applied: int) -> None:
    assert reasons({"a": record(applied)}) == []


def test_a_slot_ahead_of_every_record_is_a_gap_for_all() -> None:
    assert reasons({"a": record(99), "b": record(7), "c": None}) == [(GapReason.POSITION_AHEAD, None)]


def test_a_cache_that_holds_less_than_the_others_has_lost_something_alone() -> None:
    assert reasons({"a": record(100), "b": record(99)}) == [(GapReason.TARGET_LOST_WRITES, "b")]


def test_a_cache_without_a_record_has_lost_it_with_its_memory() -> None:
    assert reasons({"a": record(100), "b": None}) == []


def test_without_any_record_nothing_can_be_said() -> None:
    assert reasons({"a": None}) == []
    assert reasons({}) == []


@pytest.mark.parametrize(
    "start", [replace(START, timeline=2), replace(START, system="8"), replace(START, timeline=2, position=Lsn(1))]
)
def test_another_history_is_a_gap_wherever_it_goes_on(start: StreamStart) -> None:
    assert reasons({"a": record(10**9)}, start) == [(GapReason.OTHER_HISTORY, None)]


def test_what_the_source_knows_to_be_missing_is_not_judged_again() -> None:
    start = replace(START, gap=Gap(GapReason.SLOT_MISSING, "gone"))

    assert reasons({"a": record(1), "b": record(2, timeline=9)}, start) == []


def test_the_words_name_the_positions() -> None:
    [gap] = judge({"a": record(99)}, START)

    assert "0/64" in gap.detail
    assert "0/63" in gap.detail


def test_a_cache_of_another_history_is_repaired_alone_when_another_one_goes_on() -> None:
    records = {"a": record(100), "old": record(10**9, timeline=9), "new": None}
    assert reasons(records, replace(START, end=Lsn(200))) == [(GapReason.OTHER_HISTORY, "old")]


def test_a_log_that_ends_before_what_was_applied_is_of_an_earlier_time() -> None:
    start = replace(START, end=Lsn(150))
    assert reasons({"a": record(150)}, start) == []
    [gap] = judge({"a": record(151)}, start)
    assert (gap.reason, gap.target) == (GapReason.OTHER_HISTORY, None)
    assert "earlier time" in gap.detail


@pytest.mark.parametrize(
    ("system", "timeline", "told"),
    [("7/1/2", 2, "promoted"), ("7/1/3", 1, "another one"), ("8/1/2", 1, "another cluster"), ("7/1/3", 2, "promoted")],
)
def test_the_words_say_in_what_an_outbox_is_another_one(system: str, timeline: int, told: str) -> None:
    [gap] = judge({"a": record(100, system="7/1/2")}, StreamStart(system, timeline, Lsn(100)))
    assert told in gap.detail
