from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from invalidator.errors import ConfigError
from invalidator.model import Applied, Lsn
from invalidator.telemetry.events import Events
from invalidator.telemetry.problems import Problem
from invalidator.telemetry.state import Role, SourceState, State, TargetState

Entries = list[MutableMapping[str, Any]]


class Told:
    """Events at a time that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.state = State()
        self.state.targets["redis"] = TargetState("redis", layer="L2")
        self.state.targets["bus"] = TargetState("bus", layer="L1")
        self.events = Events(self.state, lambda: self.now)


def outage(target: TargetState) -> tuple[float | None, str | None, str | None]:
    return target.failing_since, target.last_error, target.last_result


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_role_and_since_when_follow_the_stream(told: Told, quiet_logs: Entries) -> None:
    seen: list[tuple[Role, float]] = []
    events, source = told.events, told.state.source
    steps: list[Callable[[], None]] = [
        lambda: events.daemon_started(version="1", facts={}),
        lambda: events.stream_standby(holder_pid=812),
        lambda: events.stream_standby(holder_pid=812),
        lambda: events.stream_connected(position=Lsn(1), server_version="16"),
        lambda: events.stream_lost(error="cut", reason="connection", retry_in_seconds=0.1),
        lambda: events.stream_lost(error="refused", reason="connection", retry_in_seconds=0.2),
        lambda: events.daemon_stopping(signal="SIGTERM"),
    ]
    for step in steps:
        told.now += 1
        step()
        seen.append((source.role, source.role_since))
    assert seen == [
        (Role.STARTING, 1001),
        (Role.STANDBY, 1002),
        (Role.STANDBY, 1002),
        (Role.STREAMING, 1004),
        (Role.RECONNECTING, 1005),
        (Role.RECONNECTING, 1005),
        (Role.STOPPING, 1007),
    ]
    assert source.reconnects == {"connection": 2}
    assert [entry["event"] for entry in quiet_logs] == [
        "daemon.started", "stream.standby", "stream.connected", "stream.lost", "stream.lost", "daemon.stopping",
    ]  # fmt: skip


def figures(source: SourceState) -> tuple[bool, str | None, int | None, int | None, int | None]:
    return (
        source.slot_active,
        source.slot_wal_status,
        source.slot_retained_wal_bytes,
        source.slot_unconfirmed_wal_bytes,
        source.slot_safe_wal_bytes,
    )


@pytest.mark.parametrize("next_role", [Role.RECONNECTING, Role.STANDBY])
def test_figures_of_the_slot_do_not_outlive_the_stream_that_saw_them(
    told: Told, quiet_logs: Entries, next_role: Role
) -> None:
    source = told.state.source
    told.events.stream_connected(position=Lsn(1), server_version="16")
    source.slot_active, source.slot_wal_status = True, "unreserved"
    source.slot_retained_wal_bytes = source.slot_unconfirmed_wal_bytes = source.slot_safe_wal_bytes = 1
    if next_role is Role.STANDBY:
        told.events.stream_standby(holder_pid=None)
    else:
        told.events.stream_lost(error="cut", reason="connection", retry_in_seconds=0.1)
    assert figures(source) == (False, None, None, None, None)
    assert quiet_logs


def test_the_reason_of_an_outage_is_kept_until_the_stream_is_back(told: Told, quiet_logs: Entries) -> None:
    told.events.stream_lost(error="connection refused", reason="connection", retry_in_seconds=0.1)
    kept = told.state.source.last_error
    told.events.stream_connected(position=Lsn(1), server_version="16")
    assert (kept, told.state.source.last_error) == ("connection refused", None)
    assert quiet_logs


def test_a_failing_target_is_failing_since_its_first_failure_and_recovers_once(told: Told, quiet_logs: Entries) -> None:
    redis = told.state.targets["redis"]
    for attempt in (1, 2):
        told.events.delivery_failed(
            "redis", error="no answer", result="timeout", attempt=attempt, retry_in_seconds=0.1, now=told.now + attempt
        )
    assert outage(redis) == (1001, "no answer", "timeout")
    assert redis.retries == 2
    told.now = 1011
    for _ in range(2):
        told.events.batch_applied("redis", Applied(keys=1), seconds=0.001, age_seconds=None)
    assert outage(redis) == (None, None, None)
    assert redis.deliveries == {"timeout": 2, "ok": 2}
    recovered = [entry for entry in quiet_logs if entry["event"] == "delivery.recovered"]
    assert [entry["failed_for_seconds"] for entry in recovered] == [10]


def test_a_batch_is_counted_by_what_it_did_and_logged_not_at_all(told: Told, quiet_logs: Entries) -> None:
    told.events.batch_applied("redis", Applied(keys=3, tags=2, removed=1), seconds=0.001, age_seconds=0.002)
    told.events.batch_applied("bus", Applied(patterns=4, receivers=2), seconds=0.001, age_seconds=0.002)
    redis = told.state.targets["redis"]
    assert redis.delivered_items == {"key": 3, "tag": 2, "pattern": 0, "cdn_tag": 0}
    assert (redis.removed_items, redis.receivers, redis.answered) == (1, None, True)
    assert told.state.targets["bus"].receivers == 2
    told.events.batch_applied("bus", Applied(), seconds=0.001, age_seconds=None)
    assert told.state.targets["bus"].receivers == 2  # nothing was published: that says nothing about listeners
    assert redis.duration.total == pytest.approx(0.002)
    assert quiet_logs == []


def test_an_older_heartbeat_does_not_turn_the_clock_back(told: Told) -> None:
    told.events.heartbeat_delivered(sent_at=990)
    told.events.heartbeat_delivered(sent_at=980)
    assert told.state.source.heartbeat_delivered == 990


def test_abandoned_items_are_counted_dated_and_logged_as_an_error(told: Told, quiet_logs: Entries) -> None:
    told.events.delivery_abandoned("redis", items=7)
    redis = told.state.targets["redis"]
    assert (redis.abandoned_items, redis.abandoned_at) == (7, 1000)
    assert [(entry["event"], entry["log_level"]) for entry in quiet_logs] == [("delivery.abandoned", "error")]


def test_a_lost_slot_is_kept_in_the_state(told: Told, quiet_logs: Entries) -> None:
    told.events.slot_lost(error="removed")
    assert told.state.source.slot_wal_status == "lost"
    assert quiet_logs[0]["log_level"] == "error"


def test_the_rules_in_force_are_named_by_their_hash(told: Told, quiet_logs: Entries) -> None:
    told.events.rules_loaded(rules_hash="8f3c", count=9)
    assert (told.state.rules_loaded.hash, told.state.rules_loaded.count, told.state.rules_loaded.loaded_at) == (
        "8f3c", 9, 1000,
    )  # fmt: skip
    assert quiet_logs[0]["event"] == "rules.loaded"


def test_the_end_says_what_was_confirmed_and_for_how_long_the_daemon_ran(told: Told, quiet_logs: Entries) -> None:
    told.events.daemon_started(version="1", facts={})
    told.now += 60
    told.events.daemon_stopped(confirmed=Lsn(0x16B3748), clean=True)
    assert quiet_logs[-1] == {
        "event": "daemon.stopped", "log_level": "info", "confirmed": "0/16B3748", "clean": True, "uptime_seconds": 60,
    }  # fmt: skip


def test_the_failure_that_ends_the_process_is_logged(told: Told, quiet_logs: Entries) -> None:
    told.events.daemon_failed(ConfigError("there is no publication shop", fix="CREATE PUBLICATION shop"))
    (entry,) = quiet_logs
    assert (entry["event"], entry["log_level"], entry["error_type"]) == ("daemon.failed", "error", "ConfigError")
    assert "CREATE PUBLICATION shop" in entry["error"]


@pytest.mark.parametrize(("severity", "level"), [("critical", "error"), ("warning", "warning"), ("info", "info")])
def test_a_problem_is_logged_with_its_fix_at_its_severity(
    told: Told, quiet_logs: Entries, severity: Any, level: str
) -> None:
    told.events.problem_raised(Problem("stale", severity, "shop", "old", "invalidator status"))
    (entry,) = quiet_logs
    assert (entry["log_level"], entry["code"], entry["fix"]) == (level, "stale", "invalidator status")
