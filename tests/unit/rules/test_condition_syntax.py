from __future__ import annotations

import pytest

from invalidator.rules.condition import ConditionError, parse
from invalidator.rules.condition.syntax import MAX_DEPTH, MAX_LENGTH, MAX_TERMS
from invalidator.rules.condition.tree import (
    All,
    AnyOf,
    Changed,
    Column,
    Comparison,
    Membership,
    Not,
    Truth,
    Value,
    terms_of,
)


def refused(text: str) -> ConditionError:
    with pytest.raises(ConditionError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("status = 'published'", Comparison("=", Column("row", "status"), Value("published", "text"))),
        ("new.a == 1", Comparison("=", Column("new", "a"), Value("1", "number"))),
        ("old.a <> -1.50", Comparison("!=", Column("old", "a"), Value("-1.50", "number"))),
        ("100 < price", Comparison(">", Column("row", "price"), Value("100", "number"))),
        ("'x' = a", Comparison("=", Column("row", "a"), Value("x", "text"))),
        ("old.price >= new.price", Comparison(">=", Column("old", "price"), Column("new", "price"))),
        ("a is null", Comparison("=", Column("row", "a"), Value("null", "null"))),
        ("a IS NOT NULL", Comparison("!=", Column("row", "a"), Value("null", "null"))),
        ("a = 'it''s'", Comparison("=", Column("row", "a"), Value("it's", "text"))),
        ("a = ''", Comparison("=", Column("row", "a"), Value("", "text"))),
        ("featured", Truth(Column("row", "featured"))),
        ("featured = true", Comparison("=", Column("row", "featured"), Value("true", "boolean"))),
        ("not featured", Not(Truth(Column("row", "featured")))),
        ("!featured", Not(Truth(Column("row", "featured")))),
        ('new."Odd ""Name"""', Truth(Column("new", 'Odd "Name"'))),
        ("new.order", Truth(Column("new", "order"))),
        ("new.in", Truth(Column("new", "in"))),
        ("changed", Truth(Column("row", "changed"))),
        ("straße = 'ß'", Comparison("=", Column("row", "straße"), Value("ß", "text"))),
        ('changed(a, "B c")', Changed((Column("new", "a"), Column("new", "B c")))),
        ("a in (1, 2)", Membership(Column("row", "a"), (Value("1", "number"), Value("2", "number")))),
        ("a in ['x', null]", Membership(Column("row", "a"), (Value("x", "text"), Value("null", "null")))),
        ("a not in ('x')", Not(Membership(Column("row", "a"), (Value("x", "text"),)))),
    ],
)
def test_a_condition_is_read(text: str, node: object) -> None:
    assert parse(text).node == node


def test_and_binds_more_tightly_than_or_and_not_most() -> None:
    a, b, c = (Truth(Column("row", name)) for name in "abc")
    assert parse("a or b and not c").node == AnyOf((a, All((b, Not(c)))))
    assert parse("(a || b) && !c").node == All((AnyOf((a, b)), Not(c)))


def test_the_same_condition_in_another_spelling_is_equal() -> None:
    first, second = parse("a=1 and(not b)"), parse("a == 1  && ! b")
    assert first == second
    assert hash(first) == hash(second)
    assert parse("a = 1") != parse("a = 2")


def test_a_condition_knows_what_it_refers_to() -> None:
    made = parse("status = 'x' and old.price < new.price and changed(slug)")
    assert made.references == {("row", "status"), ("old", "price"), ("new", "price"), ("new", "slug"), ("old", "slug")}
    assert made.columns == {"status", "price", "slug"}


