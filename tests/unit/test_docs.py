"""What the documentation shows works, and what exists is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from invalidator import yamlfile
from invalidator.rules import document, template, testing
from invalidator.rules.schema import RuleFile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RULES_PAGE = ROOT / "docs" / "reference" / "rules.md"


def yaml_blocks() -> list[tuple[str, str]]:
    """Place and text of every block that is marked as YAML."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1]))
    return found


BLOCKS = yaml_blocks()
RULE_BLOCKS = [(place, text) for place, text in BLOCKS if re.search(r"^rules:\s*$", text, re.MULTILINE)]


@pytest.mark.parametrize(("place", "text"), BLOCKS, ids=[place for place, _ in BLOCKS])
def test_every_yaml_block_can_be_read(place: str, text: str) -> None:
    assert yamlfile.parse(text, place).data


@pytest.mark.parametrize(("place", "text"), RULE_BLOCKS, ids=[place for place, _ in RULE_BLOCKS])
def test_every_block_of_rules_loads_without_a_warning(tmp_path: Path, place: str, text: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    assert document.load_with_warnings([path]).warnings == (), place


@pytest.mark.parametrize(("place", "text"), RULE_BLOCKS, ids=[place for place, _ in RULE_BLOCKS])
def test_the_tests_in_a_block_of_rules_hold(tmp_path: Path, place: str, text: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")

    report = testing.run(document.load_with_warnings([path]))

    assert [str(failure.diagnostic()) for failure in report.failures] == [], place


def test_the_documentation_shows_rules_at_all() -> None:
    pages = {place.split(":")[0] for place, _ in RULE_BLOCKS}
    assert {"README.md", "docs/reference/rules.md"} <= pages


def test_every_field_of_the_rule_file_is_documented() -> None:
    schema = RuleFile.model_json_schema()
    fields = {name for model in (schema, *schema["$defs"].values()) for name in model.get("properties", ())}
    text = RULES_PAGE.read_text(encoding="utf-8")
    assert [field for field in sorted(fields) if f"| `{field}` |" not in text] == []


def test_every_filter_and_fact_of_templates_is_documented() -> None:
    text = RULES_PAGE.read_text(encoding="utf-8")
    assert [name for name in template.FILTERS if f"`{name}`" not in text] == []
    assert f"`{template.DEFAULT}:" in text
    assert [name for name in template.META if f"{{meta.{name}}}" not in text] == []
