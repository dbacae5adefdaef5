"""A row message that ends early names nothing that the whole one does not: its rules widen instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invalidator.model import Relation, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.rule import Coarse, Rule
from invalidator.rules.template import literal
from tests.support import pgoutput
from tests.support.pgoutput import make_relation
from tests.support.rule_interpreter import Change
from tests.unit.rules.test_compiler import Bound, cases, make_rule, message_of

COARSE = b"COARSE"


@pytest.mark.parametrize("columns", [("id",), ("id", "slug"), ("id", "slug", "c", "d", "e", "f")])
@pytest.mark.parametrize("wanted", ["id", "slug"])
def test_a_value_that_is_cut_off_names_nothing(columns: Sequence[str], wanted: str) -> None:
    if wanted not in columns:
        return
    bound = Bound(make_relation(*columns), [make_rule(keys=[f"a:{{{wanted}}}"])])
    row = [b"1234", b"abcd", *[b"x"] * 4][: len(columns)]
    whole = pgoutput.insert(bound.relation.oid, row)
    expected = {"keys": {b"a:1234" if wanted == "id" else b"a:abcd"}}
    assert bound.feed(whole) == expected

    for size in range(26, len(whole)):
        assert bound.feed(whole[:size]) in ({"tags": {b"articles"}}, expected), size
    assert bound.state.errors[WidenReason.RULE_ERROR]


@pytest.mark.parametrize("kind", ["K", "O"])
def test_an_old_value_that_is_cut_off_names_nothing(kind: str) -> None:
    relation = make_relation("id", "slug", replica_identity="f" if kind == "O" else "d")
    bound = Bound(relation, [make_rule(keys=["a:{old.id}"])])
    row = [b"1234", b"x"] if kind == "O" else [b"1234", None]
    whole = pgoutput.delete(relation.oid, **{"old" if kind == "O" else "key": row})
    assert bound.feed(whole[: whole.index(b"1234") + 2]) == {"tags": {b"articles"}}


def test_bytes_behind_the_last_value_mean_that_lengths_do_not_add_up() -> None:
    bound = Bound(make_relation("id", "slug"), [make_rule(keys=["a:{new.slug}"])])
    assert bound.feed(pgoutput.insert(bound.relation.oid, [b"1", b"x"]) + b"x") == {"tags": {b"articles"}}


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_a_message_cut_anywhere_names_what_the_whole_one_does_or_widens(
    case: tuple[Relation, list[Rule], list[TagGrammar], list[Change]], data: st.DataObject
) -> None:
    relation, rules, grammars, changes = case
    coarse = Coarse(tags=(literal(COARSE.decode()),))
    rules = [replace(rule, coarse=coarse, bulk_over=None, repeat_after=()) for rule in rules]
    for change in changes:
        message = message_of(relation, change)
        whole = Bound(relation, rules, grammars).feed(message)
        size = data.draw(st.integers(26, len(message) - 1))
        cut = Bound(relation, rules, grammars).feed(message[:size])
        assert cut.keys() <= {*whole, "tags"}
        for group, names in cut.items():
            assert names <= whole.get(group, set()) | {COARSE}  # type: ignore[operator]
        assert cut == whole or COARSE in cut["tags"]  # type: ignore[operator]
