"""A position waits for as long as it may have to be read again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invalidator.checkpoint.horizon import Horizon
from invalidator.model import Lsn


def test_a_position_is_released_once_when_its_time_has_come() -> None:
    horizon = Horizon(5)
    horizon.add(Lsn(10), 100)
    horizon.add(Lsn(20), 103)

    assert horizon.release(104.9) is None
    assert horizon.release(105) == Lsn(10)
    assert horizon.release(105) is None
    assert horizon.release(200) == Lsn(20)


def test_without_a_window_it_is_released_at_once() -> None:
    horizon = Horizon(0)
    horizon.add(Lsn(10), 100)

    assert horizon.release(100) == Lsn(10)


def test_what_another_connection_had_applied_is_forgotten() -> None:
    horizon = Horizon(5)
    horizon.add(Lsn(10), 100)
    horizon.clear()
    horizon.add(Lsn(3), 101)

    assert horizon.release(1000) == Lsn(3)


@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 3, allow_nan=False)), max_size=60),
    window=st.floats(0, 10, allow_nan=False),
)
def test_nothing_is_released_early_or_backwards(steps: list[tuple[int, float]], window: float) -> None:
    horizon = Horizon(window)
    now, added = 0.0, []
    released: list[Lsn] = []
    for position, pause in steps:
        now += pause
        horizon.add(Lsn(position), now)
        added.append((now, Lsn(position)))
        got = horizon.release(now)
        if got is not None:
            assert any(at + window <= now and each >= got for at, each in added)
            released.append(got)
    assert released == sorted(set(released))
