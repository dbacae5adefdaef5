from __future__ import annotations

import subprocess

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from invalidator.model import Operation, WidenReason
from invalidator.telemetry import catalogue, label_values
from invalidator.telemetry.metrics import Format, Snapshot, StateCollector, render
from invalidator.telemetry.state import Role, State, TableState
from tests.support.telemetry_state import NOW, busy_state
from tests.support.tools import find_tool

pytestmark = pytest.mark.usefixtures("quiet_logs")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def exposition(state: State, *, now: float = NOW, form: Format = "text") -> str:
    return render(Snapshot(StateCollector(state, lambda: now).collect()), form).decode()


def parsed(state: State, *, now: float = NOW, form: Format = "text") -> dict[str, Metric]:
    parse = parse_text if form == "text" else parse_openmetrics
    return {family.name: family for family in parse(exposition(state, now=now, form=form))}


def samples(state: State, *, now: float = NOW) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed(state, now=now).values()
        for sample in family.samples
    }


def value(state: State, name: str, *, now: float = NOW, **labels: str) -> float | None:
    return samples(state, now=now).get((name, tuple(sorted(labels.items()))))


@pytest.mark.parametrize("state", [State(), busy_state()], ids=["fresh", "busy"])
def test_promtool_has_nothing_to_say(state: State) -> None:
    promtool = find_tool("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposition(state), capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_every_family_of_the_catalogue_is_exposed_with_its_type_and_help(form: Format) -> None:
    families = parsed(busy_state(), form=form)
    for name, family in catalogue.FAMILIES.items():
        exposed = families[name.removesuffix("_total")]
        assert (exposed.type, exposed.documentation) == (family.kind, family.help)
        assert exposed.samples, name
        for sample in exposed.samples:
            assert set(sample.labels) - {"le"} == set(family.labels), name


def test_nothing_is_exposed_that_the_catalogue_does_not_name() -> None:
    known = {name.removesuffix("_total") for name in catalogue.FAMILIES}
    ours = {name for name in parsed(busy_state()) if name.startswith("invalidator_")}
    assert ours == known


def test_no_created_twins_are_exposed() -> None:
    assert "_created" not in exposition(busy_state())
    assert "_created" not in exposition(busy_state(), form="openmetrics")


def test_what_was_counted_is_what_is_exposed() -> None:
    state = busy_state()
    assert value(state, "invalidator_events_total", table="public.users", op="update") == 41
    assert value(state, "invalidator_events_skipped_total", reason="no_rule") == 5
    assert value(state, "invalidator_events_skipped_total", reason="unchanged") == 1
    assert value(state, "invalidator_rule_matches_total", rule="user", op="update") == 40
    assert value(state, "invalidator_widened_total", rule="user", reason="truncate") == 2
    assert value(state, "invalidator_deliveries_total", target="redis", result="ok") == 1
    assert value(state, "invalidator_delivered_items_total", target="edge", kind="cdn_tag") == 12
    assert value(state, "invalidator_removed_items_total", target="redis") == 30
    assert value(state, "invalidator_l1_receivers", target="bus") == 2
    assert value(state, "invalidator_wal_position_bytes", slot="shop", point="applied") == 2000
    assert value(state, "invalidator_slot_wal_status", slot="shop", status="reserved") == 1
    assert value(state, "invalidator_slot_wal_status", slot="shop", status="lost") == 0
    assert value(state, "invalidator_config_info", hash="8f3c2a91d04e") == 1


def test_histograms_are_cumulative_and_carry_sum_and_count() -> None:
    state = busy_state()
    state.targets["redis"].duration.observe(1000.0)
    name = "invalidator_invalidation_duration_seconds"
    assert value(state, f"{name}_bucket", target="redis", le="0.001") == 0
    assert value(state, f"{name}_bucket", target="redis", le="0.0025") == 1
    assert value(state, f"{name}_bucket", target="redis", le="300.0") == 1
    assert value(state, f"{name}_bucket", target="redis", le="+Inf") == 2
    assert value(state, f"{name}_count", target="redis") == 2
    assert value(state, f"{name}_sum", target="redis") == pytest.approx(1000.002)


def test_what_is_known_in_advance_is_exposed_as_zero_before_the_first_change() -> None:
    state = busy_state()
    for operation in Operation:
        assert value(state, "invalidator_rule_matches_total", rule="post", op=operation) == 0
    for widened in WidenReason:
        assert value(state, "invalidator_widened_total", rule="post", reason=widened) == 0
    for result in label_values.RESULTS[1:]:
        assert value(state, "invalidator_deliveries_total", target="redis", result=result) == 0
    for reason in label_values.RECONNECT_REASONS:
        assert value(state, "invalidator_stream_reconnects_total", slot="shop", reason=reason) == 0
    for level in label_values.LOG_LEVELS:
        assert value(state, "invalidator_log_messages_total", level=level) == 0


def test_a_figure_that_the_server_has_not_given_is_absent_and_not_zero() -> None:
    state = busy_state()
    assert value(state, "invalidator_slot_safe_wal_bytes", slot="shop") == 20_293_000_000
    state.source.slot_safe_wal_bytes = None  # max_slot_wal_keep_size = -1
    assert value(state, "invalidator_slot_safe_wal_bytes", slot="shop") is None


def test_staleness_cannot_stick_because_it_is_computed_at_the_scrape() -> None:
    state = busy_state()
    state.oldest_unfinished_commit = NOW - 1
    ages = [value(state, "invalidator_staleness_seconds", slot="shop", now=NOW + wait) for wait in (0, 60, 120)]
    assert ages == [1, 61, 121]
    state.oldest_unfinished_commit = None
    assert value(state, "invalidator_staleness_seconds", slot="shop", now=NOW + 120) == 0


def test_exactly_one_role_is_one() -> None:
    state = busy_state()
    for role in Role:
        state.source.role = role
        shown = {other: value(state, "invalidator_role", role=other) for other in Role}
        assert shown == {other: float(other is role) for other in Role}
        assert value(state, "invalidator_stream_connected", slot="shop") == (role is Role.STREAMING)


def test_tables_beyond_the_bound_share_one_series_and_none_is_lost() -> None:
    state = busy_state()
    for index in range(label_values.MAX_TABLES + 50):
        table = state.tables[f"public.t{index}"] = TableState(f"public.t{index}")
        table.rows[Operation.INSERT] = 2
    inserts = {
        dict(labels)["table"]: count
        for (name, labels), count in samples(state).items()
        if name == "invalidator_events_total" and ("op", "insert") in labels
    }
    assert len(inserts) == label_values.MAX_TABLES + 1
    assert inserts["public.users"] == 0  # the first ones keep their own
    assert inserts["other"] == 2 * 51
    assert sum(inserts.values()) == 2 * (label_values.MAX_TABLES + 50)


def test_names_with_quotes_and_newlines_survive_the_exposition() -> None:
    state = busy_state()
    name = 'public.a"b\\c\nd'
    state.tables[name] = TableState(name)
    assert value(state, "invalidator_events_total", table=name, op="insert") == 0


def test_problems_are_counted_by_code() -> None:
    state = busy_state()
    assert value(state, "invalidator_problems", code="target-failing") == 0
    for target in state.targets.values():
        target.failing_since, target.last_result = NOW - 60, "timeout"
    assert value(state, "invalidator_problems", code="target-failing") == 3
