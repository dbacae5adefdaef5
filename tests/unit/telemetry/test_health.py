from __future__ import annotations

import pytest

from invalidator.telemetry.health import checks, is_ready
from invalidator.telemetry.problems import limits
from invalidator.telemetry.state import Role, State
from tests.support.telemetry_state import NOW, busy_state

pytestmark = pytest.mark.usefixtures("quiet_logs")


@pytest.mark.parametrize(
    ("role", "seconds", "expected"),
    [
        (Role.STARTING, 0, False),
        (Role.STREAMING, 0, True),
        (Role.STANDBY, 9999, True),
        (Role.RECONNECTING, limits.DISCONNECTED_SECONDS - 1, True),
        (Role.RECONNECTING, limits.DISCONNECTED_SECONDS + 1, False),
        (Role.STOPPING, 0, False),
    ],
)
def test_ready_follows_the_role(role: Role, seconds: float, expected: bool) -> None:
    state = busy_state()
    state.source.role, state.source.role_since = role, NOW - seconds
    assert is_ready(state, NOW) is expected


def test_a_daemon_that_has_just_begun_is_not_ready() -> None:
    assert not is_ready(State(), NOW)


def test_rules_must_be_loaded() -> None:
    state = busy_state()
    state.rules_loaded.hash = ""
    assert [check.name for check in checks(state, NOW) if not check.is_ok] == ["rules"]


def test_required_l2_targets_must_have_answered_once() -> None:
    state = busy_state()
    state.targets["redis"].answered = False
    assert [check.name for check in checks(state, NOW) if not check.is_ok] == ["target:redis"]


def test_a_target_that_answered_once_and_fails_now_does_not_make_the_daemon_unready() -> None:
    state = busy_state()
    state.targets["redis"].failing_since = NOW - 600
    assert is_ready(state, NOW)


@pytest.mark.parametrize("name", ["edge", "bus"])
def test_a_cdn_or_a_bus_that_never_answered_does_not_make_the_daemon_unready(name: str) -> None:
    state = busy_state()
    state.targets[name].answered = False
    assert is_ready(state, NOW)


def test_a_stream_from_which_nothing_comes_is_not_ready_although_it_is_connected() -> None:
    state = busy_state()
    source = state.source
    source.role, source.role_since, source.is_paused = Role.STREAMING, NOW - 100, False
    source.heartbeat_sent, source.moved_at = NOW - 1, NOW - 31
    assert not is_ready(state, NOW)
    assert [check.detail for check in checks(state, NOW) if not check.is_ok] == [
        "connected, but nothing has come for 31 s"
    ]
    source.is_paused = True  # targets are behind: a restart would mend nothing
    assert is_ready(state, NOW)


@pytest.mark.parametrize(("reason", "expected"), [("record_taken", True), ("record", False), ("connection", False)])
def test_a_daemon_that_waits_for_the_record_is_ready_so_that_a_rollout_ends_the_one_that_has_it(
    reason: str, expected: bool
) -> None:
    state = busy_state()
    state.source.role, state.source.role_since, state.source.server_version = Role.RECONNECTING, NOW - 600, ""
    state.source.last_reason = reason
    assert is_ready(state, NOW) is expected


def test_a_daemon_that_has_never_streamed_is_not_ready_however_short_it_has_tried() -> None:
    state = busy_state()
    state.source.role, state.source.role_since, state.source.server_version = Role.RECONNECTING, NOW - 1, ""
    assert not is_ready(state, NOW)
