"""What is told about WAL that the server keeps, and about who it is kept for."""

from __future__ import annotations

import pytest

from invalidator.telemetry.problems import Problem, problems
from invalidator.telemetry.state import OldestTransaction, Role, State
from tests.support.telemetry_state import NOW

GB = 1_000_000_000
IDLE = OldestTransaction(4711, None, 3605.2, "idle in transaction", "shop")
PREPARED = OldestTransaction(None, "tx-1", 7200.0, "prepared", "shop")


def told(
    unconfirmed: int, oldest: OldestTransaction | None, *, retained: int = 6 * GB, safe: int | None = None
) -> Problem:
    state = State()
    source = state.source
    source.slot, source.role, source.role_since = "shop", Role.STREAMING, NOW
    source.slot_retained_wal_bytes, source.slot_unconfirmed_wal_bytes = retained, unconfirmed
    source.slot_safe_wal_bytes, source.oldest_transaction = safe, oldest
    (found,) = problems(state, NOW)
    return found


def test_wal_that_is_not_confirmed_is_the_targets_business() -> None:
    found = told(5 * GB, IDLE)
    assert (found.code, found.text) == ("slot-wal-high", "the server keeps 6.0 GB of WAL for slot shop")
    assert "invalidator status" in found.fix


def test_wal_that_is_kept_for_a_session_names_it_with_its_age_its_state_and_what_ends_it() -> None:
    found = told(GB // 10, IDLE)
    assert found.text == (
        "the server keeps 6.0 GB of WAL for slot shop; all but 0.1 GB is confirmed, the rest is kept for the"
        " transaction of pid 4711 in database shop, open for 3605 s (idle in transaction)"
    )
    assert 'psql -c "SELECT pg_terminate_backend(4711)"' in found.fix


def test_wal_that_is_kept_for_a_prepared_transaction_names_what_ends_it() -> None:
    found = told(0, PREPARED)
    assert "prepared 7200 s ago" in found.text
    assert "psql -c \"ROLLBACK PREPARED 'tx-1'\"" in found.fix


@pytest.mark.parametrize("name", ["a'; DROP TABLE x; --", "$(reboot)", 'a"; x', "a b", "ü"])
def test_the_name_of_a_prepared_transaction_is_never_pasted_into_a_shell(name: str) -> None:
    found = told(0, OldestTransaction(None, name, 7200.0, "prepared", "shop"))
    assert name not in found.fix
    assert "pg_prepared_xacts" in found.fix


def test_a_transaction_that_our_role_may_not_see_is_looked_for_by_the_operator() -> None:
    found = told(0, None)
    assert "a transaction that is open for long" in found.text
    assert "pg_read_all_stats" in found.fix


def test_a_slot_that_is_about_to_be_lost_names_the_transaction_too() -> None:
    found = told(0, IDLE, retained=GB, safe=GB // 2)
    assert found.code == "slot-at-risk"
    assert "pid 4711" in found.text
    assert "pg_terminate_backend(4711)" in found.fix
