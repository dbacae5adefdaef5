"""What the daemon says about itself is written down, and what is written down it says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import invalidator
from invalidator.telemetry import catalogue, label_values
from invalidator.telemetry.problems import CODES

PACKAGE = Path(invalidator.__file__).parent
DOCS = PACKAGE.parent / "docs"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def events_in_code() -> set[str]:
    """Names of the form noun.verb that are passed to a logger anywhere in the package."""
    return {
        argument.value
        for file in PACKAGE.rglob("*.py")
        for call in _calls(ast.parse(file.read_text()))
        for argument in call.args[:2]
        if isinstance(argument, ast.Constant)
        and isinstance(argument.value, str)
        and re.fullmatch(r"[a-z]+\.[a-z_]+", argument.value)
    }


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            yield node


def events_in_docs() -> set[str]:
    return set(
        re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", (DOCS / "reference" / "log-events.md").read_text(), re.MULTILINE)
    )


def test_every_metric_that_a_text_of_the_package_names_exists() -> None:
    """Other names that begin like ours belong to files, variables and SQL objects: they are listed."""
    others = {
        "invalidator_source__dsn",
        "invalidator_targets__edge__api_token",
        "invalidator_reads",
        "invalidator_outbox",
        "invalidator_ddl_command_end",
        "invalidator_sql_drop",
        "invalidator_table_rewrite",
    }
    named = {
        name for file in PACKAGE.rglob("*.py") for name in re.findall(r"\binvalidator_[a-z0-9_]+", file.read_text())
    }

    assert named - others <= set(catalogue.FAMILIES), "no such metric"


@pytest.mark.parametrize("family", catalogue.FAMILIES.values(), ids=catalogue.FAMILIES)
def test_a_family_follows_the_naming_rules(family: catalogue.Family) -> None:
    assert re.fullmatch(r"invalidator_[a-z0-9_]+", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.help.endswith(".")
    assert family.help[0].isupper() or family.help[0].isdigit()
    assert set(family.labels) <= {
        "slot", "rule", "target", "table", "reason", "type", "layer", "required", "version", "python", "hash",
        "finding",
        *label_values.FIXED_VALUES,
    }  # fmt: skip


def test_no_family_stands_twice() -> None:
    assert len(catalogue.FAMILIES) == sum(len(group.families) for group in catalogue.GROUPS)


def test_every_event_that_is_logged_is_documented_and_no_other() -> None:
    assert events_in_code() | {"log.dropped"} == events_in_docs()


def test_every_path_of_the_listener_is_documented() -> None:
    page = (DOCS / "reference" / "http.md").read_text()
    for path in ("/livez", "/readyz", "/metrics", "/status"):
        assert f"| `{path}` |" in page


def test_every_operations_page_is_listed_and_has_its_three_parts() -> None:
    listed = (DOCS / "operations" / "README.md").read_text()
    pages = [page for page in (DOCS / "operations").glob("*.md") if page.name != "README.md"]
    assert {page.stem for page in pages} >= set(CODES)
    for page in pages:
        assert f"({page.name})" in listed
        text = page.read_text()
        for part in ("**What it means for users.**", "**First command.**", "**Fix.**"):
            assert part in text, page.name


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [
        *(DOCS / "operations").glob("*.md"),
        *(DOCS / "reference" / name for name in ("metrics.md", "http.md", "log-events.md")),
    ]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_reason_for_which_the_stream_ends_is_known_to_its_metric() -> None:
    raised = {
        keyword.value.value
        for file in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "SourceDisconnected"
        for keyword in call.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant)
    }
    assert len(raised) > 5
    assert raised <= set(label_values.RECONNECT_REASONS)
