"""Random conditions: nothing crashes, nothing takes long, nothing is refused without a place.

``FUZZ_EXAMPLES=100000 pytest --timeout=0 tests/unit/rules/test_condition_fuzz.py`` looks longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invalidator.model import Operation
from invalidator.rules import condition
from invalidator.rules.condition import ColumnType, Condition, ConditionError, Kind, parse
from invalidator.rules.condition.syntax import MAX_LENGTH, MAX_TERMS
from invalidator.rules.condition.tree import Node
from tests.support.conditions import TABLE, VALUES, conditions

T = TypeVar("T")
FUZZ = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")), deadline=None)
PIECES = st.sampled_from(
    r"""a b new old new. old. . , ( ) [ ] = == === != <> < <= > >= and or not && || ! in is null true false changed
    changed( 'x' '' ' " "Q q" "" 1 -1 1.5 1e5 1e999999999 999 { } + - * / :: -> ; é ß ٣ ² \u2028 \x00 like between
    """.replace(r"\u2028", "\u2028").replace(r"\x00", "\x00").split(" ")
) | st.text(max_size=4)  # fmt: skip
IMAGES = {Operation.INSERT: (False, True), Operation.UPDATE: (True, True), Operation.DELETE: (True, False)}


@FUZZ
@given(st.lists(PIECES, max_size=40), st.sampled_from(["", " "]))
def test_whatever_is_written_is_read_or_refused_at_a_place_inside(pieces: list[str], between: str) -> None:
    check_text(between.join(pieces))


@FUZZ
@given(st.data())
def test_a_mutated_condition_is_read_or_refused_at_a_place_inside(data: st.DataObject) -> None:
    text = "not (new.status in ('a', 'b''c') or old.price >= -1.5) and changed(a, \"B\") or x is not null && !y"
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 6)))
        text = text[:start] + data.draw(PIECES) * data.draw(st.sampled_from([0, 1, 1, 2, 500])) + text[end:]
    check_text(text)


@st.composite
def tables(draw: st.DrawFn, names: Sequence[str]) -> Mapping[str, ColumnType]:
    """The columns of a condition, mostly as it wants them; some of another type, some not there."""
    types = {name: ColumnType(TABLE[name]) for name in names}
    for name in draw(st.lists(st.sampled_from(names), max_size=1)):
        kind = draw(st.sampled_from([None, *Kind]))
        types = {**types, name: ColumnType(kind)} if kind else {other: types[other] for other in names if other != name}
    return types


@FUZZ
@given(conditions(TABLE, far=True), st.data())
def test_a_condition_is_refused_at_a_place_inside_or_tells_what_holds(node: Node, data: st.DataObject) -> None:
    made = parse(condition.written(node))
    assert made.node == node
    types = data.draw(tables(sorted(made.columns)))
    problems = soon(lambda: condition.type_problems(made, types))
    for place in (*problems, *soon(lambda: condition.lint(made, frozenset(Operation)))):
        check_place(place, made.text)
    if not problems:
        check_answers(made, condition.kinds_of(types), data)


WIDE = {f"column_number_{number}": ColumnType(Kind.INTEGER) for number in range(1_600)}
"""As many columns as a table can have."""


@pytest.mark.parametrize(
    "text",
    [
        " or ".join(f"column_nr_{number} = {number}" for number in range(MAX_TERMS)),
        " and ".join(f"column_number_{number} != column_number_{number + 1}" for number in range(MAX_TERMS - 20)),
        f"column_number_1 in ({', '.join(str(number) for number in range(700))})",
        f"{'not (' * 20}{' or '.join(['column_number_1 < 9'] * MAX_TERMS)}{')' * 20}",
        f'"{"x" * (MAX_LENGTH - 10)}" = 1',
    ],
    ids=["unknown", "pairs", "list", "deep", "long"],
)
def test_the_largest_condition_is_read_and_held_against_the_widest_table_soon(text: str) -> None:
    made = soon(lambda: parse(text))
    soon(lambda: condition.type_problems(made, WIDE))
    soon(lambda: condition.lint(made, frozenset(Operation)))


def check_answers(made: Condition, kinds: Mapping[str, Kind], data: st.DataObject) -> None:
    def row() -> dict[str, bytes | None]:
        texts = {
            name: data.draw(st.sampled_from([*VALUES.get(kind, ["x"]), None, ...])) for name, kind in kinds.items()
        }
        return {name: text if text is None else text.encode() for name, text in texts.items() if text is not ...}

    has_old, has_new = data.draw(st.sampled_from(sorted(IMAGES.values())))
    old, new = row() if has_old else None, row() if has_new else None
    found = soon(lambda: condition.truth(made, old, new, kinds))
    told = soon(lambda: condition.explain(made, old, new, kinds))
    soon(lambda: condition.sql(made, kinds))
    assert told.startswith({True: "true", False: "false", None: "may be true"}[found])


def check_text(text: str) -> None:
    made = soon(lambda: read(text))
    if isinstance(made, ConditionError):
        check_place(made, text)
    else:
        again = condition.written(made.node)
        assert parse(again) == made, again


def read(text: str) -> Condition | ConditionError:
    try:
        return parse(text)
    except ConditionError as error:
        return error


def check_place(place: Any, text: str) -> None:
    assert 0 <= place.offset < max(1, len(text))
    assert 1 <= place.width <= max(1, len(text)) - place.offset


def soon(call: Callable[[], T]) -> T:
    """The answer, which takes milliseconds: less than a second, however slow the machine is."""
    begun = time.perf_counter()
    answer = call()
    if time.perf_counter() - begun > 1:
        # The machine or the garbage collector may have been busy otherwise; CPU time alone is dear to ask for.
        assert min(cpu_seconds(call) for _ in range(3)) < 1
    return answer


def cpu_seconds(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun
