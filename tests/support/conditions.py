"""Random conditions over typed columns, and rows for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hypothesis import strategies as st

from invalidator.rules.condition.kinds import NUMBERS, ORDERED, Kind, common_kind
from invalidator.rules.condition.tree import (
    All,
    AnyOf,
    Changed,
    Column,
    Comparison,
    Membership,
    Node,
    Not,
    Operator,
    Scope,
    Truth,
    Value,
)

TABLE: Mapping[str, Kind] = {
    "flag": Kind.BOOLEAN,
    "number": Kind.INTEGER,
    "other": Kind.INTEGER,
    "price": Kind.NUMERIC,
    "ratio": Kind.DOUBLE,
    "small": Kind.REAL,
    "status": Kind.TEXT,
    "code": Kind.PADDED,
    "uid": Kind.UUID,
    "day": Kind.DATE,
    "clock": Kind.TIME,
    "at": Kind.TIMESTAMP,
    "moment": Kind.TIMESTAMPTZ,
    "mood": Kind.ENUM,
}
TYPES: Mapping[Kind, str] = {
    Kind.BOOLEAN: "boolean",
    Kind.INTEGER: "bigint",
    Kind.NUMERIC: "numeric",
    Kind.DOUBLE: "double precision",
    Kind.REAL: "real",
    Kind.TEXT: "text",
    Kind.PADDED: "char(4)",
    Kind.UUID: "uuid",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamptz",
    Kind.ENUM: "mood",
}
NIL = "00000000-0000-0000-0000-000000000000"
VALUES: Mapping[Kind, Sequence[str]] = {
    Kind.BOOLEAN: ["t", "f"],
    Kind.INTEGER: ["0", "1", "-1", "9", "10", "16777216", "16777217", "9007199254740992", "9007199254740993",
                   "-9223372036854775808"],
    Kind.NUMERIC: ["0", "1", "1.0", "1.00", "-0.5", "0.1", "9", "9007199254740993.5", "9007199254740993.6", "NaN"],
    Kind.DOUBLE: ["0", "-0", "1", "9", "0.1", "0.10000000149011612", "1e+300", "-1e-300", "9007199254740992",
                  "NaN", "Infinity", "-Infinity"],
    Kind.REAL: ["0", "1", "9", "0.1", "1.6777216e+07", "1e+30", "NaN", "Infinity", "-Infinity"],
    Kind.TEXT: ["", "a", "A", "a ", "a   ", "ab", " a", "ä", "null", "10", "it's", "x\\y", "%"],
    Kind.PADDED: ["", "a", "a   ", "ab", " a", "A"],
    Kind.UUID: [NIL, "0d9e3f1a-7c1f-4c36-9a52-3f4f4c1f5f0e", "ffffffff-0000-0000-0000-000000000000"],
    Kind.DATE: ["2026-05-01", "2026-12-31", "1999-01-01", "0900-02-28"],
    Kind.TIME: ["00:00:00", "13:45:00", "13:45:00.5", "13:45:00.51", "23:59:59.999999"],
    Kind.TIMESTAMP: ["2026-05-01 00:00:00", "2026-05-01 13:45:00", "2026-05-01 13:45:00.5", "1999-12-31 23:59:59.99"],
    Kind.TIMESTAMPTZ: ["2026-05-01 00:00:00+00", "2026-05-01 13:45:00+00", "2026-05-01 13:45:00.5+00",
                       "1999-12-31 23:59:59+00"],
    Kind.ENUM: ["sad", "ok", "happy"],
}  # fmt: skip
"""As Postgres prints them, but for the blanks of ``char(n)``; beyond what Python's datetime reads: FAR."""
WRITTEN: Mapping[Kind, Sequence[str]] = {
    Kind.UUID: ["{0D9E3F1A-7C1F-4C36-9A52-3F4F4C1F5F0E}", "0d9e3f1a7c1f4c369a523f4f4c1f5f0e"],
    Kind.TIME: ["13:45"],
    Kind.TIMESTAMP: ["2026-05-01", "2026-05-01T13:45"],
    Kind.TIMESTAMPTZ: ["2026-05-01", "2026-05-01 15:45:00+02", "2026-04-30T22:45:00.50-15:00", "2026-05-01 13:45Z"],
}
"""Other spellings of them, for conditions."""
FAR: Mapping[Kind, Sequence[str]] = {
    Kind.NUMERIC: ["Infinity", "-Infinity"],  # since Postgres 14
    Kind.TIME: ["24:00:00"],
    Kind.DATE: ["infinity", "-infinity", "0044-03-15 BC", "0044-03-16 BC", "0001-01-01 BC", "12026-05-01"],
    Kind.TIMESTAMP: [
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00 BC",
        "0001-12-31 23:00:00 BC",
        "12026-05-01 00:00:00",
    ],
    Kind.TIMESTAMPTZ: ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12026-05-01 00:00:00+00"],
}


def written_values(kind: Kind, *, far: bool = False) -> st.SearchStrategy[Value]:
    if kind is Kind.BOOLEAN:
        return st.sampled_from([Value("true", "boolean"), Value("false", "boolean"), Value("t", "text")])
    texts = [*VALUES[kind], *WRITTEN.get(kind, ()), *(FAR.get(kind, ()) if far else ())]
    return st.sampled_from([Value(text, "number" if kind in NUMBERS and _is_plain(text) else "text") for text in texts])


def _is_plain(number: str) -> bool:
    return number.lstrip("-")[:1].isdigit()


NULL = Value("null", "null")
EQUALITY: Sequence[Operator] = ("=", "!=")
ORDER: Sequence[Operator] = ("<", "<=", ">", ">=")
SCOPES: Sequence[Scope] = ("row", "new", "old")


def terms(kinds: Mapping[str, Kind], scopes: Sequence[Scope], *, far: bool) -> st.SearchStrategy[Node]:
    return st.one_of([term for name in sorted(kinds) for term in _about(name, kinds, scopes, far=far)])


def _about(
    name: str, kinds: Mapping[str, Kind], scopes: Sequence[Scope], *, far: bool
) -> Iterator[st.SearchStrategy[Node]]:
    """All kinds of terms about one column."""
    kind = kinds[name]
    column = st.sampled_from([Column(scope, name) for scope in scopes])
    operator = st.sampled_from([*EQUALITY, *(ORDER if kind in ORDERED else ())])
    value = written_values(kind, far=far)
    friends = [other for other, its in kinds.items() if common_kind((its, kind)) is not None]
    friend = st.sampled_from([Column(scope, other) for other in friends for scope in scopes])
    yield st.tuples(operator, column, value).map(lambda parts: Comparison(*parts))
    yield st.tuples(operator, column, friend).map(lambda parts: Comparison(*parts))
    yield st.tuples(st.sampled_from(EQUALITY), column, st.just(NULL)).map(lambda parts: Comparison(*parts))
    values = st.lists(value | st.just(NULL), min_size=1, max_size=6)
    yield st.tuples(column, values).map(lambda parts: Membership(parts[0], tuple(parts[1])))
    if kind is Kind.BOOLEAN:
        yield column.map(Truth)
    if len(scopes) > 1:
        other = st.sampled_from([(), *((Column("new", its),) for its in sorted(kinds))])
        yield other.map(lambda columns: Changed((Column("new", name), *columns)))


def conditions(
    kinds: Mapping[str, Kind], scopes: Sequence[Scope] = SCOPES, *, far: bool = False
) -> st.SearchStrategy[Node]:
    return st.recursive(
        terms(kinds, scopes, far=far),
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: All(tuple(parts))),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        ),
        max_leaves=6,
    )
