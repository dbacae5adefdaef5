"""The dashboard is what its table says, and asks only for what is exposed. (No Grafana runs here.)"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

from invalidator.telemetry import catalogue
from tests.support.promql import groupings, labels_of, selectors
from tests.support.tools import ROOT

FOLDER = ROOT / "deploy" / "grafana"
FILE = FOLDER / "dashboards" / "invalidator.json"

Json = dict[str, Any]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_dashboard", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


DASHBOARD: Json = json.loads(FILE.read_text())


def panels() -> Iterator[Json]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions() -> list[tuple[str, str]]:
    """Panel's title and expression, variables filled in as Grafana would."""
    found = [(panel["title"], query["expr"]) for panel in panels() for query in panel.get("targets", [])]
    found += [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    return [(title, _filled(expression, variables)) for title, expression in found]


def _filled(expression: str, variables: list[str]) -> str:
    expression = expression.replace("$__rate_interval", "5m")
    for name in variables:
        expression = expression.replace(f"${name}", ".*")
    assert "$" not in expression, f"unknown variable in {expression}"
    return expression


each_expression = pytest.mark.parametrize(("title", "expression"), expressions())


def test_the_file_is_what_the_table_says() -> None:
    assert FILE.read_text() == _generator().rendered(), "run: python deploy/grafana/generate.py"


@each_expression
def test_a_panel_asks_only_for_metrics_and_labels_that_are_exposed(title: str, expression: str) -> None:
    found = selectors(expression)
    assert found, title
    for metric, labels in found.items():
        assert labels <= labels_of(metric), metric
    assert groupings(expression) <= frozenset.union(*map(labels_of, found))


@each_expression
def test_a_counter_is_shown_as_a_rate(title: str, expression: str) -> None:
    for metric in selectors(expression):
        if metric.endswith(("_total", "_bucket", "_count", "_sum")):
            assert re.search(rf"(rate|increase)\({metric}\b", expression), f"{title}: {expression}"


def test_a_legend_uses_only_labels_that_the_expression_keeps() -> None:
    for panel in panels():
        for query in panel.get("targets", []):
            shown = set(re.findall(r"{{(\w+)}}", query["legendFormat"]))
            exposed = frozenset.union(*map(labels_of, selectors(_filled(query["expr"], ["slot", "rule", "target"]))))
            assert shown <= exposed, panel["title"]


def test_every_family_is_on_the_dashboard() -> None:
    shown = {re.sub("_bucket$|_count$|_sum$", "", name) for _, text in expressions() for name in selectors(text)}
    assert set(catalogue.FAMILIES) - shown == {
        "invalidator_heartbeat_last_sent_timestamp_seconds",  # only tells why the delivered one is late
        "invalidator_config_rules",  # a number that no picture helps
    }


def test_identifiers_are_unique_and_every_panel_has_its_letters() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))
    for panel in panels():
        letters = [query["refId"] for query in panel.get("targets", [])]
        assert len(letters) == len(set(letters))
        assert panel["type"] == "row" or letters


def test_panels_fit_the_grid_and_do_not_overlap() -> None:
    for panel in panels():
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        assert place["h"] > 0
    shown = [panel["gridPos"] for panel in panels()]
    # Folded rows hold places as if all were unfolded, so that unfolding them moves nothing over another.
    unfolded = {
        (place["x"] + x, place["y"] + y) for place in shown for x in range(place["w"]) for y in range(place["h"])
    }
    assert len(unfolded) == sum(place["w"] * place["h"] for place in shown)


def test_five_rows_answer_five_questions_and_the_first_is_unfolded() -> None:
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row["title"].split()[0].strip(":?") for row in rows] == ["Are", "Source", "Rules", "Targets", "Process"]
    assert [row["collapsed"] for row in rows] == [False, True, True, True, True]
    order = [panel["gridPos"]["y"] for panel in DASHBOARD["panels"]]
    assert all(before <= after for before, after in itertools.pairwise(order))


def test_the_variables_come_from_exposed_labels() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "slot", "rule", "target"]
    for name in ("slot", "rule", "target"):
        query = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"])
        assert query is not None
        assert query[2] in labels_of(query[1])


def test_every_query_uses_the_chosen_data_source() -> None:
    for panel in panels():
        for query in panel.get("targets", []):
            assert query["datasource"]["uid"] == "${datasource}"


def test_grafana_finds_the_data_source_and_the_dashboard_by_itself() -> None:
    sources = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yml").read_text())["services"]
    assert sources["datasources"][0]["url"].split("//")[1].split(":")[0] in compose
    providers = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "invalidator.yml").read_text())
    mounts = dict(mount.split(":")[:2] for mount in compose["grafana"]["volumes"])
    assert mounts["../grafana/dashboards"] == providers["providers"][0]["options"]["path"]
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"
