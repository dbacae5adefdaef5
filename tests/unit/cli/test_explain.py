"""``invalidator explain`` for partial rows, for names, and with lookups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from invalidator.cli._exits import Exit
from invalidator.cli.explain import command

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug, title]
    invalidate:
      keys: ["post:{slug|lower}", "post:id:{id}"]
      cdn: ["post-{id}"]
  - name: item
    table: public.items
    lookup: {order: {sql: "SELECT user_id FROM orders WHERE id = {order_id}"}}
    invalidate: {keys: ["order:{order_id}", "user:{order.user_id}:orders"], l1: ["order:{order_id}:*"]}
"""


@pytest.fixture(autouse=True)
def _rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["--rules", "rules.yaml", *arguments], standalone_mode=False)


def document(*arguments: str) -> Any:
    return json.loads(explain("--json", *arguments).stdout)


# -- rows ------------------------------------------------------------------------------------------------------------


def test_each_name_is_followed_by_the_line_that_makes_it() -> None:
    lines = explain("public.posts", '{"id": 1, "slug": "A", "title": "t"}').stdout.splitlines()
    assert lines[1:4] == [
        "  keys     post:a  post:id:1                  unlink",
        "           ← post:{slug|lower} (rules.yaml:7)",
        "           ← post:id:{id} (rules.yaml:7)",
    ]


def test_one_template_for_two_kinds_on_one_line_makes_both_names() -> None:
    Path("rules.yaml").write_text(
        "version: 1\n"
        "rules: [{name: post, table: public.posts, invalidate: {keys: ['post:{id}'], l1: ['post:{id}']}}]\n",
        encoding="utf-8",
    )

    lines = explain("public.posts", '{"id": 1}').stdout.splitlines()

    assert lines[1:] == [
        "  keys     post:1                             unlink",
        "           ← post:{id} (rules.yaml:2)",
        "  l1       post:1                             publish",
        "           ← post:{id} (rules.yaml:2)",
    ]


@pytest.mark.parametrize(
    ("json_text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"id": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"id": "\\ud800"}', "ud800 is half of a surrogate pair"),
        ('{"\\ud800": 1}', "ud800 is half of a surrogate pair"),
    ],
    ids=["open lists", "lists", "value", "name"],
)
@pytest.mark.parametrize("hint", ["ROW", "--lookup"])
def test_json_that_cannot_be_used_is_refused(hint: str, json_text: str, message: str) -> None:
    row, more = (json_text, []) if hint == "ROW" else ('{"order_id": 1}', ["--lookup", json_text])
    error = explain("public.items", row, *more).exception
    assert isinstance(error, click.BadParameter)
    assert error.param_hint == hint
    assert message in error.message


def test_columns_that_a_row_lacks_are_not_told_and_not_missing() -> None:
    [rule] = document("public.posts", '{"id": 1}')["rules"]
    assert rule["not_given"] == ["slug", "title"]
    assert rule["missing_columns"] == []
    assert rule["widened"] == []
    assert rule["invalidation"] == {"keys": ["post:id:1"], "cdn": ["post-1"]}
    assert "not told slug, title" in explain("public.posts", '{"id": 1}').stdout


def test_columns_that_nobody_tells_count_as_unchanged() -> None:
    row = '{"old": {"id": 1, "title": "a"}, "new": {"id": 1, "title": "a"}}'
    [rule] = document("public.posts", row)["rules"]
    assert rule["outcome"] == "unchanged"
    [rule] = document("public.posts", row.replace('"a"}}', '"b"}}'))["rules"]
    assert (rule["outcome"], rule["invalidation"]["keys"]) == ("fired", ["post:id:1"])


def test_a_truncate_shows_the_coarse_form_and_why() -> None:
    text = explain("public.posts", "--event", "truncate").stdout
    assert "keys     post:*" in text
    assert "← the coarse form" in text
    assert "a TRUNCATE carries no row" in text
    assert "not told" not in text


# -- lookups ---------------------------------------------------------------------------------------------------------


def test_a_lookup_is_shown_with_what_it_asks_and_not_run() -> None:
    text = explain("public.items", '{"order_id": 5}').stdout
    assert 'lookup   order with order_id = "5"' in text
    assert "not run" in text
    [rule] = document("public.items", '{"order_id": 5}')["rules"]
    assert rule["lookups"] == [{"lookup": "order", "parameters": {"order_id": "5"}, "answered": False}]
    assert rule["invalidation"]["keys"] == ["order:5"]


