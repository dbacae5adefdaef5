from __future__ import annotations

import pytest

from invalidator.telemetry.ages import heartbeat_age_seconds, is_unheard, pending_seconds, staleness_seconds
from invalidator.telemetry.state import Role, State


def test_staleness_is_zero_when_nothing_is_pending() -> None:
    assert staleness_seconds(State(), 1000.0) == 0.0


@pytest.mark.parametrize(
    ("unfinished", "undelivered", "expected"),
    [(990.0, None, 10.0), (None, 995.0, 5.0), (990.0, 995.0, 10.0), (998.0, 995.0, 5.0)],
)
def test_staleness_is_the_age_of_the_oldest_change_wherever_it_waits(
    unfinished: float | None, undelivered: float | None, expected: float
) -> None:
    state = State(oldest_unfinished_commit=unfinished)
    state.source.oldest_undelivered_commit = undelivered
    assert staleness_seconds(state, 1000.0) == expected


def test_staleness_grows_while_nothing_happens_and_falls_to_zero_at_once() -> None:
    state = State(oldest_unfinished_commit=990.0)
    assert [staleness_seconds(state, now) for now in (1000.0, 1060.0, 1120.0)] == [10.0, 70.0, 130.0]
    state.oldest_unfinished_commit = None
    assert staleness_seconds(state, 1120.0) == 0.0


def test_staleness_is_measured_on_the_servers_clock() -> None:
    state = State(oldest_unfinished_commit=1090.0)
    state.source.clock_offset_seconds = 100.0
    assert staleness_seconds(state, 1000.0) == 10.0


def test_a_commit_that_seems_to_lie_in_the_future_is_not_stale() -> None:
    assert staleness_seconds(State(oldest_unfinished_commit=1000.5), 1000.0) == 0.0


def test_a_standby_is_not_stale_because_of_what_it_saw_when_it_streamed() -> None:
    state = State(oldest_unfinished_commit=10.0)
    state.source.role = Role.STANDBY
    assert staleness_seconds(state, 1000.0) == 0.0


def test_the_heartbeat_has_no_age_before_the_first_one() -> None:
    state = State()
    assert heartbeat_age_seconds(state, 1000.0) is None
    state.source.heartbeat_delivered = 990.0
    assert heartbeat_age_seconds(state, 1000.0) == 10.0


def streaming(**figures: float | bool) -> State:
    """A stream that began at 900, whose newest heartbeat was sent at 990 and delivered at once."""
    state = State()
    source = state.source
    source.role, source.role_since = Role.STREAMING, 900.0
    source.heartbeat_sent = source.heartbeat_delivered = source.moved_at = 990.0
    for name, value in figures.items():
        setattr(source, name, value)
    return state


def test_without_a_stream_everything_since_the_newest_heartbeat_may_be_stale() -> None:
    state = streaming()
    assert staleness_seconds(state, 1000.0) == 0.0
    state.source.role = Role.RECONNECTING
    assert staleness_seconds(state, 1000.0) == 10.0
    assert pending_seconds(state, 1000.0) == 0.0, "there is no change that we know of"


def test_a_stream_that_brings_nothing_back_is_unheard_after_thirty_seconds_or_three_heartbeats() -> None:
    state = streaming()
    assert not is_unheard(state, 1020.0)
    assert is_unheard(state, 1021.0)
    assert staleness_seconds(state, 1021.0) == 31.0
    state.source.heartbeat_interval_seconds = 60.0
    assert not is_unheard(state, 1170.0)
    assert is_unheard(state, 1171.0)


@pytest.mark.parametrize(
    "figures",
    [
        {"is_paused": True},
        {"moved_at": 1990.0},
        {"role_since": 1990.0},
        {"moved_at": 0.0},
        {"role": Role.STANDBY},
        {"role": Role.STARTING},
    ],
)
def test_who_does_not_read_or_hears_something_is_not_called_unheard(figures: dict[str, float]) -> None:
    assert not is_unheard(streaming(**figures), 2000.0)
