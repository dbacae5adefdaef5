from __future__ import annotations

import pytest

from invalidator.rules.condition import ColumnType, Kind, parse, sql, type_problems
from invalidator.rules.condition.values import DECODERS, Misfit, canonical
from tests.support.conditions import VALUES, WRITTEN

COLUMNS = {
    "published": ColumnType(Kind.BOOLEAN, "boolean"),
    "number": ColumnType(Kind.INTEGER, "bigint"),
    "price": ColumnType(Kind.NUMERIC, "numeric(9,2)"),
    "ratio": ColumnType(Kind.DOUBLE, "double precision"),
    "small": ColumnType(Kind.REAL, "real"),
    "status": ColumnType(Kind.TEXT, "text"),
    "code": ColumnType(Kind.PADDED, "character(4)"),
    "uid": ColumnType(Kind.UUID, "uuid"),
    "day": ColumnType(Kind.DATE, "date"),
    "clock": ColumnType(Kind.TIME, "time without time zone"),
    "at": ColumnType(Kind.TIMESTAMP, "timestamp without time zone"),
    "moment": ColumnType(Kind.TIMESTAMPTZ, "timestamp with time zone"),
    "mood": ColumnType(Kind.ENUM, "mood", ("sad", "ok", "happy")),
    "feeling": ColumnType(Kind.ENUM, "feeling", ("sad",)),
    "custom": ColumnType(Kind.UNKNOWN),
    "meta": ColumnType(Kind.OPAQUE, "jsonb"),
}


@pytest.mark.parametrize(
    "text",
    [
        "published and not published = false and published != null",
        "number = 1 and number > -1.0 and number in (1, '2', null) and number < 9223372036854775807",
        "price >= 0.10000000000000000000000001 and price = 1e3 and price != 'NaN'",
        "ratio < '-Infinity' or ratio = 1e-300 or small = 0.1",
        "status = '10' and status in ('a', 'b') and status = code and custom = status",
        "uid = '{0D9E3F1A-7C1F-4C36-9A52-3F4F4C1F5F0E}' and uid > '00000000-0000-0000-0000-000000000000'",
        "day > '2026-02-28' and day < 'infinity' and at >= '2026-05-01T13:45' and clock < '24:00'",
        "moment >= '2026-05-01 15:45:00.5+02:00' or moment = '0044-03-15 BC'",
        "mood in ('sad', 'happy') and mood != null",
        "number = price and ratio > number and small <= price",
        "meta is null and changed(meta, number)",
        "custom = 'x' and custom != 1",
    ],
)
def test_what_a_column_can_hold_fits(text: str) -> None:
    assert type_problems(parse(text), COLUMNS) == []


@pytest.mark.parametrize(
    ("text", "marked", "message", "help"),
    [
        ("statsu = 'x'", "statsu", "no column 'statsu'", "did you mean 'status'?"),
        ("status = draft", "draft", "no column 'draft'", "single quotes: 'draft'; did you mean 'ratio'?"),
        ("status = hidden", "hidden", "no column 'hidden'", "single quotes: 'hidden'; columns: published"),
        ("new.price > old.prize", "old.prize", "no column 'prize'", "did you mean 'price'?"),
        ("changed(title)", "title", "no column 'title'", "columns: published, number"),
        ("new.statsu = 'x'", "new.statsu", "no column 'statsu'", "did you mean 'status'?"),
        ("number = 'abc'", "'abc'", "'number' is a number, compared with the text 'abc'", "without quotes"),
        ("number = 1.5", "1.5", "bigint, compared with the number 1.5", "whole numbers"),
        ("number < 9223372036854775808", "9223372036854775808", "bigint", "as large as this"),
        ("number = true", "true", "compared with the boolean true", "a number without quotes"),
        ("ratio = 1e400", "1e400", "double precision", "as large or as small"),
        ("small = 1e39", "1e39", "real", "as large or as small"),
        ("small = 1e-46", "1e-46", "real", "as large or as small"),
        ("price = 'many'", "'many'", "'price' is a number", "without quotes"),
        ("status = 10", "10", "text, compared with the number 10", "quotes: '10'"),
        ("status = true", "true", "compared with the boolean true", "single quotes"),
        ("published = 'maybe'", "'maybe'", "boolean, compared", "true or false"),
        ("published = 1", "1", "boolean, compared with the number 1", "true or false"),
        ("status", "status", "only a boolean column", "status = '…', or write status is not null"),
        ("not number", "number", "only a boolean column", "number = 1"),
        ("custom", "custom", "not known whether", "custom = 't'"),
        ("uid = '0d9e'", "'0d9e'", "uuid", "0d9e3f1a-7c1f"),
        ("day = '2026-02-29'", "'2026-02-29'", "date, compared", "no such day"),
        ("day = 'today'", "'today'", "date, compared", "read only once"),
        ("day = '2026-05-01 10:00'", "'2026-05-01 10:00'", "date, compared", "without a time"),
        ("day = '5874898-01-01'", "'5874898-01-01'", "date, compared", "this year"),
        ("at = '2026-05-01 10:00+02'", "'2026-05-01 10:00+02'", "timestamp without", "no time zone"),
        ("at = '2026-05-01 25:00'", "'2026-05-01 25:00'", "timestamp without", "no such time"),
        ("moment = 'now'", "'now'", "timestamp with", "read only once"),
        ("moment = '2026-05-01 10:00+16'", "'2026-05-01 10:00+16'", "timestamp with", "no such time zone"),
        ("moment = '2026-05-01 10:00+101010'", "'2026-05-01 10:00+101010'", "timestamp with", "13:45:00+00"),
        ("moment > 1777777777", "1777777777", "compared with the number", None),
        ("clock = '1:45'", "'1:45'", "time without", "13:45"),
        ("mood = 'hapy'", "'hapy'", "no label of mood", "did you mean 'happy'? labels: 'sad', 'ok', 'happy'"),
        ("mood in ('sad', 'x')", "'x'", "no label of mood", "labels: 'sad'"),
        ("mood < 'ok'", "mood", "the order in which its labels", "mood in ('a', 'b')"),
        ("status > 'a'", "status", "depend on the collation", "status in ('a', 'b')"),
        ("published > false", "published", "has no meaning", "published in"),
        ("meta = '{}'", "meta", "only ask whether it is null or has changed", "changed(meta)"),
        ("number = status", "status", "'number' is bigint, compared with column 'status', which is text", None),
        ("mood = feeling", "feeling", "'mood' is mood, compared with column 'feeling'", None),
        ("day < at", "at", "'day' is date, compared with column 'at'", None),
        ("number = meta", "meta", "only ask whether it is null", "changed(meta)"),
    ],
)
def test_what_it_cannot_hold_is_told_with_its_place_and_what_to_write(
    text: str, marked: str, message: str, help: str | None
) -> None:
    (problem,) = type_problems(parse(text), COLUMNS)
    assert text[problem.offset : problem.offset + problem.width] == marked
    assert message in problem.message
    assert (help is None) == (problem.help is None)
    assert (help or "") in (problem.help or "")
    assert problem.code == ("unknown-column" if "no column" in message else "condition-type")


