"""The tracker confirms the longest finished prefix, in whatever order batches finish."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invalidator.checkpoint.tracker import Tracker
from invalidator.model import Lsn


def test_a_position_waits_for_every_batch_before_it() -> None:
    tracker = Tracker()
    first, second = tracker.start(Lsn(10)), tracker.start(Lsn(20))

    assert tracker.finish(second) is None
    assert tracker.finish(first) == Lsn(20)


def test_a_batch_that_ends_inside_a_transaction_confirms_nothing_of_its_own() -> None:
    tracker = Tracker()
    inside, whole = tracker.start(None), tracker.start(Lsn(20))

    assert tracker.finish(inside) is None
    assert tracker.finish(whole) == Lsn(20)


def test_an_unfinished_piece_of_a_transaction_holds_its_commit_back() -> None:
    tracker = Tracker()
    inside, whole = tracker.start(None), tracker.start(Lsn(20))

    assert tracker.finish(whole) is None
    assert tracker.finish(inside) == Lsn(20)


def test_the_confirmable_position_never_goes_back() -> None:
    tracker = Tracker()
    later, earlier = tracker.start(Lsn(20)), tracker.start(Lsn(10))

    assert tracker.finish(later) == Lsn(20)
    assert tracker.finish(earlier) is None


@given(ends=st.lists(st.one_of(st.none(), st.integers(1, 1000)), max_size=30), data=st.data())
def test_any_order_of_completion_confirms_exactly_the_finished_prefix(
    ends: list[int | None], data: st.DataObject
) -> None:
    tracker = Tracker()
    tickets = [tracker.start(None if end is None else Lsn(end)) for end in ends]
    confirmed: Lsn | None = None
    finished: set[int] = set()

    for index in data.draw(st.permutations(range(len(ends)))):
        advanced = tracker.finish(tickets[index])
        finished.add(index)
        prefix = next((i for i in range(len(ends)) if i not in finished), len(ends))
        expected = max((Lsn(end) for end in ends[:prefix] if end is not None), default=None)
        if advanced is not None:
            assert confirmed is None or advanced > confirmed
            confirmed = advanced
        assert confirmed == expected

    assert len(tracker) == 0
