"""Problems of the source: whether changes come, and whether any are missing."""

# ruff: noqa: S608  (the statements are printed for people, never executed)

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from invalidator.telemetry.ages import patience_seconds, pending_seconds
from invalidator.telemetry.problems import limits
from invalidator.telemetry.problems.problem import Problem, problem, psql
from invalidator.telemetry.state import Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import State


def found(state: State, now: float) -> Iterator[Problem]:
    """Whether changes come, and come through; and whether some were missing."""
    yield from _stream(state, now)
    yield from _gap(state, now)


def _stream(state: State, now: float) -> Iterator[Problem]:
    source = state.source
    match source.role:
        case Role.STANDBY:
            yield _standby(state)
        case Role.STARTING | Role.RECONNECTING if now - source.role_since > limits.DISCONNECTED_SECONDS:
            if source.last_reason != "unheard":  # which has a problem of its own
                yield _not_streaming(state, now)
        case Role.STREAMING:
            yield from _flow(state, now)
        case _:
            pass
    stale = pending_seconds(state, now)
    if stale > limits.STALE_SECONDS and source.role is not Role.STANDBY:
        yield problem(
            "stale",
            source.slot,
            f"the oldest committed change that is not applied everywhere is {stale:.0f} s old",
            "invalidator status   (names the target or the stream that everything waits for)",
            now - stale,
        )


def _standby(state: State) -> Problem:
    slot = state.source.slot
    return problem(
        "standby",
        slot,
        f"another process streams from slot {slot}; this one takes over when that one ends",
        "nothing to do if a second daemon is meant to run; who holds the slot: "
        + psql(
            "SELECT r.pid, r.client_addr, r.application_name FROM pg_replication_slots s "
            f"JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = '{slot}'"
        ),
        state.source.role_since,
    )


def _not_streaming(state: State, now: float) -> Problem:
    source = state.source
    seconds = now - source.role_since
    why = f": {source.last_error}" if source.last_error else ""
    query = f"SELECT active, active_pid, wal_status FROM pg_replication_slots WHERE slot_name = '{source.slot}'"
    return problem(
        "not-streaming",
        source.slot,
        f"no change has been read for {seconds:.0f} s{why}",
        f"make the server reachable with the configured DSN, then look at the slot: {psql(query)}",
        source.role_since,
    )


def _flow(state: State, now: float) -> Iterator[Problem]:
    source = state.source
    # From the later of both: after a reconnect the newest heartbeat is as old as the outage was long.
    silent_since = max(source.heartbeat_delivered, source.role_since)
    if source.heartbeat_sent and now - silent_since > patience_seconds(state):
        yield problem(
            "heartbeat-late",
            source.slot,
            f"no heartbeat has come through Postgres and every required target for {now - silent_since:.0f} s",
            "mend the failing target if there is one; otherwise see where the sender waits: "
            + psql(
                "SELECT r.state, r.sent_lsn, r.flush_lsn, a.wait_event FROM pg_stat_replication r "
                "JOIN pg_stat_activity a USING (pid)"
            ),
            silent_since,
        )
    rows = sum(sum(table.rows.values()) for table in state.tables.values())
    if not rows and now - source.role_since > limits.SILENT_SECONDS:
        yield problem(
            "nothing-streamed",
            source.slot,
            "the slot streams, but no row of any table with a rule has come since the start",
            "compare the published tables with the rules: "
            + psql("SELECT pubname, schemaname, tablename FROM pg_publication_tables"),
            source.role_since,
        )


def _gap(state: State, now: float) -> Iterator[Problem]:
    source = state.source
    if source.gap_at is None or (not source.repairs_pending and now - source.gap_at > limits.TOLD_SECONDS):
        return
    if source.repairs_pending:
        done = f"the coarse forms of {source.repairs_pending} rules wait for their turn"
    else:
        done = "the coarse form of every rule it concerns is applied"
    yield problem(
        "gap",
        source.slot,
        f"changes were missing: {source.gap}; {done}",
        "nothing to type: what may be stale is dropped. See why it happened: docs/operations/gap.md",
        source.gap_at,
    )
