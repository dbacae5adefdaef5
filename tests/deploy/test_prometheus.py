"""The alerts fire when they should, name what exists, and lead to a page."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.support.promql import groupings, labels_of, selectors
from tests.support.tools import ROOT, find_tool, run_tool

FOLDER = ROOT / "deploy" / "prometheus"


def _alerts() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


ALERTS = _alerts()
each_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)


def promtool(*arguments: str) -> tuple[int, str]:
    result = run_tool(find_tool("promtool", "prometheus"), *arguments, cwd=FOLDER)
    return result.returncode, result.stdout


def test_promtool_accepts_the_rules() -> None:
    code, output = promtool("check", "rules", "alerts.yml")
    assert code == 0, output
    assert f"{len(ALERTS)} rules found" in output


def test_the_alerts_behave_as_their_tests_say() -> None:
    code, output = promtool("test", "rules", "alerts_test.yml")
    assert code == 0, output


def test_every_alert_is_seen_firing_and_silent() -> None:
    document = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())
    cases = [case for test in document["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)


@each_alert
def test_an_alert_names_only_metrics_and_labels_that_exist(alert: dict[str, Any]) -> None:
    found = selectors(alert["expr"])
    assert found
    for metric, labels in found.items():
        assert labels <= labels_of(metric), metric
    assert groupings(alert["expr"]) <= frozenset.union(*map(labels_of, found))


@each_alert
def test_an_alert_text_uses_only_labels_that_its_series_have(alert: dict[str, Any]) -> None:
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    assert shown <= frozenset.union(*map(labels_of, selectors(alert["expr"])))


@each_alert
def test_an_alert_leads_to_a_page_that_names_it(alert: dict[str, Any]) -> None:
    page = ROOT / alert["annotations"]["runbook_url"]
    assert alert["alert"] in page.read_text()
    assert alert["labels"]["severity"] in ("critical", "warning")


def test_alerts_do_not_fire_for_the_replica_that_stands_by() -> None:
    for metric in ("invalidator_stream_connected", "invalidator_staleness_seconds"):
        named = [alert["expr"] for alert in ALERTS.values() if f"({metric})" in alert["expr"]]
        assert named
        assert all("without (instance, pod)" in expression for expression in named)
