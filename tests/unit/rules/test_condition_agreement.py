"""Compiled conditions beside a slow evaluator that shares nothing with them but the tree."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from invalidator.model import Operation
from invalidator.rules import condition
from invalidator.rules.condition import Condition, Kind
from invalidator.rules.condition.code import certainty, compile_condition
from invalidator.rules.condition.explanation import _Known
from invalidator.rules.condition.tree import Changed, Node, columns_of, terms_of
from tests.support import condition_reference as reference
from tests.support.condition_reference import UNSENT, Rows
from tests.support.conditions import TABLE, VALUES, conditions

FUZZ = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")), deadline=None)


CONDITIONS = conditions(TABLE)
OPERATIONS = st.sampled_from([Operation.INSERT, Operation.UPDATE, Operation.UPDATE, Operation.DELETE])


@st.composite
def cases(draw: st.DrawFn, *, unsent: bool) -> tuple[Node, Rows]:
    """A condition, and rows of the columns that it asks for."""
    node = draw(CONDITIONS)
    names = sorted(Condition("", node).columns)
    operation = draw(OPERATIONS)
    old = None if operation is Operation.INSERT else {name: draw(value(name, unsent=unsent)) for name in names}
    new = None if operation is Operation.DELETE else {name: draw(value(name, unsent=unsent)) for name in names}
    if old is not None and new is not None:
        for name in names:
            if new[name] is UNSENT and old[name] is not UNSENT:
                new[name] = old[name]  # as the reading completes it
            elif UNSENT not in (old[name], new[name]) and draw(st.booleans()):
                new[name] = old[name]
    return node, Rows(old, new)


@functools.cache
def value(name: str, *, unsent: bool) -> st.SearchStrategy[Any]:
    return st.sampled_from([*(text.encode() for text in VALUES[TABLE[name]]), None, *([UNSENT] if unsent else [])])


def known(rows: Rows) -> _Known:
    def sent(image: Any) -> Any:
        return None if image is None else {name: value for name, value in image.items() if value is not UNSENT}

    return _Known(sent(rows.old), sent(rows.new))


def fires(node: Node, rows: Rows, *, form: str) -> bool:
    made = compile_condition(Condition("", node), TABLE, known(rows))
    function = getattr(made, form)
    values = known(rows).arguments()
    return function if isinstance(function, bool) else bool(function(*(values[name] for name in made.arguments)))


@FUZZ
@given(cases(unsent=False))
def test_both_forms_do_what_the_slow_evaluator_does_where_everything_was_sent(case: tuple[Node, Rows]) -> None:
    node, rows = case
    expected = reference.holds(node, rows, TABLE)
    assert fires(node, rows, form="exact") == expected
    assert fires(node, rows, form="may") == expected
    assert condition.truth(Condition("", node), known(rows).old, known(rows).new, TABLE) is expected


@FUZZ
@given(cases(unsent=True))
def test_what_was_not_sent_makes_a_term_true_and_false(case: tuple[Node, Rows]) -> None:
    node, rows = case
    assert fires(node, rows, form="may") == reference.may_hold(node, rows, TABLE)


class _AtRunTime(_Known):
    """The same rows where nothing is known beforehand: what was not sent comes as False."""

    def value(self, image: Any, column: str) -> Any:
        row = self.new if image == "new" else self.old
        return super().value(image, column) if row is None else f"{image}_{column}"

    def change(self, column: str) -> Any:
        return True if self.new is None or self.old is None else (f"old_{column}", f"new_{column}")


@FUZZ
@given(cases(unsent=True))
def test_what_turns_out_not_to_be_sent_is_as_what_is_known_not_to_be(case: tuple[Node, Rows]) -> None:
    node, rows = case
    row = _AtRunTime(known(rows).old, known(rows).new)
    values = {
        f"{image}_{name}": False if value is UNSENT else value
        for image, its in (("old", rows.old), ("new", rows.new))
        for name, value in (its or {}).items()
    }
    made = compile_condition(Condition("", node), TABLE, row)
    fired = made.may if isinstance(made.may, bool) else bool(made.may(*(values[name] for name in made.arguments)))
    expected = reference.may_hold(node, rows, TABLE)
    if any(isinstance(term, Changed) for term in terms_of(node)):
        assert fired or not expected  # here it is not known that an unsent value is an unchanged one
    else:
        assert fired == expected


SMALL = {"flag": Kind.BOOLEAN, "mood": Kind.ENUM, "other": Kind.INTEGER}
DOMAINS: Mapping[str, list[bytes | None]] = {
    "flag": [b"t", b"f", None],
    "mood": [b"sad", b"ok", b"happy", None],
    "other": [b"0", b"1", b"10", b"-1", b"9", b"77", None],
}


def small_rows(data: st.DataObject) -> Rows:
    def image() -> dict[str, Any]:
        return {name: data.draw(st.sampled_from([*values, UNSENT, UNSENT])) for name, values in DOMAINS.items()}

    old, new = image(), image()
    return Rows(old, {name: old[name] if value is UNSENT else value for name, value in new.items()})


def may_fire(node: Node, rows: Rows) -> bool:
    may = compile_condition(Condition("", node), SMALL, known(rows))
    values = known(rows).arguments()
    return may.may if isinstance(may.may, bool) else bool(may.may(*(values[name] for name in may.arguments)))


@FUZZ
@given(conditions(SMALL), st.data())
def test_it_may_hold_whenever_it_does_for_some_values_that_could_have_been(node: Node, data: st.DataObject) -> None:
    rows = small_rows(data)
    if any(reference.holds(node, full, SMALL) for full in reference.completions(rows, DOMAINS)):
        assert may_fire(node, rows)


@FUZZ
@given(conditions(SMALL, ["new"]), st.data())
def test_it_may_hold_only_if_it_does_for_some_values_where_no_column_is_asked_twice(
    node: Node, data: st.DataObject
) -> None:
    names = [column.name for term in terms_of(node) for column in columns_of(term)]
    assume(len(names) == len(set(names)))
    assume(all(_is_undecided(term) for term in terms_of(node)))
    rows = small_rows(data)
    assert may_fire(node, rows) == any(
        reference.holds(node, full, SMALL) for full in reference.completions(rows, DOMAINS)
    )


def _is_undecided(term: Node) -> bool:
    """Whether the term can be true and can be false."""
    free = Rows(None, dict.fromkeys(SMALL, UNSENT))
    return len({reference.holds(term, full, SMALL) for full in reference.completions(free, DOMAINS)}) == 2


@FUZZ
@given(cases(unsent=True))
def test_what_is_certain_is_true_whatever_was_not_sent(case: tuple[Node, Rows]) -> None:
    node, rows = case
    function, arguments = certainty(Condition("", node), TABLE, known(rows))
    values = known(rows).arguments()
    must = function if isinstance(function, bool) else bool(function(*(values[name] for name in arguments)))
    assert not must or fires(node, rows, form="may")
    every = all(reference._truths(node, image, rows, TABLE) == {True} for image in rows.images)
    assert must or not every
