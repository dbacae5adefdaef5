"""Which transactions a snapshot sees, told by the low 32 bits of their numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invalidator.postgres.visibility import Seen, Snapshot

WHOLE = 1 << 32


def test_a_transaction_is_seen_when_it_has_ended() -> None:
    snapshot = Snapshot.parse("10:20:12,15")
    assert [xid for xid in range(8, 24) if snapshot.sees(xid)] == [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]


def test_a_snapshot_without_running_transactions_is_read() -> None:
    assert Snapshot.parse("10:10:") == Snapshot(10, frozenset())


def test_numbers_go_on_behind_the_wraparound() -> None:
    snapshot = Snapshot.parse(f"{WHOLE - 2}:{WHOLE + 5}:{WHOLE - 1},{WHOLE + 3}")
    assert snapshot.sees(WHOLE - 2)
    assert not snapshot.sees(WHOLE - 1)
    assert snapshot.sees(2)
    assert not snapshot.sees(3)
    assert not snapshot.sees(5)
    assert not Snapshot.parse(f"{WHOLE - 3}:{WHOLE - 3}:").sees(1)  # the next epoch's, not yet begun


@given(st.integers(1 << 31, 1 << 60), st.integers(-(1 << 30), 1 << 30), st.booleans())
def test_a_transaction_near_the_snapshot_is_told_by_32_bits(xmax: int, distance: int, is_running: bool) -> None:
    xid = xmax + distance
    snapshot = Snapshot(xmax, frozenset({xid} if is_running else ()))
    assert snapshot.sees(xid % WHOLE) == (distance < 0 and not is_running)


def test_a_primary_is_asked_for_its_running_transactions() -> None:
    seen = Seen.parse(b"f", None, b"10:20:12")
    assert seen.all({11: 5, 13: 6})
    assert not seen.all({11: 5, 12: 6})
    assert seen.all({})


def test_a_standby_is_asked_how_far_it_has_replayed() -> None:
    seen = Seen.parse(b"t", b"0/10", b"10:10:")
    assert seen.all({99: 0xF})  # its snapshot does not say which transactions run
    assert not seen.all({99: 0x10})  # the record begins there: it is the next one to be replayed
    assert not seen.all({1: 0xF, 2: 0x11})
    assert not Seen.parse(b"t", None, b"10:10:").all({1: 1})
