"""``invalidator test``: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from invalidator.cli._exits import Exit
from invalidator.cli.test import command
from invalidator.yamlfile import Invalid

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{new.slug}"], cdn: ["post-{id}"]}
    coarse: {tags: [posts], keys: [], cdn: [posts]}
  - name: user
    table: public.users
    invalidate: {keys: ["user:{id}"]}
tests:
  - name: a moved post <drops> both
    table: public.posts
    update: {old: {id: 1, slug: a}, new: {slug: b}}
    expect: {keys: ["post:a", "post:b"], cdn: [post-1]}
  - name: a new post
    table: public.posts
    insert: {id: 1, slug: a}
    expect: {keys: ["post:a"], cdn: [post-1]}
"""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INVALIDATOR_SETTINGS", raising=False)
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")


def outcome(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["rules.yaml", *arguments], standalone_mode=False)


def document(*arguments: str) -> Any:
    return json.loads(outcome("--json", *arguments).stdout)


def test_a_failure_names_the_line_that_explains_it() -> None:
    result = outcome()
    assert result.return_value == Exit.PROBLEMS
    assert result.stdout.splitlines() == [
        "FAIL  a moved post <drops> both  (rules.yaml:11)",
        "  keys          expected    post:a  post:b",
        "                got         post:b",
        "                missing     post:a  ← rule 'post' uses {new.slug} (rules.yaml:5): "
        "the old slug is never rendered",
        "",
        "2 tests in 1 file: 1 failed, 1 passed",
    ]


def test_when_all_pass_the_exit_code_is_0() -> None:
    result = outcome("-k", "NEW")
    assert (result.return_value, result.stdout) == (Exit.FINE, "1 test in 1 file: 1 passed\n")


@pytest.mark.parametrize(
    ("tests", "said"), [("tests: []\n", "there are no tests in these files"), (None, "no test has such a name")]
)
def test_that_nothing_was_tested_is_a_problem(tmp_path: Path, tests: str | None, said: str) -> None:
    if tests is not None:
        (tmp_path / "rules.yaml").write_text(RULES[: RULES.index("tests:")] + tests, encoding="utf-8")
    result = outcome("-k", "nothing of that kind")
    assert result.return_value == Exit.PROBLEMS
    assert said in result.stdout


def test_coverage_lists_what_no_test_reaches() -> None:
    lines = outcome("--coverage").stdout.splitlines()
    assert lines[-2:] == ["coverage: 1 of 2 rules fired", "  never fired     rule 'user' (rules.yaml:7)"]
    assert document("--coverage")["coverage"] == {
        "rules": 2,
        "never_fired": [{"rule": "user", "place": "rules.yaml:7:5"}],
        "never_rendered": [],
    }


def test_programs_get_the_same_as_json() -> None:
    made = document()
    assert (made["passed"], made["failed"], made["skipped"]) == (1, 1, 0)
    [difference] = made["tests"][0]["differences"]
    assert difference["missing"]["post:a"][0].startswith("rule 'post' uses {new.slug}")
    assert made["tests"][1]["rules_fired"] == ["post"]


def test_ci_systems_get_junit_xml() -> None:
    root = ElementTree.fromstring(outcome("--format", "junit").stdout)  # noqa: S314  (made right here)
    [suite] = root
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failed, passed = suite
    assert failed.get("name") == "a moved post <drops> both"
    failure = failed.find("failure")
    assert failure is not None
    assert "the old slug is never rendered" in str(failure.text)
    assert list(passed) == []


def test_rules_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("version: 2\n", encoding="utf-8")
    assert isinstance(outcome().exception, Invalid)


def test_the_tags_that_the_configured_cdns_take_count(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "invalidator.yaml").write_text('targets: {edge: {type: varnish, url: "http://v:1"}}\n')
    (tmp_path / "rules.yaml").write_text(
        RULES.replace("insert: {id: 1, slug: a}", 'insert: {id: "a b", slug: a}'), encoding="utf-8"
    )
    [difference, *_] = [each for each in document("-k", "new")["tests"][0]["differences"] if each["kind"] == "cdn"]
    assert difference["unexpected"]["posts"] == [
        "rule 'post' (rules.yaml:3): the coarse form, because a value cannot be written as the CDNs' tags are"
    ]
