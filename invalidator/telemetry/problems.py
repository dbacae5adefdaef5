"""What is wrong and what to type: one list that /status, the log and ``invalidator_problems`` share.

Pure: the same state and time give the same problems. Every code has a page in docs/operations.
"""

# ruff: noqa: S608  (the statements are printed for people, never executed)

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from invalidator.telemetry import debt_problems, journal_problems, message_problems, slot_problems
from invalidator.telemetry.ages import PATIENCE_SECONDS, pending_seconds
from invalidator.telemetry.redaction import redact
from invalidator.telemetry.slot_problems import psql
from invalidator.telemetry.state import Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import State, TargetState

Severity = Literal["critical", "warning", "info"]

CODES: Final[dict[str, Severity]] = {
    "debt": "critical",
    "gap": "warning",
    "heartbeat-late": "critical",
    "items-abandoned": "warning",
    "journal-escalated": "warning",
    "journal-late": "warning",
    "journal-lost": "critical",
    "journal-unusable": "warning",
    "message-refused": "warning",
    "lookup-failing": "warning",
    "missing-column": "warning",
    "condition-misfit": "warning",
    "no-subscribers": "info",
    "not-streaming": "critical",
    "nothing-streamed": "info",
    "notification-queue-high": "warning",
    "notification-refused": "warning",
    "notifications-unheard": "critical",
    "record-failing": "warning",  # critical when the target is required
    "reload-refused": "warning",
    "setup-incomplete": "warning",  # critical when something goes stale in silence
    "slot-at-risk": "critical",
    "slot-lost": "critical",
    "slot-wal-high": "warning",
    "stale": "critical",
    "standby": "info",
    "target-failing": "warning",  # critical when the target is required
    "target-rejected": "critical",
}
"""Every code with its usual severity."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something counts as a problem."""

    heartbeat_late_seconds: float = PATIENCE_SECONDS
    """Without a heartbeat that came through; but at least three intervals of them."""
    disconnected_seconds: float = 30.0
    """Without the stream."""
    stale_seconds: float = 30.0
    """Age of the oldest change that is not applied."""
    failing_seconds: float = 10.0
    """A target has failed for so long."""
    refused_seconds: float = 3600.0
    """A refused message or notification is shown for so long."""
    queue_usage: float = 0.1
    """Share of the server's notification queue that is full."""
    gap_seconds: float = 3600.0
    """A gap is shown for so long."""
    journal_late_seconds: float = 300.0
    """Age of the oldest CDN tag in the journal."""
    journal_told_seconds: float = 3600.0
    """What the journal gave up being exact about is shown for so long."""
    abandoned_seconds: float = 3600.0
    """Abandoned items are shown for so long."""
    silent_seconds: float = 600.0
    """Streaming without a single row for any rule."""
    safe_wal_bytes: int = 1_000_000_000
    """WAL that may still be written before the slot is lost."""
    retained_wal_bytes: int = 5_000_000_000
    """WAL that the server keeps for the slot."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, complete and ready to print."""

    code: str
    severity: Severity
    subject: str
    """The target, rule or slot that it is about; with the code it names the problem."""
    text: str
    fix: str
    since: float | None = None
    """Unix seconds; None: as long as somebody has looked."""


def problems(state: State, now: float, limits: Limits | None = None) -> list[Problem]:
    """Everything that is wrong at this time, the most severe first."""
    limits = limits or Limits()
    found = [*_stream(state, now, limits), *_slot(state, limits), *_gap(state, now, limits)]
    for code, text, fix, since in message_problems.found(state.source, now, limits):
        found.append(_problem(code, state.source.slot, text, fix, since))
    found += [*_targets(state, now, limits), *_findings(state), *_rules(state)]
    dated = [_dated(problem, state, now) for problem in found]
    order = ("critical", "warning", "info")
    return sorted(dated, key=lambda problem: (order.index(problem.severity), problem.code, problem.subject))


def _dated(problem: Problem, state: State, now: float) -> Problem:
    if problem.since is not None:
        return problem
    return replace(problem, since=state.problem_since.get((problem.code, problem.subject), now))


def _problem(code: str, subject: str, text: str, fix: str, since: float | None = None) -> Problem:
    return Problem(code, CODES[code], subject, redact(text), fix, since)


