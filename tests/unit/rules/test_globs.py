"""Globs in L1 templates: what may stand around a value, and what a prefix is in them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from invalidator import yamlfile
from invalidator.rules import document
from invalidator.rules.globs import name_matcher, open_at_end
from invalidator.rules.rule import Rule


def load(folder: Path, l1: str, prefix: str = "") -> Rule:
    rule = {"name": "r", "table": "public.r", "prefix": prefix, "invalidate": {"keys": ["k:{id}"], "l1": [l1]}}
    path = folder / "rules.json.yaml"
    path.write_text(json.dumps({"version": 1, "rules": [rule]}), encoding="utf-8")
    return document.load([path]).rules[0]


@pytest.mark.parametrize(
    ("l1", "marked"),
    [
        ("user[a-{id}]", "["),
        ("user\\{id}", "\\"),
        ("{{[{id}]", "["),
        ("a[b]:{meta.op}[{id}", "["),
        ("user[\\{id}", "["),
    ],
)
def test_a_value_inside_a_class_or_behind_a_backslash_is_refused_there(tmp_path: Path, l1: str, marked: str) -> None:
    with pytest.raises(yamlfile.Invalid) as refused:
        load(tmp_path, l1)

    (found,) = refused.value.diagnostics
    line = next(iter(refused.value.sources.values())).splitlines()[found.line - 1]
    assert found.code == "glob-around-value"
    assert line[found.column - 1] == marked


@pytest.mark.parametrize("l1", ["user[ab]{id}", "user[\\\\]{id}", "user\\*{id}", "user:{id}[", "user:{id}\\", "a]{id}"])
def test_a_complete_glob_around_a_value_is_taken(tmp_path: Path, l1: str) -> None:
    assert load(tmp_path, l1).exact.l1[0].columns == {"id"}


def test_a_backslash_in_a_prefix_is_itself_in_keys_and_in_patterns(tmp_path: Path) -> None:
    rule = load(tmp_path, "{id}:*", "App\\Models\\")

    assert rule.exact.keys[0].text == "App\\Models\\k:{id}"
    assert rule.exact.l1[0].text == "App[\\\\]Models[\\\\]{id}:*"
    assert [pattern.text for pattern in rule.coarse.l1] == ["App[\\\\]Models[\\\\]*"]


def test_an_escaped_star_before_a_value_stays_in_the_derived_pattern(tmp_path: Path) -> None:
    assert [pattern.text for pattern in load(tmp_path, "user\\*{id}").coarse.l1] == ["user\\**"]


@pytest.mark.parametrize(
    ("glob", "at"), [("a[b", 1), ("a\\", 1), ("[a-]", 0), ("[]", None), ("[^]]", None), ("\\[", None)]
)
def test_classes_and_escapes_are_read_as_redis_reads_them(glob: str, at: int | None) -> None:
    assert open_at_end(glob) == at


# -- names of tables -------------------------------------------------------------------------------------------------


@given(st.text("ab*.", max_size=12), st.text("ab.\n", max_size=12))
@example("a*a", "a")
@example("*ab*b", "aabb")
@example("a**b", "ab")
def test_a_pattern_matches_the_names_that_it_says(pattern: str, name: str) -> None:
    expected = re.compile("(?s:" + "(.*)".join(map(re.escape, pattern.split("*"))) + ")").fullmatch(name)

    assert (name_matcher(pattern).fullmatch(name) is None) == (expected is None)


def test_a_pattern_with_many_stars_is_held_against_a_name_at_once() -> None:
    begun = time.process_time()
    assert name_matcher("*a" * 30 + "*b").fullmatch("a" * 63) is None
    assert time.process_time() - begun < 0.1
