"""docs/reference/targets-cdn.md against the code: every option, every default, every limit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from invalidator import registry
from invalidator.ports import TargetOptions
from invalidator.targets.cdn._settings import CdnOptions
from tests.support.cdn import build_cdn, cdn_types

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "targets-cdn.md").read_text()
OPTIONS = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))


def _section(type_name: str) -> str:
    match = re.search(rf"^## `{type_name}`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no section for {type_name}"
    return match[1]


@pytest.mark.parametrize("type_name", cdn_types())
def test_every_option_is_listed_with_its_default(type_name: str) -> None:
    section = _section(type_name)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", section, re.MULTILINE))
    for name, field in registry.load("targets", type_name).Settings.model_fields.items():
        if name in CdnOptions.model_fields or name == "type":
            continue
        default = "required" if field.is_required() else "none" if field.default is None else f"`{field.default}`"
        assert rows.get(name) == default, name


def test_every_common_option_is_listed() -> None:
    for name in CdnOptions.model_fields.keys() - TargetOptions.model_fields.keys():
        assert name in OPTIONS


@pytest.mark.parametrize("type_name", cdn_types())
def test_the_limits_in_the_table_are_those_of_the_code(type_name: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{type_name}` |"))
    edge = build_cdn(type_name, "http://host")
    _, _, _, soft, everything, call, tags, _ = (cell.strip() for cell in row.split("|"))
    assert soft.startswith("yes") is edge.capabilities.soft
    assert everything.startswith("yes") is edge.capabilities.everything
    assert f"{edge.capabilities.max_tags:,}" in call
    assert edge.capabilities.max_bytes is None or f"{edge.capabilities.max_bytes:,}" in call
    assert edge.tag_grammar.description in tags
    assert f"{edge.tag_grammar.max_bytes:,} bytes" in tags
    assert ("the same" not in tags) is edge.capabilities.case_sensitive