def _stream(state: State, now: float, limits: Limits) -> Iterator[Problem]:
    source = state.source
    match source.role:
        case Role.STANDBY:
            yield _standby(state)
        case Role.STARTING | Role.RECONNECTING if now - source.role_since > limits.disconnected_seconds:
            if source.last_reason != "unheard":  # which has a problem of its own
                yield _not_streaming(state, now)
        case Role.STREAMING:
            yield from _flow(state, now, limits)
        case _:
            pass
    stale = pending_seconds(state, now)
    if stale > limits.stale_seconds and source.role is not Role.STANDBY:
        yield _problem(
            "stale",
            source.slot,
            f"the oldest committed change that is not applied everywhere is {stale:.0f} s old",
            "invalidator status   (names the target or the stream that everything waits for)",
            now - stale,
        )


def _standby(state: State) -> Problem:
    slot = state.source.slot
    return _problem(
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
    return _problem(
        "not-streaming",
        source.slot,
        f"no change has been read for {seconds:.0f} s{why}",
        f"make the server reachable with the configured DSN, then look at the slot: {psql(query)}",
        source.role_since,
    )


def _flow(state: State, now: float, limits: Limits) -> Iterator[Problem]:
    source = state.source
    # From the later of both: after a reconnect the newest heartbeat is as old as the outage was long.
    silent_since = max(source.heartbeat_delivered, source.role_since)
    patience = max(limits.heartbeat_late_seconds, 3 * source.heartbeat_interval_seconds)
    if source.heartbeat_sent and now - silent_since > patience:
        yield _problem(
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
    if not rows and now - source.role_since > limits.silent_seconds:
        yield _problem(
            "nothing-streamed",
            source.slot,
            "the slot streams, but no row of any table with a rule has come since the start",
            "compare the published tables with the rules: "
            + psql("SELECT pubname, schemaname, tablename FROM pg_publication_tables"),
            source.role_since,
        )


def _slot(state: State, limits: Limits) -> Iterator[Problem]:
    for code, text, fix, since in slot_problems.found(state.source, limits):
        yield _problem(code, state.source.slot, text, fix, since)


def _gap(state: State, now: float, limits: Limits) -> Iterator[Problem]:
    source = state.source
    if source.gap_at is None or (not source.repairs_pending and now - source.gap_at > limits.gap_seconds):
        return
    if source.repairs_pending:
        done = f"the coarse forms of {source.repairs_pending} rules wait for their turn"
    else:
        done = "the coarse form of every rule it concerns is applied"
    yield _problem(
        "gap",
        source.slot,
        f"changes were missing: {source.gap}; {done}",
        "nothing to type: what may be stale is dropped. See why it happened: docs/operations/gap.md",
        source.gap_at,
    )


def _targets(state: State, now: float, limits: Limits) -> Iterator[Problem]:
    for target in state.targets.values():
        if target.failing_since is not None:
            yield from _failing(target, now, limits)
        if target.abandoned_at is not None and now - target.abandoned_at < limits.abandoned_seconds:
            yield _problem(
                "items-abandoned",
                target.name,
                f"{target.abandoned_items} items were given up for {target.name} and may be stale there",
                f"purge everything at {target.name} once by its own tool; "
                f"`targets.{target.name}.required: true` would wait instead",
                target.abandoned_at,
            )
        if target.record_failing_since is not None and now - target.record_failing_since > limits.failing_seconds:
            yield _record_failing(target)
        for code, text, fix, since in (*debt_problems.found(target), *journal_problems.found(target, now, limits)):
            yield _problem(code, target.name, text, fix, since)
        if target.layer == "L1" and target.receivers == 0:
            yield _problem(
                "no-subscribers",
                target.name,
                f"the newest message of {target.name} reached no subscriber",
                "redis-cli PUBSUB NUMSUB cache:invalidate   (with your channel; expected if no application has an L1)",
            )


def _record_failing(target: TargetState) -> Problem:
    problem = _problem(
        "record-failing",
        target.name,
        f"our record of what was applied cannot be kept at {target.name}: {target.record_error}; "
        + ("no position is confirmed meanwhile" if target.required else "what it loses would not be noticed"),
        f"let the user of `targets.{target.name}.url` read and write the key of `record_prefix` and the slot's name: "
        "ACL SETUSER NAME ~invalidator:* +get +set +eval +evalsha +info +wait",
        target.record_failing_since,
    )
    return replace(problem, severity="critical") if target.required else problem


def _failing(target: TargetState, now: float, limits: Limits) -> Iterator[Problem]:
    since = target.failing_since if target.failing_since is not None else now
    error = target.last_error or "no answer"
    if target.last_result == "rejected":
        yield _problem(
            "target-rejected",
            target.name,
            f"{target.name} refuses what is sent: {error}",
            f"mend the credentials or permissions under `targets.{target.name}` and restart the daemon",
            since,
        )
    elif now - since > limits.failing_seconds:
        waits = "everything after it waits" if target.required else "it is best effort: nothing waits for it"
        is_journaled = target.journal is not None and target.journal.unusable is None
        if target.journal is not None and is_journaled:
            waits = f"{target.journal.items} tags wait for it in the journal, and nothing waits for it"
        problem = _problem(
            "target-failing",
            target.name,
            f"{target.name} has failed for {now - since:.0f} s ({target.last_result}: {error}); {waits}",
            _reach(target),
            since,
        )
        yield replace(problem, severity="critical") if target.required and not is_journaled else problem


def _reach(target: TargetState) -> str:
    if target.last_result == "rate_limited":
        return f"send {target.name} less: one coarse tag in the rules instead of many, or a higher rate at the provider"
    if target.layer == "L3":
        return (
            f"curl -sS -o /dev/null -w '%{{http_code}}\\n' URL   (the URL of `targets.{target.name}`, from this host)"
        )
    return f"redis-cli -u URL PING; redis-cli -u URL INFO   (the URL of `targets.{target.name}`, from this host)"


def _findings(state: State) -> Iterator[Problem]:
    """One problem for each, by subject and code: the second place of the same trouble is the same trouble."""
    told: set[str] = set()
    for finding in (each for group in state.findings.values() for each in group):
        subject = f"{finding.subject} ({finding.code})"
        if finding.urgency is not None and subject not in told:
            told.add(subject)
            problem = _problem("setup-incomplete", subject, f"{finding.code}: {finding.text}", finding.fix)
            yield replace(problem, severity=finding.urgency)


def _rules(state: State) -> Iterator[Problem]:
    loaded = state.rules_loaded
    if loaded.refused is not None:
        yield _problem(
            "reload-refused",
            "rules",
            f"the rule files were refused, and the rules {loaded.hash} stay in force: {loaded.refused}",
            "mend the files (invalidator check); they are read again when they change, or by: invalidator reload",
            loaded.refused_at,
        )
    for rule in state.rules.values():
        if rule.has_lookup and rule.lookup_error is not None:
            yield _problem(
                "lookup-failing",
                rule.name,
                f"a lookup of rule {rule.name} fails ({rule.lookup_error}); its coarse form is applied instead,"
                " and after a failure it is not asked for up to 30 s",
                "invalidator check --online   (runs EXPLAIN over each lookup, and looks at the privileges)",
                rule.lookup_failing_since,
            )
        for relation, why in rule.condition_misfits.items():
            yield _problem(
                "condition-misfit",
                rule.name,
                f"the condition of rule {rule.name} does not fit {relation}: {why}; its coarse form is applied instead",
                "compare the column with what it can hold   (invalidator check --online shows the place)",
            )
        for relation, columns in rule.missing_columns.items():
            names = ", ".join(columns)
            yield _problem(
                "missing-column",
                rule.name,
                f"rule {rule.name} names columns that {relation} does not have or does not publish: {names}; "
                "its coarse form is applied instead",
                "name the new column in the rule, or publish it; the columns that come: "
                + psql(f"SELECT pubname, attnames FROM pg_publication_tables{_where_table(relation)}"),
            )


def _where_table(relation: str) -> str:
    # A quoted identifier may hold anything; what is pasted into a shell gets only plain names.
    plain = re.fullmatch(r"(\w+)\.(\w+)", relation)
    return f" WHERE schemaname = '{plain[1]}' AND tablename = '{plain[2]}'" if plain else ""
