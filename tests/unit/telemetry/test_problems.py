from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from invalidator.telemetry.ages import PATIENCE_SECONDS
from invalidator.telemetry.events import Events
from invalidator.telemetry.problems import CODES, Problem, limits, problems
from invalidator.telemetry.state import FindingState, JournalState, Role, State
from tests.support.telemetry_state import NOW, busy_state

pytestmark = pytest.mark.usefixtures("quiet_logs")


def only(state: State, code: str, now: float = NOW) -> Problem:
    found = [problem for problem in problems(state, now) if problem.code == code]
    assert len(found) == 1, problems(state, now)
    return found[0]


def test_a_healthy_daemon_has_no_problems() -> None:
    assert problems(busy_state(), NOW) == []


def test_a_daemon_that_starts_has_no_problems_yet() -> None:
    state = State(started_at=NOW)
    state.source.role_since = NOW
    assert problems(state, NOW + 1) == []


def _journal(state: State) -> JournalState:
    journal = state.targets["edge"].journal
    assert journal is not None
    return journal


def _journal_late(state: State) -> None:
    _journal(state).oldest = NOW - limits.JOURNAL_LATE_SECONDS - 1


def _journal_escalated(state: State) -> None:
    Events(state, lambda: NOW - 1).journal_escalated("edge", steps=["coarse"], left=5)


def _journal_lost(state: State) -> None:
    Events(state, lambda: NOW - 1).journal_lost("edge", set_aside="state.db.damaged-1", steps=["coarse"])


def _journal_full(state: State) -> None:
    Events(state, lambda: NOW - 1).journal_failed("edge", error="too much waits", reason="full")


def _standby(state: State) -> None:
    state.source.role, state.source.role_since = Role.STANDBY, NOW - 5


def _reconnecting(state: State) -> None:
    state.source.role, state.source.role_since = Role.RECONNECTING, NOW - limits.DISCONNECTED_SECONDS - 1


def _starting(state: State) -> None:
    state.source.role, state.source.role_since = Role.STARTING, NOW - limits.DISCONNECTED_SECONDS - 1


def _no_heartbeat(state: State) -> None:
    state.source.heartbeat_delivered = NOW - PATIENCE_SECONDS - 1


def _silent(state: State) -> None:
    state.tables.clear()


def _stale(state: State) -> None:
    state.oldest_unfinished_commit = NOW - limits.STALE_SECONDS - 1


def _stale_in_the_source(state: State) -> None:
    state.source.oldest_undelivered_commit = NOW - limits.STALE_SECONDS - 1


def _slot_lost(state: State) -> None:
    state.source.slot_wal_status, state.source.slot_safe_wal_bytes = "lost", None


def _slot_unreserved(state: State) -> None:
    state.source.slot_wal_status, state.source.slot_safe_wal_bytes = "unreserved", -5


def _wal_low(state: State) -> None:
    state.source.slot_safe_wal_bytes = limits.SAFE_WAL_BYTES - 1


def _wal_high(state: State) -> None:
    state.source.slot_retained_wal_bytes = limits.RETAINED_WAL_BYTES + 1


def _required_failing(state: State) -> None:
    redis = state.targets["redis"]
    redis.failing_since, redis.last_result, redis.last_error = NOW - 11, "timeout", "no answer in 2 s"


def _best_effort_failing(state: State) -> None:
    edge = state.targets["edge"]
    edge.failing_since, edge.last_result, edge.last_error = NOW - 11, "http_5xx", "503"


def _rejected(state: State) -> None:
    edge = state.targets["edge"]
    edge.failing_since, edge.last_result, edge.last_error = NOW, "rejected", "401"


def _abandoned(state: State) -> None:
    state.targets["edge"].abandoned_items, state.targets["edge"].abandoned_at = 12, NOW - 60


def _nobody_listens(state: State) -> None:
    state.targets["bus"].receivers = 0


def _unpublished(state: State) -> None:
    found = FindingState("not-published", "error", "public.item", "it is not", "ALTER PUBLICATION …", "critical")
    state.findings["database"] = (found, replace(found, text="another place"))


