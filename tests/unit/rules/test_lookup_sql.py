"""The SQL of a lookup: what is a placeholder, what is refused and where, and how it is wrapped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.rules.lookup_sql import LookupSql, Placeholder, parse_sql, wrap
from invalidator.rules.template import Reference, TemplateError

BREAK_OUT = "1) AS query; COMMIT; DROP TABLE t; SELECT 1 FROM (SELECT 2 --"
"""What a text would say that Postgres reads as SQL and we as a comment or a literal."""


def bound(text: str) -> list[str]:
    return [f"{reference.scope}.{reference.name}" for reference in parse_sql(text).parameters]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SELECT a FROM t WHERE id = {order_id}", ["row.order_id"]),
        ("select a from t where id in ({new.a}, {old.a}, {a}, { a })", ["new.a", "old.a", "row.a"]),
        ("WITH x AS (SELECT 1) SELECT * FROM x WHERE {a} = 1", ["row.a"]),
        ("VALUES ({a})", ["row.a"]),
        ("(SELECT {a}) UNION (SELECT {b})", ["row.a", "row.b"]),
        ("-- first\n/* second /* nested */ */ SELECT {a}", ["row.a"]),
        ("SELECT {meta.schema} || {meta.table}", ["meta.schema", "meta.table"]),
        ('SELECT {"Weird Name"}', ["row.Weird Name"]),
        ("SELECT a FROM t WHERE a IS DISTINCT FROM {a}", ["row.a"]),
        ("SELECT '{1,2}'::int[] || {a}", ["row.a"]),
        ("""SELECT '{"a": {"b": 1}}'::jsonb, {a}""", ["row.a"]),
        ("SELECT 'it''s; $1 %s' || {a}", ["row.a"]),
        (r"SELECT E'\'; {', {a}", ["row.a"]),
        ('SELECT "odd;""name" FROM t WHERE b = {a}', ["row.a"]),
        ("SELECT $q$; ' $1 $q$, {a}", ["row.a"]),
        ("SELECT $é\u00a0$; ' $é\u00a0$, {a}", ["row.a"]),
        ("SELECT x$1 FROM t WHERE b = {a}", ["row.a"]),
        ("SELECT 'a'\n'b' || {a}", ["row.a"]),
        ("SELECT E'a', 'b' || E'c' || {a}", ["row.a"]),
        ("SELECT 7 % 3, a[1:2], x ->> 'y', 1e5, {a}::text", ["row.a"]),
    ],
)
def test_values_in_braces_are_bound(text: str, parameters: list[str]) -> None:
    assert bound(text) == parameters


@pytest.mark.parametrize(
    ("text", "marked", "message"),
    [
        ("SELECT a FROM t WHERE x = {a};", ";", "';' cannot stand in it"),
        ("SELECT {a}; DROP TABLE t", ";", "';' cannot stand in it"),
        ("DELETE FROM t WHERE id = {a}", "DELETE", "'DELETE' begins no query"),
        ("/* SELECT */ update t set a = {a}", "update", "begins no query"),
        ("SELECT a FROM t WHERE x = $1", "$1", "no placeholder"),
        ("SELECT a FROM t WHERE x = %s", "%s", "no placeholder"),
        ("SELECT a FROM t WHERE x = %(a)s", "%(a)s", "no placeholder"),
        ("SELECT 'user {a}' || {a}", "{a}", "inside a text literal"),
        ("SELECT E'{new.a}' || {a}", "{new.a}", "inside a text literal"),
        ('SELECT "{a}" FROM t WHERE x = {b}', "{a}", "inside a quoted name"),
        ("SELECT $$ {a} $$", "{a}", "inside a dollar-quoted text"),
        ("SELECT 1 -- {a}\n", "{a}", "inside a comment"),
        ("SELECT 1 /* {a} */", "{a}", "inside a comment"),
        ("SELECT (1 + {a}", "(", "no closing ')'"),
        ("SELECT 1 + {a})", ")", "')' without '('"),
        ("SELECT {a}) AS q, t, LATERAL (SELECT 1", ")", "')' without '('"),
        ("SELECT {a|lower}", "|lower", "no filters"),
        ("SELECT {meta.op}", "{meta.op}", "of one change"),
        ("SELECT {meta.tabel}", "tabel", "unknown fact"),
        ("SELECT {order.id}", "{order.id}", "cannot ask with the result of another one"),
        ("SELECT t.{a} FROM t", "{", "cannot stand for the name"),
        ("SELECT 1 FROM t JOIN {a} ON true", "{", "cannot stand for the name"),
        ("SELECT {{a}}", "{{", "SQL has no braces"),
        ("SELECT a}", "}", "'}' without '{'"),
        ("SELECT 'open {", "'", "no closing '"),
        ('SELECT "open', '"', 'no closing "'),
        ("SELECT $x$ open", "$x$", "no closing $x$"),
        ("SELECT /* open", "/*", "no closing */"),
        ("SELECT {a", "{a", "no closing '}'"),
        (f"SELECT {{a}} --\r, {BREAK_OUT}", ")", "')' without '('"),
        (f"SELECT {{a}}, E'x'\n'\\' , {BREAK_OUT}'", "'", "behind E'…'"),
        (f"SELECT {{a}}, E'x' -- c\n'\\' , {BREAK_OUT}'", "'", "behind E'…'"),
        (f"SELECT {{a}}, b\u00a0E'\\' , {BREAK_OUT}'", ")", "')' without '('"),
        (f"SELECT {{a}}, 1E'\\' , {BREAK_OUT}'", "'", "right behind a number"),
        ("SELECT {a}, 1a$q$ ; $q$", "$", "right behind a number"),
        ("SELECT 1", "SELECT 1", "asks for nothing of the changed row"),
    ],
)
def test_a_mistake_is_told_at_its_place(text: str, marked: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_sql(text)
    error = caught.value
    assert text[error.offset : error.offset + error.width] == marked
    assert message in error.message


def test_an_empty_text_is_no_query() -> None:
    with pytest.raises(TemplateError, match="a SELECT is missing here"):
        parse_sql("  -- nothing")


def test_doubled_braces_around_a_name_stand_for_single_ones_in_text() -> None:
    sql = parse_sql("SELECT '{{a}}', '{{1,2},{3,4}}'::int[], {a}")
    assert "SELECT '{a}', '{{1,2},{3,4}}'::int[]," in wrap(sql, ["text"], limit=1).text


def test_the_statement_binds_each_value_once_and_reads_it_as_its_type() -> None:
    sql = parse_sql("SELECT x FROM t\nWHERE a = {a} AND b = {b} AND c = { a } -- end")
    wrapped = wrap(sql, ["bigint", '"Odd"."type"'], limit=10)
    assert wrapped.parameters == (Reference("row", "a"), Reference("row", "b"))
    assert wrapped.text == (
        'SELECT "invalidator input"."ord", l.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS '
        '"invalidator input"("1", "2", "ord") CROSS JOIN LATERAL (SELECT * FROM (\n'
        "SELECT x FROM t\n"
        'WHERE a = (("invalidator input"."1")::bigint) AND b = (("invalidator input"."2")::"Odd"."type") '
        'AND c = (("invalidator input"."1")::bigint) -- end\n'
        ") AS q LIMIT 11) AS l"
    )


def test_a_place_in_the_statement_is_one_in_the_rule() -> None:
    text = "SELECT x FROM t WHERE a = {a} AND bad = '{{y}}'"
    wrapped = wrap(parse_sql(text), ["bigint"], limit=10)
    for word in ("SELECT x", "FROM t", "AND bad", "= '", "y}"):
        at = wrapped.text.index(word, wrapped.text.index("\n"))
        offset = wrapped.source_offset(at)
        assert offset is not None
        assert text.startswith(word, offset)
    inside = wrapped.source_offset(wrapped.text.index("::bigint"))
    assert inside == text.index("{a}")
    assert wrapped.source_offset(0) is None
    assert wrapped.source_offset(len(wrapped.text) - 1) is None


TOKENS = [
    "SELECT", "WITH", "x", "(", ")", "{a}", "{new.a}", "{b.c}", "{meta.table}", "{{", "}}", "{", "}", "'", '"', "$$",
    "$q$", "$1", "--", "/*", "*/", "\n", ";", "%s", "E'", "\\", "\r", "\u00a0", "1", ".", ",", "=", "é",
    "{a|lower}", " ",
]  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    sql, error = outcome(text)
    if error is not None:
        assert 0 <= error.offset <= len(text)
        assert error.width >= 1
    if sql is not None:
        check_parts(sql, text)


def outcome(text: str) -> tuple[LookupSql | None, TemplateError | None]:
    try:
        return parse_sql(text), None
    except TemplateError as error:
        return None, error


def check_parts(sql: LookupSql, text: str) -> None:
    """What is kept stands in the text in the same order, and no placeholder is left in it as text."""
    at = 0
    for part in sql.parts:
        assert part.offset >= at
        if isinstance(part, Placeholder):
            assert text[part.offset] == "{"
            at = part.offset + 1
        else:
            assert text.startswith(part.text, part.offset)
            at = part.offset + len(part.text)
    wrapped = wrap(sql, ["text"] * len(sql.parameters), limit=1)
    for at in range(len(wrapped.text)):
        offset = wrapped.source_offset(at)
        assert offset is None or 0 <= offset < len(text)
