"""Lookups in rule files: what they become, and what is wrong with them, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from invalidator.rules import document
from invalidator.rules.document import Loaded
from invalidator.rules.rule import Rule
from invalidator.yamlfile import Diagnostic, Invalid

RULE = """\
version: 1
rules:
  - name: item
    table: public.item
    events: [insert, update]
    lookup:
      order:
        sql: |
          SELECT o.user_id
          FROM orders o WHERE o.id = {order_id}
        limit: 10
        timeout: 500ms
    invalidate:
      keys: ["user:{order.user_id}:orders"]
    coarse: {keys: [], tags: [orders]}
"""


def load(tmp_path: Path, text: str) -> Loaded:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    return document.load_with_warnings([file])


def rule(tmp_path: Path, text: str) -> Rule:
    return load(tmp_path, text).ruleset.rules[0]


def findings(tmp_path: Path, text: str) -> list[Diagnostic]:
    try:
        return list(load(tmp_path, text).warnings)
    except Invalid as invalid:
        return list(invalid.diagnostics)


def only(tmp_path: Path, text: str) -> Diagnostic:
    [found] = findings(tmp_path, text)
    return found


def test_a_lookup_is_read_with_what_bounds_it(tmp_path: Path) -> None:
    [lookup] = rule(tmp_path, RULE).lookups
    assert (lookup.name, lookup.limit, lookup.timeout_seconds) == ("order", 10, 0.5)
    assert [reference.name for reference in lookup.sql.parameters] == ["order_id"]
    assert (lookup.place.line, lookup.place.column) == (8, 14)
    assert findings(tmp_path, RULE) == []


def test_a_lookup_has_a_limit_unless_it_says_another_one(tmp_path: Path) -> None:
    [lookup] = rule(tmp_path, RULE.replace("        limit: 10\n        timeout: 500ms\n", "")).lookups
    assert (lookup.limit, lookup.timeout_seconds) == (100, None)


def test_the_coarse_form_covers_what_is_looked_up(tmp_path: Path) -> None:
    made = rule(tmp_path, RULE.replace("    coarse: {keys: [], tags: [orders]}\n", ""))
    assert [pattern.text for pattern in made.coarse.key_patterns] == ["user:*:orders"]


def test_a_lookup_that_may_find_too_much_is_told_what_would_be_scanned_then(tmp_path: Path) -> None:
    found = only(tmp_path, RULE.replace("    coarse: {keys: [], tags: [orders]}\n", ""))
    assert (found.code, found.severity, found.line, found.column) == ("coarse-derived", "info", 14, 7)
    assert found.message == "the coarse form scans all of Redis for 'user:*:orders'"


def test_the_prefix_may_be_looked_up(tmp_path: Path) -> None:
    made = rule(tmp_path, RULE.replace("    invalidate:", '    prefix: "t{order.tenant_id}:"\n    invalidate:'))
    assert [template.text for template in made.exact.keys] == ["t{order.tenant_id}:user:{order.user_id}:orders"]


def test_the_hash_tells_lookups_apart(tmp_path: Path) -> None:
    hashes = {
        load(tmp_path, text).ruleset.hash
        for text in (RULE, RULE.replace("limit: 10", "limit: 11"), RULE.replace("o.id =", "o.key ="))
    }
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("change", "place", "code", "message"),
    [
        (("{order.user_id}", "{ordr.user_id}"), (14, 21), "unknown-lookup", "'ordr' is no lookup of this rule"),
        (("o.id = {order_id}", "o.id = {order_id};"), (10, 48), "lookup-syntax", "';' cannot stand in it"),
        (("o.id = {order_id}", "o.id = $1"), (10, 38), "lookup-syntax", "'$1' is no placeholder here"),
        (("SELECT o.user_id", "DELETE"), (9, 11), "lookup-syntax", "'DELETE' begins no query"),
        (("{order_id}", "'{order_id}'"), (10, 39), "lookup-syntax", "inside a text literal"),
        (("{order_id}", "{order_id"), (10, 38), "template-syntax", "no closing '}'"),
        (("      order:", "      new:"), (7, 7), "bad-value", "cannot be a lookup's name"),
        (("      order:", "      Order:"), (7, 7), "bad-value", "is not a lookup's name"),
        (("limit: 10", "limit: 0"), (11, 16), "bad-value", "must be at least 1"),
        (("timeout: 500ms", "timeout: 5"), (12, 18), "bad-value", "has no unit"),
        (
            ("user:{order.user_id}", "user:{order.user_id}:{order}"),
            (7, 7),
            "lookup-name-clash",
            "is a column of the row",
        ),
        (("[orders]", '["x:{order.id}"]'), (15, 34), "row-in-coarse", "{order.id} is a row value"),
        (("user:{order.user_id}", "{order.user_id}"), (14, 15), "unconfined-template", "nothing literal stands before"),
    ],
)
def test_a_mistake_is_told_at_its_place(
    tmp_path: Path, change: tuple[str, str], place: tuple[int, int], code: str, message: str
) -> None:
    assert change[0] in RULE
    found = findings(tmp_path, RULE.replace(*change))
    assert [(each.line, each.column, each.code) for each in found if each.severity == "error"] == [(*place, code)]
    assert any(message in each.message for each in found)


def test_without_a_lookup_a_scope_is_unknown(tmp_path: Path) -> None:
    text = 'version: 1\nrules: [{name: a, table: b.c, invalidate: {keys: ["x:{order.id}"]}}]\n'
    found = only(tmp_path, text)
    assert (found.code, found.line) == ("unknown-lookup", 2)
    assert "this rule has no lookup" in found.message


def test_a_name_takes_the_columns_of_one_lookup(tmp_path: Path) -> None:
    text = RULE.replace("    invalidate:", "      other: {sql: 'SELECT {id} AS x'}\n    invalidate:")
    text = text.replace("{order.user_id}:orders", "{order.user_id}:{other.x}")
    found = only(tmp_path, text)
    assert (found.code, found.severity, found.line) == ("two-lookups", "error", 15)


def test_a_lookup_that_nobody_uses_is_warned_about(tmp_path: Path) -> None:
    found = only(tmp_path, RULE.replace("{order.user_id}", "{order_id}"))
    assert (found.code, found.severity, found.line, found.column) == ("lookup-unused", "warning", 7, 7)


def test_a_delete_that_may_leave_nothing_to_look_up_is_told_of(tmp_path: Path) -> None:
    text = RULE.replace("[insert, update]", "[insert, update, delete]")
    found = only(tmp_path, text)
    assert (found.code, found.severity, found.line, found.column) == ("lookup-after-delete", "info", 6, 5)
    tagged = text.replace("    coarse:", '      tags: ["order:{order_id}"]\n    coarse:')
    assert findings(tmp_path, tagged) == []


def test_the_place_inside_a_quoted_text_is_exact(tmp_path: Path) -> None:
    text = RULE.replace(
        "|\n          SELECT o.user_id\n          FROM orders o WHERE o.id = {order_id}",
        '"SELECT \\"user id\\" FROM orders\\n  WHERE id = {order_id|lower}"',
    )
    found = only(tmp_path, text)
    assert found.code == "lookup-syntax"
    line = text.splitlines()[found.line - 1]
    assert line[found.column - 1 : found.column - 1 + found.width] == "|lower"