def test_all_problems_are_told_in_the_order_of_the_text() -> None:
    text = "number = 'x' or (gone = 1 and status in (1, 'a', 2))"
    problems = type_problems(parse(text), COLUMNS)
    assert [text[problem.offset :][: problem.width] for problem in problems] == ["'x'", "gone", "1", "2"]


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_as_postgres_prints_it_is_taken_as_it_is(kind: Kind) -> None:
    """Else ``=`` over the bytes would be false."""
    decode = DECODERS.get(kind, bytes)
    for text in VALUES[kind]:
        made = canonical(parse(f"a = '{text.replace(chr(39), chr(39) * 2)}'").node.right, kind)  # type: ignore[union-attr,arg-type]
        assert made is not None
        assert decode(made) == decode(text.encode()), text


@pytest.mark.parametrize(
    ("kind", "written", "printed"),
    [
        (Kind.BOOLEAN, "TRUE", "t"),
        (Kind.INTEGER, "+007", "7"),
        (Kind.UUID, WRITTEN[Kind.UUID][0], "0d9e3f1a-7c1f-4c36-9a52-3f4f4c1f5f0e"),
        (Kind.PADDED, "ab  ", "ab"),
        (Kind.TIME, "13:45", "13:45:00"),
        (Kind.TIME, "13:45:00.500", "13:45:00.5"),
        (Kind.DATE, " 2026-05-01 ", "2026-05-01"),
        (Kind.TIMESTAMP, "2026-05-01", "2026-05-01 00:00:00"),
        (Kind.TIMESTAMP, "12026-05-01T00:00:00.000001", "12026-05-01 00:00:00.000001"),
        (Kind.TIMESTAMPTZ, "2026-05-01 01:00+02", "2026-04-30 23:00:00+00"),
        (Kind.TIMESTAMPTZ, "0001-01-01 00:00:00+00:01", "0001-12-31 23:59:00+00 BC"),
        (Kind.TIMESTAMPTZ, "2024-12-31 23:00-0130", "2025-01-01 00:30:00+00"),
    ],
)
def test_another_spelling_becomes_the_one_that_postgres_prints(kind: Kind, written: str, printed: str) -> None:
    made = parse(f"a = '{written}'")
    assert canonical(made.node.right, kind) == printed.encode()  # type: ignore[union-attr,arg-type]


def test_a_literal_in_sql_is_quoted_and_fits_into_any_integer_column() -> None:
    kinds = {"a": Kind.TEXT, "n": Kind.INTEGER, 'b"c': Kind.TEXT}
    made = parse("a = 'it''s' and n in (99999999999, null) and new.\"b\"\"c\" = '\\'")
    assert sql(made, kinds) == (
        '(("a" IS NOT DISTINCT FROM \'it\'\'s\') AND (coalesce("n" IN ((99999999999)), false) OR "n" IS NULL)'
        ' AND ("b""c" IS NOT DISTINCT FROM  E\'\\\\\'))'
    )


def test_a_number_is_no_text_and_a_text_no_boolean() -> None:
    for text, kind in (("a = 1", Kind.TEXT), ("a = true", Kind.INTEGER), ("a = 1", Kind.UUID)):
        with pytest.raises(Misfit):
            canonical(parse(text).node.right, kind)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize(("type_name", "bound"), [("smallint", 1 << 15), ("integer", 1 << 31), ("bigint", 1 << 63)])
def test_a_number_that_the_column_is_too_narrow_for_is_told(type_name: str, bound: int) -> None:
    columns = {"id": ColumnType(Kind.INTEGER, type_name)}
    for fitting in (bound - 1, -bound):
        assert type_problems(parse(f"id = {fitting}"), columns) == []
    for wrong in (bound, -bound - 1):
        [problem] = type_problems(parse(f"id in (1, {wrong})"), columns)
        assert (problem.code, problem.offset, problem.width) == ("condition-type", 10, len(str(wrong)))
        assert f"compared with the number {wrong}" in str(problem)
