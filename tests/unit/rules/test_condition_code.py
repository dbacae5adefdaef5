from __future__ import annotations

import itertools
import re
from ctypes import c_float
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from invalidator.model import ENUM_OID, OPAQUE_OID, Column, Relation, WidenReason
from invalidator.rules import condition, reading
from invalidator.rules.condition import Condition, Kind, condition_source, parse, sql
from invalidator.rules.condition.kinds import NUMBERS
from invalidator.rules.condition.tree import Node
from invalidator.rules.namespace import Namespace
from tests.support.conditions import TABLE, conditions
from tests.support.pgoutput import UNCHANGED, key_of, make_relation
from tests.unit.rules.test_compiler import Bound, make_rule


def rule_when(text: str, **options: Any) -> Any:
    return replace(make_rule(keys=["a:{new.id}", "a:{old.id}"], **options), when=parse(text))


def typed(relation: Relation, **oids: int) -> Relation:
    columns = tuple(replace(column, type_oid=oids.get(column.name, column.type_oid)) for column in relation.columns)
    return replace(relation, columns=columns)


FULL = make_relation("id", "status", replica_identity="f")
DEFAULT = make_relation("id", "status")


# Values


@pytest.mark.parametrize(
    ("left", "right", "is_equal"),
    [
        ((Kind.DOUBLE, "0.1"), (Kind.NUMERIC, "0.1"), True),
        ((Kind.DOUBLE, "0.1"), (Kind.NUMERIC, "0.10000000000000000001"), True),
        ((Kind.DOUBLE, "9007199254740992"), (Kind.INTEGER, "9007199254740993"), True),
        ((Kind.NUMERIC, "9007199254740992"), (Kind.INTEGER, "9007199254740993"), False),
        ((Kind.NUMERIC, "1.00"), (Kind.INTEGER, "1"), True),
        ((Kind.REAL, "0.1"), (Kind.REAL, "0.1"), True),
        ((Kind.REAL, "0.1"), (Kind.DOUBLE, "0.1"), False),
        ((Kind.REAL, "0.1"), (Kind.DOUBLE, "0.10000000149011612"), True),
        ((Kind.REAL, "0.1"), (Kind.NUMERIC, "0.1"), False),
        ((Kind.REAL, "1.6777216e+07"), (Kind.INTEGER, "16777216"), True),
        ((Kind.REAL, "NaN"), (Kind.NUMERIC, "NaN"), True),
        ((Kind.PADDED, "a   "), (Kind.PADDED, "a"), True),
        ((Kind.PADDED, "a   "), (Kind.TEXT, "a   "), False),
        ((Kind.PADDED, "a   "), (Kind.TEXT, "a"), True),
        ((Kind.PADDED, None), (Kind.TEXT, None), True),
        ((Kind.REAL, None), (Kind.DOUBLE, None), True),
        ((Kind.REAL, None), (Kind.DOUBLE, "0"), False),
    ],
)
def test_columns_of_two_types_are_compared_as_postgres_casts_them(left: Any, right: Any, is_equal: bool) -> None:
    kinds = {"a": left[0], "b": right[0]}
    row = {name: None if text is None else text.encode() for name, text in (("a", left[1]), ("b", right[1]))}
    for text, expected in (("a = b", is_equal), ("b = a", is_equal), ("a != b", not is_equal)):
        assert condition.truth(parse(text), None, row, kinds) is expected


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("0.1", "0.1"),
        ("0.100000001", "0.1"),
        ("16777217", "1.6777216e+07"),  # halfway: to the even one
        ("16777217.0000000001", "1.6777218e+07"),  # as a double it would be halfway
        ("16777216.9999999999", "1.6777216e+07"),
        ("-16777217.0000000001", "-1.6777218e+07"),
        ("3.4028234663852886e38", "3.4028235e+38"),
        ("3.4028235677973365e38", "3.4028235e+38"),
        ("1e-45", "1e-45"),
    ],
)
def test_a_written_number_is_the_nearest_real_as_postgres_reads_it(written: str, sent: str) -> None:
    kinds = {"a": Kind.REAL}
    assert condition.truth(parse(f"a = {written}"), None, {"a": sent.encode()}, kinds) is True
    asked = sql(parse(f"a = {written}"), kinds)
    assert repr(c_float(float(asked.split("'")[1])).value) == repr(c_float(float(sent)).value)


