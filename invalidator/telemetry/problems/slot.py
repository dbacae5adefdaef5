"""Problems of the replication slot: whether it is lost, and how much WAL the server keeps for it, because of whom."""

# ruff: noqa: S608  (the statements are printed for people, never executed)

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from invalidator.telemetry.problems import limits
from invalidator.telemetry.problems.problem import Problem, problem, psql

if TYPE_CHECKING:
    from invalidator.telemetry.state import OldestTransaction, SourceState


def found(source: SourceState) -> Iterator[Problem]:
    """Whether the slot is lost, may be soon, or costs much disk."""
    slot, safe, retained = source.slot, source.slot_safe_wal_bytes, source.slot_retained_wal_bytes
    if source.slot_wal_status == "lost":
        make = f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        again = psql(f"SELECT pg_drop_replication_slot('{slot}'); {make}")
        text = f"slot {slot} no longer holds the WAL that was not confirmed: changes were missed"
        yield problem("slot-lost", slot, text, f"{again}   then empty the caches that the rules cover and start again")
    elif source.slot_wal_status == "unreserved" or (safe is not None and safe < limits.SAFE_WAL_BYTES):
        left = "at the next checkpoint" if safe is None or safe <= 0 else f"after {safe / 1e6:.0f} MB more of WAL"
        text = f"the server gives slot {slot} up {left}; then changes are missed{_why(source)}"
        more = psql("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'", "SELECT pg_reload_conf()")
        yield problem("slot-at-risk", slot, text, f"raise the limit: {more}   then {_mend(source)}")
    elif retained is not None and retained > limits.RETAINED_WAL_BYTES:
        text = f"the server keeps {retained / 1e9:.1f} GB of WAL for slot {slot}{_why(source)}"
        fix = f"{_mend(source)}; and bound what the server may keep: {psql('SHOW max_slot_wal_keep_size')}"
        yield problem("slot-wal-high", slot, text, fix)


def _is_held_by_a_transaction(source: SourceState) -> bool:
    """Whether most of what is kept is confirmed already: then the server keeps it for a transaction that is open."""
    retained, unconfirmed = source.slot_retained_wal_bytes, source.slot_unconfirmed_wal_bytes
    return retained is not None and unconfirmed is not None and unconfirmed < retained / 2


def _why(source: SourceState) -> str:
    if not _is_held_by_a_transaction(source):
        return ""
    unconfirmed = source.slot_unconfirmed_wal_bytes or 0
    oldest = source.oldest_transaction
    who = "a transaction that is open for long" if oldest is None else described(oldest)
    return f"; all but {unconfirmed / 1e9:.1f} GB is confirmed, the rest is kept for {who}"


def _mend(source: SourceState) -> str:
    if not _is_held_by_a_transaction(source):
        return "mend what holds the position back (invalidator status)"
    oldest = source.oldest_transaction
    if oldest is None:
        return (
            "end it: "
            + psql(
                "SELECT pid, state, xact_start FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start"
            )
            + "   (to see others' our role needs pg_read_all_stats)"
        )
    if oldest.pid is not None:
        return f"end it: {psql(f'SELECT pg_terminate_backend({oldest.pid})')}"
    # What is pasted into a shell gets only plain names.
    if oldest.prepared_as is not None and re.fullmatch(r"[\w.:-]+", oldest.prepared_as, re.ASCII):
        rollback = psql(f"ROLLBACK PREPARED '{oldest.prepared_as}'")
        return f"end it, in database {oldest.database}: {rollback} (or COMMIT PREPARED)"
    return f"end it: {psql('SELECT gid, prepared, database FROM pg_prepared_xacts ORDER BY prepared')}"


def described(oldest: OldestTransaction) -> str:
    """Who it is, for people."""
    if oldest.pid is None:
        return f"a transaction in database {oldest.database} that was prepared {oldest.seconds:.0f} s ago and not ended"
    since = f"open for {oldest.seconds:.0f} s ({oldest.state})"
    return f"the transaction of pid {oldest.pid} in database {oldest.database}, {since}"
