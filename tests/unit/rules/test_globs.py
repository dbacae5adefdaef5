"""Globs in L1 templates: what may stand around a value, and what a prefix is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from invalidator import yamlfile
from invalidator.rules import document
from invalidator.rules.globs import open_at_end
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