def _lookup_fails(state: State) -> None:
    state.rules["user"].lookup_error = "no answer within 2 s"
    state.rules["user"].lookup_failing_since = NOW - 60


def _type_changed(state: State) -> None:
    state.rules["user"].condition_misfits["public.users"] = "column 'age' is integer, compared with the text 'x'"


def _column_gone(state: State) -> None:
    state.rules["user"].missing_columns["public.users"] = ("slug",)


def _reload_refused(state: State) -> None:
    state.rules_loaded.refused = "rules.yaml:3:5: error[unknown-field]: unknown field 'tabel'"
    state.rules_loaded.refused_at = NOW - 60


def _message_refused(state: State) -> None:
    state.source.messages.refusal = "it is no JSON"
    state.source.messages.refused_at = NOW - 60


def _notification_refused(state: State) -> None:
    state.source.notifications.refusal = "it is no JSON"
    state.source.notifications.refused_at = NOW - 60


def _queue_high(state: State) -> None:
    state.source.notification_queue_usage = 0.2


def _unheard(state: State) -> None:
    state.source.role, state.source.role_since = Role.RECONNECTING, NOW - 60
    state.source.last_error, state.source.last_reason = "nothing comes back", "unheard"


def _gap(state: State) -> None:
    state.source.gap, state.source.gap_at = "the slot was dropped", NOW - 60


def _repairing(state: State) -> None:
    _gap(state)
    state.source.gap_at, state.source.repairs_pending = NOW - 10_000, 3


def _no_record(state: State) -> None:
    state.targets["redis"].record_error, state.targets["redis"].record_failing_since = "NOPERM", NOW - 60


def _record_taken(state: State) -> None:
    _no_record(state)
    state.targets["redis"].record_result = "taken"


def _hung(state: State) -> None:
    """It answers nobody: its record was asked for first."""
    _no_record(state)
    redis = state.targets["redis"]
    redis.failing_since, redis.last_error, redis.last_result = NOW - 5, "no answer within 5 s", "timeout"
    redis.record_result = "timeout"


def _hung_and_idle(state: State) -> None:
    """Nothing was delivered since."""
    _no_record(state)
    state.targets["redis"].record_result = "connection"


def _owed(state: State) -> None:
    state.targets["edge"].debt_since = NOW - 60


BROKEN: list[tuple[Callable[[State], None], str, str, str]] = [
    (_standby, "standby", "info", "shop"),
    (_reconnecting, "not-streaming", "critical", "shop"),
    (_starting, "not-streaming", "critical", "shop"),
    (_no_heartbeat, "heartbeat-late", "critical", "shop"),
    (_silent, "nothing-streamed", "info", "shop"),
    (_stale, "stale", "critical", "shop"),
    (_stale_in_the_source, "stale", "critical", "shop"),
    (_gap, "gap", "warning", "shop"),
    (_repairing, "gap", "warning", "shop"),
    (_no_record, "record-failing", "critical", "redis"),
    (_record_taken, "record-taken", "critical", "redis"),
    (_hung, "target-failing", "critical", "redis"),
    (_hung_and_idle, "target-failing", "critical", "redis"),
    (_owed, "debt", "critical", "edge"),
    (_slot_lost, "slot-lost", "critical", "shop"),
    (_slot_unreserved, "slot-at-risk", "critical", "shop"),
    (_wal_low, "slot-at-risk", "critical", "shop"),
    (_wal_high, "slot-wal-high", "warning", "shop"),
    (_required_failing, "target-failing", "critical", "redis"),
    (_best_effort_failing, "target-failing", "warning", "edge"),
    (_rejected, "target-rejected", "critical", "edge"),
    (_abandoned, "items-abandoned", "warning", "edge"),
    (_journal_late, "journal-late", "warning", "edge"),
    (_journal_escalated, "journal-escalated", "warning", "edge"),
    (_journal_lost, "journal-lost", "critical", "edge"),
    (_journal_full, "journal-unusable", "warning", "edge"),
    (_nobody_listens, "no-subscribers", "info", "bus"),
    (_reload_refused, "reload-refused", "warning", "rules"),
    (_message_refused, "message-refused", "warning", "shop"),
    (_notification_refused, "notification-refused", "warning", "shop"),
    (_queue_high, "notification-queue-high", "warning", "shop"),
    (_unheard, "notifications-unheard", "critical", "shop"),
    (_column_gone, "missing-column", "warning", "user"),
    (_type_changed, "condition-misfit", "warning", "user"),
    (_lookup_fails, "lookup-failing", "warning", "user"),
    (_unpublished, "setup-incomplete", "critical", "public.item (not-published)"),
]


