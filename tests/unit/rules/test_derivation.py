"""A derived coarse form covers everything that the exact form can name."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.rules import derivation
from invalidator.rules.template import Literal, Template, parse

FACTS = {"schema": "shop", "table": "t[1]*"}  # whatever holds for all rows

literals = st.text(alphabet="ab:*?[]\\{}!-", min_size=1, max_size=4)
references = st.sampled_from(
    ["{id}", "{new.a|lower}", "{old.b}", "{meta.schema}", "{meta.table}", "{meta.op}", "{meta.lsn}"]
)
values = st.text(alphabet="xy:*?[]\\\n", max_size=4)


@st.composite
def templates(draw: st.DrawFn, text: st.SearchStrategy[str] = literals) -> Template:
    parts = draw(st.lists(st.one_of(text.map(doubled), references), min_size=1, max_size=5))
    return parse("".join(parts))


def doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def escaped(value: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in value)


def name(template: Template, data: st.DataObject) -> str:
    """A name that the template makes for some row."""
    made = ""
    for part in template.parts:
        if isinstance(part, Literal):
            made += part.text
        else:
            value = FACTS[part.name] if part.scope == "meta" and part.name in FACTS else data.draw(values)
            made += value
    return made


def glob(pattern: Template) -> str:
    """The pattern with its facts put in as data."""
    return "".join(part.text if isinstance(part, Literal) else escaped(FACTS[part.name]) for part in pattern.parts)


@given(st.data())
def test_a_derived_pattern_matches_every_name_that_its_template_makes(data: st.DataObject) -> None:
    template = data.draw(templates())
    assert fnmatchcase(name(template, data), glob(derivation.covering_pattern(template)))


@given(st.data())
def test_dropping_covered_patterns_never_uncovers_a_name(data: st.DataObject) -> None:
    made = data.draw(st.lists(templates(), min_size=1, max_size=5))
    patterns = derivation.without_covered(derivation.covering_pattern(template) for template in made)
    for template in made:
        found = name(template, data)
        assert any(fnmatchcase(found, glob(pattern)) for pattern in patterns)


@given(st.data())
def test_a_derived_l1_pattern_matches_what_the_exact_pattern_matches(data: st.DataObject) -> None:
    template = data.draw(templates(st.text(alphabet="ab:", min_size=1, max_size=4)))
    assert fnmatchcase(name(template, data), glob(derivation.covering_l1_pattern(template)))


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["a:*", "a:*:x", "b:*"], ["a:*", "b:*"]),
        (["a:*:x", "a:*:y"], ["a:*:x", "a:*:y"]),
        (["a:*", "a:*"], ["a:*"]),
        (["{meta.schema}:a:*", "{meta.schema}:a:*:p"], ["{meta.schema}:a:*"]),
        (["ab*", "a*"], ["a*"]),
    ],
)
def test_a_pattern_that_another_one_covers_is_not_scanned_for(patterns: list[str], left: list[str]) -> None:
    assert [each.text for each in derivation.without_covered(map(parse, patterns))] == left


@pytest.mark.parametrize(
    ("text", "fixed"),
    [("a", True), ("{meta.schema}:{meta.table}", True), ("{meta.op}", False), ("{meta.xid}", False), ("{id}", False)],
)
def test_only_schema_and_table_are_the_same_for_every_change_of_a_table(text: str, fixed: bool) -> None:
    assert derivation.is_fixed(parse(text)) is fixed