@pytest.mark.parametrize("kind", [Kind.INTEGER, Kind.NUMERIC, Kind.REAL, Kind.DOUBLE, Kind.DATE, Kind.TIMESTAMPTZ])
@pytest.mark.parametrize("value", [b"", b"x", b"12-", b"no value"])
def test_a_value_that_is_none_of_its_type_is_no_answer(kind: Kind, value: bytes) -> None:
    bound = "1" if kind in NUMBERS else "'2026-05-01'"
    with pytest.raises((ValueError, ArithmeticError)):
        condition.truth(parse(f"a > {bound}"), None, {"a": value}, {"a": kind})


# In rules


def test_a_bare_column_fires_for_a_row_that_enters_stays_or_leaves() -> None:
    bound = Bound(FULL, [rule_when("status = 'published'")])
    assert bound.update(b"1", b"published", old=[b"1", b"draft"])
    assert bound.update(b"1", b"published", old=[b"1", b"published"])
    assert bound.update(b"1", b"draft", old=[b"1", b"published"])
    assert bound.update(b"1", b"draft", old=[b"1", b"draft"]) == {}
    assert bound.insert(b"1", b"published")
    assert bound.insert(b"1", None) == {}
    assert bound.delete(old=[b"1", b"published"])
    assert bound.delete(old=[b"1", b"draft"]) == {}
    assert bound.state.condition_false == 3
    assert sum(bound.state.matches.values()) == 5


def test_new_and_old_narrow_to_one_image() -> None:
    bound = Bound(FULL, [rule_when("old.status = 'draft' and new.status = 'published'")])
    assert bound.update(b"1", b"published", old=[b"1", b"draft"])
    assert bound.update(b"1", b"draft", old=[b"1", b"published"]) == {}
    assert bound.insert(b"1", b"published") == {}
    assert Bound(FULL, [rule_when("old.status is null")]).insert(b"1", b"x")


def test_an_old_value_that_was_not_sent_may_have_been_anything() -> None:
    bound = Bound(DEFAULT, [rule_when("status = 'published'")])
    assert bound.update(b"1", b"draft")
    assert bound.delete(key=[b"1", None])
    assert bound.insert(b"1", b"draft") == {}
    narrow = Bound(DEFAULT, [rule_when("new.status = 'published' and old.status = 'draft'")])
    assert narrow.update(b"1", b"published")
    assert narrow.update(b"1", b"draft") == {}


def test_a_value_that_was_not_sent_again_may_be_anything() -> None:
    bound = Bound(DEFAULT, [rule_when("new.status = 'published' and new.id = '1'")])
    assert bound.update(b"1", UNCHANGED)
    assert bound.update(b"2", UNCHANGED) == {}
    assert Bound(DEFAULT, [rule_when("not new.status = 'published'")]).update(b"1", UNCHANGED)
    full = Bound(FULL, [rule_when("new.status = 'published'")])
    assert full.update(b"1", UNCHANGED, old=[b"1", b"published"])
    assert full.update(b"1", UNCHANGED, old=[b"1", b"draft"]) == {}


def test_changed_in_a_condition_is_what_changed_of_a_rule_is() -> None:
    for relation in (FULL, DEFAULT):
        for name in ("id", "status"):
            own = Bound(relation, [make_rule(keys=["a:{new.id}"], changed=[name])])
            asked = Bound(relation, [replace(make_rule(keys=["a:{new.id}"]), when=parse(f"changed({name})"))])
            for before, after in itertools.product([b"1", b"2"], repeat=2):
                for text in (b"x", UNCHANGED):
                    row, old = [after, text], [before, b"x"]
                    sent: dict[str, Any] = {"old": old} if relation is FULL else {}
                    if relation is DEFAULT and before != after:
                        sent = {"key": key_of(relation, old)}
                    assert own.update(*row, **sent) == asked.update(*row, **sent)
            assert own.state.unchanged == asked.state.condition_false


def test_changed_and_when_must_both_hold() -> None:
    bound = Bound(FULL, [rule_when("new.status = 'published'", changed=["status"])])
    assert bound.update(b"1", b"published", old=[b"1", b"draft"])
    assert bound.update(b"1", b"published", old=[b"2", b"published"]) == {}
    assert bound.update(b"1", b"draft", old=[b"1", b"published"]) == {}
    assert (bound.state.unchanged, bound.state.condition_false) == (1, 1)


def test_numbers_are_compared_as_numbers() -> None:
    relation = typed(make_relation("id", "price", replica_identity="f"), price=1700)
    bound = Bound(relation, [rule_when("price = 1 or price > 9.5")])
    assert bound.insert(b"1", b"1.00")
    assert bound.insert(b"1", b"10")
    assert bound.insert(b"1", b"9.4999999999999999999999999999") == {}
    assert bound.insert(b"1", b"9.5000000000000000000000000001")
    assert bound.insert(b"1", b"NaN")
    assert bound.insert(b"1", None) == {}


