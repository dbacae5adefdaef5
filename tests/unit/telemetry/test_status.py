from __future__ import annotations

import json

import pytest

from invalidator.telemetry.state import Histogram, State, TableState
from invalidator.telemetry.status import status
from tests.support.telemetry_state import NOW, busy_state

pytestmark = pytest.mark.usefixtures("quiet_logs")


def test_the_status_of_a_healthy_daemon() -> None:
    answer = status(busy_state(), NOW)
    assert answer["version"] == "0.1.0"
    assert answer["uptime_s"] == 3600
    assert (answer["role"], answer["ready"], answer["problems"]) == ("streaming", True, [])
    assert answer["rules"]["hash"] == "8f3c2a91d04e"
    assert answer["source"]["heartbeat_age_s"] == 3
    assert answer["source"]["confirmed"] == "0/3E8"
    assert answer["targets"]["redis"]["ok"] is True
    assert answer["targets"]["redis"]["p99_ms"] == 1.0
    assert answer["targets"]["bus"]["receivers"] == 2


@pytest.mark.parametrize("state", [State(), busy_state()], ids=["fresh", "busy"])
def test_it_is_json_also_before_anything_happened(state: State) -> None:
    json.dumps(status(state, NOW), allow_nan=False)


def test_a_problem_is_shown_with_its_time_and_its_fix() -> None:
    state = busy_state()
    state.targets["redis"].failing_since = NOW - 60
    (problem,) = status(state, NOW)["problems"]
    assert problem["since"] == "2023-11-14T23:12:20Z"
    assert (problem["code"], problem["severity"], problem["subject"]) == ("target-failing", "critical", "redis")
    assert problem["fix"]


def test_a_database_with_thousands_of_tables_does_not_make_the_answer_endless() -> None:
    state = busy_state()
    for index in range(5000):
        state.tables[f"public.t{index}"] = TableState(f"public.t{index}")
    assert len(status(state, NOW)["tables"]) == 200


def test_secrets_in_errors_are_masked() -> None:
    state = busy_state()
    state.targets["redis"].last_error = "redis://:hunter2@cache"
    state.targets["redis"].failing_since = NOW - 60
    state.source.last_error = "password=hunter2"
    assert "hunter2" not in json.dumps(status(state, NOW))


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    assert histogram.quantile(0.5) is None
    for value in (0.05, 0.05, 0.5, 5.0):
        histogram.observe(value)
    assert [histogram.quantile(share) for share in (0.5, 0.75, 0.99)] == [0.1, 1.0, 10.0]
    histogram.observe(100.0)
    assert histogram.quantile(1.0) == float("inf")