def test_what_a_lookup_finds_can_be_told() -> None:
    found = '{"order": [{"user_id": 7}, {"user_id": 8}]}'
    row = '{"old": {"order_id": 5}, "new": {"order_id": 6}}'
    [rule] = document("public.items", row, "--lookup", found)["rules"]
    assert [each["parameters"] for each in rule["lookups"]] == [{"order_id": "5"}, {"order_id": "6"}]
    assert rule["invalidation"]["keys"] == ["order:5", "order:6", "user:7:orders", "user:8:orders"]


@pytest.mark.parametrize("found", ["[]", "{", '{"order": 1}', '{"order": [1]}'])
def test_what_a_lookup_finds_is_a_list_of_rows(found: str) -> None:
    assert explain("public.items", '{"order_id": 5}', "--lookup", found).exception is not None


# -- names -----------------------------------------------------------------------------------------------------------


def test_a_key_tells_the_rules_that_can_drop_it_and_the_row_values() -> None:
    result = explain("--key", "post:hello")
    assert result.return_value == Exit.FINE
    assert result.stdout.splitlines() == [
        "rule post (rules.yaml:7)  post:{slug|lower}  public.posts  lower(slug) = 'hello'",
        "rule post (rules.yaml:3)  post:*  public.posts  with its coarse form",
    ]
    found = document("--key", "user:7:orders")["rules"]
    assert [(each["template"], each["conditions"], each["coarse"]) for each in found] == [
        ("user:{order.user_id}:orders", [["order.user_id = '7'"]], False),
        ("user:*:orders", [[]], True),
    ]


def test_an_entry_of_an_in_process_cache_is_matched_against_the_patterns() -> None:
    [exact, coarse] = document("--l1", "order:5:lines")["rules"]
    assert exact["conditions"] == [["order_id = '5'"]]
    assert coarse["coarse"]


def test_a_cdn_tag_also_goes_with_everything() -> None:
    text = explain("--cdn", "post-7").stdout
    assert "id = '7'" in text
    assert "also by everything at the CDN, the coarse form of post" in text


def test_a_name_that_no_rule_drops_is_a_problem_with_the_nearest_template() -> None:
    result = explain("--key", "posts:7")
    assert result.return_value == Exit.PROBLEMS
    assert "no rule can drop the key posts:7" in result.stdout
    assert "post:id:{id} of rule 'post'" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--key", "a", "--tag", "b"],
        ["public.posts", "--key", "a"],
        [],
        ["public.posts", "--where", "true", "--identity", "id"],
        ["public.items", '{"order_id": 5}', "--lookup", "{}", "--online"],
    ],
)
def test_questions_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    assert explain(*arguments).exception is not None


def test_a_key_that_no_rule_drops_may_go_with_a_tag() -> None:
    hint = "keys in tag sets go with their tag"
    assert hint not in explain("--key", "page:1").stdout
    with open("rules.yaml", "a", encoding="utf-8") as stream:
        stream.write("  - {name: page, table: public.pages, invalidate: {tags: ['page:{id}']}}\n")
    result = explain("--key", "page:1")
    assert result.return_value == Exit.PROBLEMS
    assert hint in result.stdout
    assert "--tag" in result.stdout


def test_an_old_value_outside_the_identity_is_not_sent_so_nothing_is_claimed_of_it() -> None:
    row = '{"old": {"id": 1, "slug": "a", "title": "t"}, "new": {"id": 1, "slug": "a", "title": "t"}}'
    text = explain("public.posts", row, "--identity", "id").stdout
    assert "changed  slug (not sent, so it may have changed), title (not sent, so it may have changed)" in text
    assert "changed  slug" not in explain("public.posts", row).stdout


@pytest.mark.parametrize(
    ("table", "said"), [("public.items", "did you mean 'order'?"), ("public.posts", "has a lookup")]
)
def test_what_an_unknown_lookup_finds_is_refused(table: str, said: str) -> None:
    refused = explain(table, '{"order_id": 5, "id": 1}', "--lookup", '{"ordr": [{"user_id": 7}]}').exception
    assert isinstance(refused, click.BadParameter)
    assert "no rule for this table has a lookup 'ordr'" in refused.message
    assert said in refused.message