def test_a_value_that_is_none_of_its_type_widens() -> None:
    relation = typed(make_relation("id", "price"), price=1700)
    bound = Bound(relation, [rule_when("new.price > 1")])
    assert bound.insert(b"1", b"no number")["tags"] == {b"articles"}
    assert bound.state.errors == {WidenReason.RULE_ERROR: 1}


def test_a_condition_that_does_not_fit_the_types_widens_and_is_never_false_in_silence() -> None:
    relation = typed(DEFAULT, status=23)
    bound = Bound(relation, [rule_when("status = 'published'")])
    assert bound.insert(b"1", b"5") == {"keys": {b"a:1"}, "tags": {b"articles"}}
    assert bound.state.widened == {WidenReason.RULE_ERROR: 1}
    assert bound.state.errors == {WidenReason.RULE_ERROR: 1}


def test_a_condition_over_a_missing_column_widens() -> None:
    bound = Bound(DEFAULT, [rule_when("gone = 'x'")])
    assert bound.insert(b"1", b"5") == {"keys": {b"a:1"}, "tags": {b"articles"}}
    assert bound.state.widened == {WidenReason.MISSING_COLUMN: 1}


def test_only_null_and_change_are_asked_of_a_type_with_an_equality_of_its_own() -> None:
    columns = (Column("id", 23, True), Column("email", 16400, False, base_oid=OPAQUE_OID))
    relation = replace(DEFAULT, columns=columns, replica_identity="f")
    assert Bound(relation, [rule_when("email is not null and changed(email)")]).insert(b"1", b"x")
    assert Bound(relation, [rule_when("email = 'x'")]).insert(b"1", b"y")["tags"] == {b"articles"}
    mood = replace(relation, columns=(columns[0], Column("email", 16401, False, base_oid=ENUM_OID)))
    assert Bound(mood, [rule_when("email = 'x'")]).insert(b"1", b"y") == {}


def test_names_that_are_no_python_are_only_names() -> None:
    odd = 'a"; import os #'
    relation = make_relation("id", odd, "class", "None", replica_identity="f")
    text = '"a""; import os #" = \'x\' and new.class = \'y\' and old."None" is null'
    bound = Bound(relation, [rule_when(text)])
    assert bound.insert(b"1", b"x", b"y", None)
    assert bound.insert(b"1", b"x", b"z", None) == {}


ODD = {f"{name}'\"); import os #": kind for name, kind in TABLE.items()}


@settings(max_examples=100, deadline=None)
@given(conditions(ODD))
def test_nothing_but_names_of_our_own_enters_the_source_of_a_row_function(node: Node) -> None:
    relation = make_relation(*ODD, replica_identity="f")
    for form in (reading.INSERT, *reading.UPDATE.values(), *reading.DELETE.values()):
        images = reading.Images(form, relation, careful=False)
        source = condition_source(Condition("", node), ODD, images, Namespace({}).name)
        assert re.fullmatch(r"([nox][0-9]+|if|else|and|is|not|True|False|[(), ])+", str(source))


# Explanations


@pytest.mark.parametrize(
    ("text", "old", "new", "told"),
    [
        ("status = 'x'", {"status": b"x"}, {"status": b"y"}, "true for the old row"),
        ("status = 'x'", {"status": b"x"}, {"status": b"x"}, "true for both rows"),
        ("status = 'x'", {"status": b"y"}, {"status": b"y"}, "false"),
        ("status = 'x'", {}, {"status": b"y"}, "may be true, because old.status was not sent"),
        ("status = 'x'", None, {"status": b"x"}, "true"),
        ("new.status = 'x'", {"status": b"x"}, None, "false"),
        (
            "new.status = 'x' and changed(id)",
            {},
            {"status": b"x", "id": b"1"},
            "may be true (new.status = 'x': true; changed(id): may be true, because old.id was not sent)",
        ),
        (
            "not new.status = 'x' or id = 1",
            {"id": b"1", "status": b"x"},
            {"id": b"2", "status": b"x"},
            "true (not new.status = 'x': false; id = 1: true for the old row)",
        ),
        (
            " or ".join(["id = 1", *["id = 2"] * 13]),
            None,
            {"id": b"1", "status": b"x"},
            f"true (id = 1: true; {'id = 2: false; ' * 11}and 2 more)",
        ),
    ],
)
def test_the_truth_is_told_with_its_parts(text: str, old: Any, new: Any, told: str) -> None:
    assert condition.explain(parse(text), old, new, {"status": Kind.TEXT, "id": Kind.INTEGER}) == told
