from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

from invalidator.telemetry import watch as watching
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import RuleState
from invalidator.telemetry.watch import note_messages, note_notifications, note_problems, note_widened, watch
from tests.support.processes import DEADLINE_SECONDS
from tests.support.telemetry_state import NOW, busy_state

Entries = list[MutableMapping[str, Any]]


def test_a_problem_is_told_when_it_comes_and_when_it_goes_and_not_in_between(quiet_logs: Entries) -> None:
    state = busy_state()
    events = Events(state, lambda: NOW)
    quiet_logs.clear()
    for now in (NOW, NOW + 1):
        note_problems(events, now)
    state.source.slot_safe_wal_bytes = 1
    for now in (NOW + 2, NOW + 3):
        note_problems(events, now)
    state.source.slot_safe_wal_bytes = 20_000_000_000
    for now in (NOW + 5, NOW + 6):
        note_problems(events, now)
    assert [(entry["event"], entry["code"]) for entry in quiet_logs] == [
        ("problem.raised", "slot-at-risk"),
        ("problem.cleared", "slot-at-risk"),
    ]
    assert quiet_logs[1]["lasted_seconds"] == 3
    assert state.problem_since == {}


def test_two_targets_with_the_same_problem_are_two_problems(quiet_logs: Entries) -> None:
    state = busy_state()
    for name in ("redis", "edge"):
        state.targets[name].failing_since = NOW - 60
    quiet_logs.clear()
    note_problems(Events(state, lambda: NOW), NOW)
    assert {entry["subject"] for entry in quiet_logs} == {"redis", "edge"}


def test_a_rule_that_widens_is_told_with_its_count_and_not_again(quiet_logs: Entries) -> None:
    state = busy_state()
    events = Events(state, lambda: NOW)
    quiet_logs.clear()
    note_widened(events)
    note_widened(events)
    state.rules["user"].widened["truncate"] += 3
    note_widened(events)
    assert [(entry["rule"], entry["reason"], entry["count"]) for entry in quiet_logs] == [
        ("user", "truncate", 2),
        ("user", "truncate", 3),
    ]


def test_a_rule_that_was_removed_and_came_back_counts_from_nothing_again(quiet_logs: Entries) -> None:
    state = busy_state()
    events = Events(state, lambda: NOW)
    note_widened(events)
    quiet_logs.clear()
    state.rules["user"] = RuleState("user", widened=Counter(truncate=1))
    note_widened(events)
    assert [(entry["rule"], entry["count"]) for entry in quiet_logs] == [("user", 1)]


async def test_the_watch_measures_the_loop_and_looks_for_problems(quiet_logs: Entries, monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.001)
    state = busy_state()
    state.source.slot_safe_wal_bytes = 1
    task = asyncio.create_task(watch(Events(state, lambda: NOW), lambda: NOW))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while sum(state.loop_lag.counts) < 3:  # noqa: ASYNC110  (the state is plain integers)
            await asyncio.sleep(0)
    task.cancel()
    assert state.loop_lag.total >= 0
    assert [entry["code"] for entry in quiet_logs if entry["event"] == "problem.raised"] == ["slot-at-risk"]


def test_refused_messages_are_told_each_time_and_that_messages_are_disabled_once(quiet_logs: Entries) -> None:
    state = busy_state()
    counts = state.source.messages.counts
    told: Counter[str] = Counter()
    quiet_logs.clear()
    for _ in range(2):
        counts.update(["malformed", "disabled", "applied"])
        note_messages(Events(state, lambda: NOW), told)
    assert [(entry["reason"], entry["count"]) for entry in quiet_logs] == [
        ("malformed", 1),
        ("disabled", 1),
        ("malformed", 1),
    ]


def test_notifications_that_nobody_understands_are_told_once_by_reason(quiet_logs: Entries) -> None:
    state = busy_state()
    counts = state.source.notifications.counts
    told: Counter[str] = Counter()
    quiet_logs.clear()
    for unreadable in (2, 0, 1):
        counts.update({"applied": 5, "without_rows": 1, "unreadable": unreadable})
        note_notifications(Events(state, lambda: NOW), told)
    assert [(entry["event"], entry["reason"], entry["count"]) for entry in quiet_logs] == [
        ("notifications.refused", "unreadable", 2),
        ("notifications.refused", "unreadable", 1),
    ]
    assert state.source.notifications.refused_at == NOW
