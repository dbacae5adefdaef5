"""What a PromQL expression names: metrics, and labels in matchers, groupings and joins."""

from __future__ import annotations

import re
from typing import Any

from invalidator.telemetry import catalogue
from tests.support.services import missing

SCRAPE_LABELS = frozenset({"job", "instance", "pod"})

# What the Python client library and Prometheus itself expose, as far as it is used here.
OTHERS: dict[str, tuple[str, ...]] = {
    "up": (),
    "process_cpu_seconds_total": (),
    "process_resident_memory_bytes": (),
    "process_start_time_seconds": (),
    "python_gc_collections_total": ("generation",),
}


def labels_of(metric: str) -> frozenset[str]:
    """The labels of a series as exposed; KeyError when no such metric exists."""
    family = catalogue.FAMILIES.get(metric)
    if family is not None and family.kind != "histogram":
        return frozenset(family.labels) | SCRAPE_LABELS
    part = re.fullmatch(r"(.+)_(bucket|sum|count)", metric)
    if part is not None and (family := catalogue.FAMILIES.get(part[1])) is not None and family.kind == "histogram":
        return frozenset(family.labels) | SCRAPE_LABELS | ({"le"} if part[2] == "bucket" else set())
    return frozenset(OTHERS[metric]) | SCRAPE_LABELS


def selectors(expression: str) -> dict[str, set[str]]:
    """Metric -> labels that it is selected by."""
    found: dict[str, set[str]] = {}
    for node in _nodes(expression, "VectorSelector"):
        assert node.name, f"a selector without a name in {expression}"
        found.setdefault(node.name, set()).update(matcher.name for matcher in node.matchers.matchers)
    return found


def groupings(expression: str) -> set[str]:
    """Labels in ``by``, ``without``, ``on``, ``ignoring`` and ``group_left``."""
    found: set[str] = set()
    for node in _nodes(expression, "AggregateExpr"):
        found.update(node.modifier.labels if node.modifier is not None else ())
    for node in _nodes(expression, "BinaryExpr"):
        if node.modifier is not None:
            found.update(node.modifier.matching.labels if node.modifier.matching is not None else ())
            found.update(node.modifier.group_labels or ())
    return found


def _nodes(expression: str, kind: str) -> list[Any]:
    try:
        import promql_parser
    except ImportError:
        missing("there is no promql-parser here (extra deploy-check)")
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    return [node for node in nodes if type(node).__name__ == kind]
