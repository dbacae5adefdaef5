"""Every code that a finding may carry is explained, and the explanations are true."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

from invalidator import codes
from invalidator.codes import Code
from invalidator.config.agreement import disagreements
from invalidator.config.loading import load
from invalidator.rules import document
from invalidator.yamlfile import Invalid

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "invalidator"
EMITTERS = [
    path for part in ("yamlfile", "rules", "config", "preflight", "cli") for path in (PACKAGE / part).rglob("*.py")
]
_CODE = re.compile(r"[a-z]+(?:-[a-z0-9]+)+")
NO_CODES = {
    "utf-8",
    "utf-8-sig",
    "stand-in",
    "snapshot-schema",
    "condition-grammar",
}
"""Constants of those modules that look like a code and are something else."""
RULES = [code for code in codes.all_codes().values() if code.language == "rules" and code.wrong]


def constants(path: Path) -> set[str]:
    """The text constants of a module, docstrings and plain expressions left out."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value)
    }


def as_file(example: str) -> str:
    """An example as a complete rule file: it may be a file, an entry of ``rules:``, or fields of a rule."""
    if example.startswith(("version:", "rules:", "defaults:", "tests:")):
        return example
    if not example.startswith("- "):
        example = "- name: example\n  table: public.examples\n" + textwrap.indent(example, "  ")
    return "version: 1\nrules:\n" + textwrap.indent(example, "  ")


def found_in(folder: Path, example: str) -> set[str]:
    """The codes that the checker finds, with a Redis, an L1 bus and a CDN among the settings."""
    path = folder / "rules.yaml"
    path.write_text(as_file(example), encoding="utf-8")
    settings = folder / "invalidator.yaml"
    settings.write_text(
        "source: {dsn: postgresql://u@h/d}\n"
        "targets:\n"
        "  redis: {type: redis_keys, url: redis://localhost:6379/0}\n"
        "  bus: {type: redis_bus, url: redis://localhost:6379/0}\n"
        "  edge: {type: varnish, url: http://localhost:6081}\n"
    )
    try:
        loaded = document.load_with_warnings([path])
    except Invalid as invalid:
        return {finding.code for finding in invalid.diagnostics}
    found = {finding.code for finding in loaded.warnings}
    agreed = disagreements(load(settings, environment={}), loaded.ruleset, loaded.sources)
    return found | {finding.code for finding in agreed}


@pytest.mark.parametrize("path", EMITTERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_code_that_a_module_names_is_explained(path: Path) -> None:
    assert constants(path) - set(codes.all_codes()) - NO_CODES == set()


@pytest.mark.parametrize("code", RULES, ids=lambda code: code.name)
def test_the_wrong_example_gets_its_code_and_the_right_one_does_not(code: Code, tmp_path: Path) -> None:
    assert code.name in found_in(tmp_path, code.wrong)
    assert code.name not in found_in(tmp_path, code.right)


@pytest.mark.parametrize("code", RULES, ids=lambda code: code.name)
def test_the_right_example_has_no_error(code: Code, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(as_file(code.right), encoding="utf-8")
    document.load([path])


@pytest.mark.parametrize("code", codes.all_codes().values(), ids=lambda code: code.name)
def test_an_explanation_is_whole_sentences(code: Code) -> None:
    assert _CODE.fullmatch(code.name)
    assert re.match(r"[`A-Z].*[.?]\Z", code.meaning, re.DOTALL), code.meaning
    assert not code.why or re.match(r"[`A-Z].*[.?]\Z", code.why, re.DOTALL), code.why
    assert bool(code.wrong) == bool(code.right)


def test_a_code_is_found_as_messages_show_it_and_by_what_comes_near() -> None:
    assert codes.find("error[unknown-field]:") is codes.find("unknown-field") is codes.all_codes()["unknown-field"]
    assert codes.find("nonsense") is None
    assert codes.similar("unknown-feild")[0] == "unknown-field"