@pytest.mark.parametrize(("damage", "code", "severity", "subject"), BROKEN)
def test_each_state_that_is_wrong_gives_its_problem_and_no_other(
    damage: Callable[[State], None], code: str, severity: str, subject: str
) -> None:
    state = busy_state()
    damage(state)
    found = problems(state, NOW)
    assert [(problem.code, problem.severity, problem.subject) for problem in found] == [(code, severity, subject)]
    assert found[0].text
    assert found[0].fix
    assert found[0].since is not None
    assert found[0].since <= NOW


def test_every_code_is_tested_here_and_explained_in_the_operations_pages() -> None:
    assert {code for _, code, _, _ in BROKEN} == set(CODES)
    pages = Path(__file__).parents[3] / "docs" / "operations"
    assert [code for code in CODES if not (pages / f"{code}.md").is_file()] == []


def test_a_failure_shorter_than_the_limit_is_no_problem_yet() -> None:
    state = busy_state()
    _required_failing(state)
    assert problems(state, NOW - 2) == []


def test_abandoned_items_are_shown_for_an_hour() -> None:
    state = busy_state()
    _abandoned(state)
    state.source.heartbeat_delivered = NOW + 4000
    assert problems(state, NOW + 3500) != []
    assert problems(state, NOW + 3541) == []


def test_a_heartbeat_is_not_late_right_after_a_long_outage() -> None:
    state = busy_state()
    state.source.heartbeat_delivered = NOW - 600
    state.source.role_since = NOW - 1
    assert problems(state, NOW) == []
    only(state, "heartbeat-late", NOW + PATIENCE_SECONDS + 1)


def test_heartbeats_that_are_sent_seldom_are_waited_for_longer() -> None:
    state = busy_state()
    _no_heartbeat(state)
    state.source.heartbeat_interval_seconds = 60
    assert problems(state, NOW) == []
    only(state, "heartbeat-late", NOW + 180)


def test_a_standby_is_not_blamed_for_the_heartbeat_or_for_old_changes() -> None:
    state = busy_state()
    _standby(state)
    _no_heartbeat(state)
    _stale(state)
    assert [problem.code for problem in problems(state, NOW)] == ["standby"]


def test_the_most_severe_comes_first() -> None:
    state = busy_state()
    for damage in (_nobody_listens, _abandoned, _required_failing):
        damage(state)
    assert [problem.severity for problem in problems(state, NOW)] == ["critical", "warning", "info"]


def test_a_secret_in_an_error_is_not_repeated() -> None:
    state = busy_state()
    _required_failing(state)
    state.targets["redis"].last_error = "redis://default:hunter2@cache:6379 refused"
    assert "hunter2" not in only(state, "target-failing").text


def test_a_hostile_table_name_is_not_pasted_into_the_command() -> None:
    state = busy_state()
    state.rules["user"].missing_columns['public.x"; rm -rf ~; "'] = ("slug",)
    assert "rm -rf" not in only(state, "missing-column").fix


def test_since_is_remembered_for_what_has_no_time_of_its_own() -> None:
    state = busy_state()
    _wal_low(state)
    assert only(state, "slot-at-risk").since == NOW
    state.problem_since["slot-at-risk", "shop"] = NOW - 100
    assert only(state, "slot-at-risk").since == NOW - 100


def test_the_same_state_and_time_give_the_same_problems() -> None:
    state = busy_state()
    _required_failing(state)
    assert problems(state, NOW) == problems(state, NOW)
