"""Which of several hosts is tried first."""

from __future__ import annotations

import pytest

from invalidator.postgres.hosts import LAST_FOR_SECONDS, SLOW_SECONDS, Hosts, Parameters, described, several
from tests.support.clock import ManualClock

TWO = {"host": "a,b", "port": "5433,5434"}
A, B = {"host": "a", "hostaddr": "", "port": "5433"}, {"host": "b", "hostaddr": "", "port": "5434"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"):
        monkeypatch.delenv(name, raising=False)


def remembering() -> tuple[Hosts, ManualClock]:
    clock = ManualClock()
    return Hosts(clock.monotonic), clock


@pytest.mark.parametrize(
    ("parameters", "attempts"),
    [
        (TWO, [A, B]),
        ({"user": "x", **TWO}, [{"user": "x", **A}, {"user": "x", **B}]),
        ({"host": "a,b", "port": "5433"}, [A, {**B, "port": "5433"}]),
        ({"host": "a,b"}, [{**A, "port": ""}, {**B, "port": ""}]),
        (
            {"hostaddr": "::1,::2", "host": "a,b"},
            [{**A, "hostaddr": "::1", "port": ""}, {**B, "hostaddr": "::2", "port": ""}],
        ),
        (
            {**TWO, "target_session_attrs": "prefer-standby"},
            [{**each, "target_session_attrs": kind} for kind in ("standby", "any") for each in (A, B)],
        ),
    ],
)
def test_hosts_are_tried_one_by_one_in_their_order(parameters: Parameters, attempts: list[Parameters]) -> None:
    hosts, _ = remembering()
    assert hosts.attempts(parameters) == attempts


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"host": "a"},
        {"host": "a", "port": "1,2"},
        {"host": "a,b", "port": "1,2,3"},
        {"host": "a,b", "hostaddr": "::1"},
        {**TWO, "load_balance_hosts": "random"},
    ],
)
def test_one_host_wrong_lists_and_a_choice_at_random_are_left_to_libpq(parameters: Parameters) -> None:
    hosts, _ = remembering()
    assert hosts.attempts(parameters) == [parameters]


def test_lists_in_variables_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGPORT", "5433,5434")
    hosts, _ = remembering()
    assert several({"user": "x"})
    assert not several({"host": "a"})
    hosts.failed({"user": "x", **A}, 10)
    assert hosts.attempts({"user": "x"}) == [{"user": "x", **B}, {"user": "x", **A}]


def test_what_variables_say_of_the_kind_and_the_choice_of_servers_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, _ = remembering()
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "prefer-standby")
    assert [each["target_session_attrs"] for each in hosts.attempts(TWO)] == ["standby", "standby", "any", "any"]
    monkeypatch.setenv("PGLOADBALANCEHOSTS", "random")
    assert hosts.attempts(TWO) == [TWO]


async def test_a_host_that_let_us_wait_for_nothing_is_tried_last_for_a_while() -> None:
    hosts, clock = remembering()
    hosts.failed(A, SLOW_SECONDS)
    assert hosts.attempts(TWO) == [B, A]
    await clock.advance(LAST_FOR_SECONDS)
    assert hosts.attempts(TWO) == [A, B]


def test_one_that_refuses_or_is_the_wrong_kind_of_server_keeps_its_place() -> None:
    hosts, _ = remembering()
    hosts.failed(A, SLOW_SECONDS / 2)
    assert hosts.attempts(TWO) == [A, B]


def test_when_all_of_them_are_silent_their_order_counts() -> None:
    hosts, _ = remembering()
    hosts.failed(A, 10.0)
    hosts.failed(B, 10.0)
    assert hosts.attempts(TWO) == [A, B]


def test_messages_name_the_host() -> None:
    assert [described(each) for each in (A, {**A, "port": ""}, {**A, "host": "", "hostaddr": "::1"})] == [
        "a:5433", "a", "::1:5433",
    ]  # fmt: skip


def test_the_same_host_at_two_ports_is_two_hosts() -> None:
    hosts, _ = remembering()
    first, second = hosts.attempts({"host": "h,h", "port": "1,2"})
    hosts.failed(first, 10.0)
    assert hosts.attempts({"host": "h,h", "port": "1,2"}) == [second, first]