@pytest.mark.parametrize(
    ("text", "marked", "message", "help"),
    [
        ("", "", "empty", "compare a column"),
        ("  ", " ", "empty", "compare a column"),
        ("a =", "=", "missing at the end", "compare a column"),
        ("a and", "and", "missing at the end", "compare a column"),
        ('status = "x"', '"x"', "double quotes", "'x'"),
        ("status = {status}", "{", "found '{'", "without braces"),
        ("new[status] = 1", "[", "'new' is no list", "new.status"),
        ("a = 1 b = 2", "b", "unexpected 'b'", "'and' or 'or'"),
        ("a 'x'", "'x'", "unexpected the text 'x'", "a = "),
        ("a is not distinct from b", "distinct", "null only", "ordinary value"),
        ("a is true", "true", "null only", "write a"),
        ("a is false", "false", "null only", "write not a"),
        ("a like 'x%'", "like", "unexpected", "no patterns"),
        ("a between 1 and 2", "between", "unexpected", "a >= 1 and a <= 9"),
        ("a + 1 = 2", "+", "unexpected", "no arithmetic"),
        ("a = -b", "-", "found '-'", "no arithmetic"),
        ("a::text = 'x'", "::", "unexpected", "no cast"),
        ("a->>'b' = 'x'", "->>", "unexpected", "JSON"),
        ("lower(a) = 'x'", "lower", "no function 'lower'", "changed(column, ...)"),
        ("a = now()", "now", "no function 'now'", "changed(column, ...)"),
        ("changed(a) = true", "=", "unexpected", None),
        ("changed(new.a)", ".", "both images", "changed(status)"),
        ("changed()", ")", "name of a column", "changed(status)"),
        ("users.a = 1", "users.", "neither 'new.' nor 'old.'", "write new."),
        ("new. = 1", "=", "expected a column after 'new.'", None),
        ("a in ()", ")", "the list is empty", None),
        ("a in 'x'", "'x'", "expected '('", "in ('a', 'b')"),
        ("a in (b)", "b", "'b' is a column", "'b'"),
        ("a in (1", "(", "no closing ')'", None),
        ("(a", "(", "no closing ')'", None),
        ("a)", ")", "')' without '('", None),
        ("a = 'x", "'x", "no closing '", "write '' for a quote inside"),
        ("a = 12x", "12x", "'12x' is no number", "single quotes"),
        ("a = ٣", "٣", "'٣' is no number", "single quotes"),
        ("1 < a < 3", "<", "two comparisons in a row", "'and'"),
        ("1 = 2", "=", "two values", "compare a column"),
        ("a < null", "<", "less or more than null", "a is null"),
        ("true", "true", "stands alone", "compare a column"),
        ("a === 1", "===", "unexpected", "write '='"),
        ("a;", ";", "unexpected", "one expression"),
        ("a = 1e999", "1e999", "digits", None),
        ("a = “x”", "“", "found", "straight quotes"),
        ('a = ""', '""', "empty column name", "''"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_write(
    text: str, marked: str, message: str, help: str | None
) -> None:
    error = refused(text)
    assert message in error.message
    assert text[error.offset : error.offset + error.width] == marked
    assert (help is None) == (error.help is None)
    assert (help or "") in (error.help or "")
    assert error.code == "condition-syntax"


@pytest.mark.parametrize(
    "text",
    ["a 'not' in ('x')", "a \"not\" in ('x')", "a not 'in' ('x')", "a not \"in\" ('x')", "changed '(' a)", '"-" 5 = a'],
)
def test_quoted_words_and_signs_are_no_operators(text: str) -> None:
    with pytest.raises(ConditionError):
        parse(text)


def test_depth_and_length_are_bounded() -> None:
    assert parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH).node == Truth(Column("row", "a"))
    assert refused("(" * (MAX_DEPTH + 1) + "a").offset == MAX_DEPTH
    assert "parentheses" in refused("not " * 900 + "a").message
    assert refused("(" * 10_000).offset == MAX_LENGTH
    assert len(list(terms_of(parse(" or ".join(["a = 1"] * MAX_TERMS)).node))) == MAX_TERMS
    error = refused(" or ".join(["a = 1"] * (MAX_TERMS + 1)))
    assert ("comparisons" in error.message, error.offset) == (True, MAX_TERMS * len("a = 1 or "))
