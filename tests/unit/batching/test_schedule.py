"""Repeats come when they are due, and before their time only when they take too much room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invalidator.batching.schedule import Schedule


def test_repeats_come_in_the_order_of_their_time_and_not_before_it() -> None:
    schedule: Schedule[str] = Schedule(100)
    schedule.add(20, 1, "later")
    schedule.add(10, 1, "first")
    schedule.add(10, 1, "second")

    assert schedule.pop(9.9) is None
    assert [schedule.pop(10), schedule.pop(10), schedule.pop(10)] == [("first", 0), ("second", 0), None]
    assert (len(schedule), schedule.items, schedule.next_due) == (1, 1, 20)


def test_beyond_the_bound_the_earliest_comes_before_its_time() -> None:
    schedule: Schedule[str] = Schedule(10)
    schedule.add(100, 8, "first")
    schedule.add(200, 8, "second")

    assert schedule.pop(40) == ("first", 60)
    assert schedule.pop(40) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=40), st.integers(0, 60))
def test_everything_that_goes_in_comes_out_once(repeats: list[tuple[int, int]], max_items: int) -> None:
    schedule: Schedule[int] = Schedule(max_items)
    out: list[int] = []
    for number, (due, items) in enumerate(repeats):
        schedule.add(due, items, number)
    assert schedule.items == sum(items for _, items in repeats)
    for now in range(52):
        while (popped := schedule.pop(now)) is not None:
            out.append(popped[0])
        assert schedule.items <= max_items or len(schedule) == 0

    assert sorted(out) == list(range(len(repeats)))
    assert schedule.items == 0
