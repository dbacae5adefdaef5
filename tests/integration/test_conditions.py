"""Conditions beside what Postgres itself says, on the types and texts that it really sends."""

# ruff: noqa: S608  (the statements are of our own words)

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from invalidator.model import ENUM_OID, OPAQUE_OID, Column, Relation
from invalidator.postgres import catalog
from invalidator.postgres.connection import _SESSION, connect
from invalidator.rules import condition
from invalidator.rules.condition import ColumnType, Condition, Kind, parse, sql, type_problems
from invalidator.rules.condition.code import compile_condition
from invalidator.rules.condition.explanation import _Known
from invalidator.rules.condition.tree import Node, Scope
from tests.support.conditions import EQUALITY, FAR, ORDER, TABLE, TYPES, VALUES, conditions
from tests.support.postgres import Database

ROWS = 120
BATCH = 40
CONDITIONS = int(os.environ.get("FUZZ_EXAMPLES", "400"))
FUZZ = settings(
    max_examples=max(1, CONDITIONS // BATCH),
    deadline=None,
    phases=[Phase.generate],  # a failure names the one condition; to shrink the other thirty-nine takes minutes
    suppress_health_check=list(HealthCheck),
)
Row = dict[str, bytes | None]


@contextmanager
def session(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A session with the settings of the daemon's, in a database with other ones."""
    database.execute(f"ALTER DATABASE \"{database.name}\" SET TimeZone = 'Asia/Kathmandu'")
    database.execute(f"ALTER DATABASE \"{database.name}\" SET DateStyle = 'German, DMY'")
    database.execute(f'ALTER DATABASE "{database.name}" SET extra_float_digits = -5')
    options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    with psycopg.connect(database.dsn, options=options, prepare_threshold=None, autocommit=True) as connection:
        yield connection


def sent(connection: psycopg.Connection[Any], query: str) -> list[Row]:
    """The rows of a query with the texts that the stream has: COPY too prints by the types' output functions."""
    names = [column.name for column in connection.execute(f"{query} LIMIT 0").description or ()]
    with connection.cursor().copy(f"COPY ({query}) TO STDOUT") as copy:
        return [
            {name: None if text is None else text.encode() for name, text in zip(names, row, strict=True)}
            for row in copy.rows()
        ]


def make_table(connection: psycopg.Connection[Any]) -> list[Row]:
    """A table of every kind with random rows, and the rows as the stream would send them."""
    columns = ", ".join(f"{name} {TYPES[kind]}" for name, kind in TABLE.items())
    connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
    connection.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    source = random.Random(7)  # noqa: S311
    values = {kind: [*VALUES[kind], *FAR.get(kind, ()), None] for kind in TYPES}
    marks = ", ".join(f"%s::{TYPES[kind]}" for kind in TABLE.values())
    for number in range(ROWS):
        row = [source.choice(values[kind]) for kind in TABLE.values()]
        connection.execute(f"INSERT INTO t VALUES (%s, {marks})", [number, *row])
    return sent(connection, f"SELECT {', '.join(TABLE)} FROM t ORDER BY id")


def compiled(
    made: Condition, kinds: Mapping[str, Kind], old: Row | None, new: Row | None
) -> Callable[[Row | None, Row | None], set[bool]]:
    """What both forms say of rows with the images and columns of these: compiled once for all."""
    forms = compile_condition(made, kinds, _Known(old, new))

    def ask(old: Row | None, new: Row | None) -> set[bool]:
        values = _Known(old, new).arguments()
        arguments = [values[name] for name in forms.arguments]
        return {form if isinstance(form, bool) else bool(form(*arguments)) for form in (forms.exact, forms.may)}

    return ask


def test_a_condition_is_true_for_exactly_the_rows_that_postgres_says(database: Database) -> None:
    with session(database) as connection:
        rows = make_table(connection)

        @FUZZ
        @given(st.lists(conditions(TABLE, ["row"], far=True), min_size=BATCH, max_size=BATCH))
        def agree(nodes: Sequence[Node]) -> None:
            asked = ", ".join(sql(Condition("", node), TABLE) for node in nodes)
            answers = connection.execute(f"SELECT ARRAY[{asked}] FROM t ORDER BY id").fetchall()
            for number, node in enumerate(nodes):
                ask = compiled(Condition("", node), TABLE, None, rows[0])
                for row, (said,) in zip(rows, answers, strict=True):
                    assert ask(None, row) == {said[number]}, (condition.written(node), row)

        agree()


def test_a_condition_over_two_images_is_true_for_exactly_the_updates_that_postgres_says(database: Database) -> None:
    """A bare column is asked for either image; Postgres is asked once for each."""
    with session(database) as connection:
        rows = make_table(connection)
        pairs = [(number, (number * 7 + number // 5) % ROWS) for number in range(ROWS)]
        connection.execute("CREATE TABLE pairs (old int, new int)")
        connection.cursor().executemany("INSERT INTO pairs VALUES (%s, %s)", pairs)
        images = "t o, t n, pairs WHERE o.id = pairs.old AND n.id = pairs.new ORDER BY pairs.old"
        tables: list[Mapping[Scope, str]] = [{"new": "n", "old": "o", "row": row} for row in ("n", "o")]

        @FUZZ
        @given(st.lists(conditions(TABLE, far=True), min_size=BATCH, max_size=BATCH))
        def agree(nodes: Sequence[Node]) -> None:
            asked = (" OR ".join(sql(Condition("", node), TABLE, tables=its) for its in tables) for node in nodes)
            answers = connection.execute(f"SELECT ARRAY[{', '.join(asked)}] FROM {images}").fetchall()
            for number, node in enumerate(nodes):
                ask = compiled(Condition("", node), TABLE, rows[0], rows[0])
                for (old, new), (said,) in zip(pairs, answers, strict=True):
                    assert ask(rows[old], rows[new]) == {said[number]}, (condition.written(node), rows[old], rows[new])

        agree()


NUMBER_TYPES = {
    "smallint": (Kind.INTEGER, ["0", "1", "-1", "9"]),
    "integer": (Kind.INTEGER, ["0", "1", "16777216", "16777217"]),
    "bigint": (Kind.INTEGER, VALUES[Kind.INTEGER]),
    "numeric": (
        Kind.NUMERIC,
        [*VALUES[Kind.NUMERIC], *FAR[Kind.NUMERIC], "0.10000000000000000001", "16777217.000000001"],
    ),
    "numeric(9,2)": (Kind.NUMERIC, ["0", "1", "0.1", "-0.5", "9"]),
    "real": (Kind.REAL, VALUES[Kind.REAL]),
    "float8": (Kind.DOUBLE, [*VALUES[Kind.DOUBLE], "16777217", "0.3"]),
}
TEXT_TYPES = {
    "text": (Kind.TEXT, VALUES[Kind.TEXT]),
    "varchar(9)": (Kind.TEXT, VALUES[Kind.TEXT]),
    "name": (Kind.TEXT, VALUES[Kind.TEXT]),
    "char(4)": (Kind.PADDED, VALUES[Kind.PADDED]),
    "char(9)": (Kind.PADDED, VALUES[Kind.PADDED]),
}


@pytest.mark.parametrize(
    ("types", "operators"), [(NUMBER_TYPES, [*EQUALITY, *ORDER]), (TEXT_TYPES, EQUALITY)], ids=["numbers", "texts"]
)
def test_columns_of_any_two_types_are_compared_as_postgres_does(
    database: Database, types: Mapping[str, tuple[Kind, Sequence[str]]], operators: Sequence[str]
) -> None:
    """All pairs of values, not random ones."""
    with session(database) as connection:
        for (first, (left, lefts)), (second, (right, rights)) in itertools.product(types.items(), repeat=2):
            kinds = {"a": left, "b": right}
            table = f"(SELECT a::{first}, b::{second} FROM unnest(%s::text[]) a, unnest(%s::text[]) b)"
            connection.execute(f"CREATE TEMP TABLE pair AS {table}", [[*lefts, None], [*rights, None]])
            asked = [parse(f"a {operator} b") for operator in operators]
            answers = connection.execute(f"SELECT {', '.join(sql(made, kinds) for made in asked)} FROM pair").fetchall()
            rows = sent(connection, "SELECT a, b FROM pair")
            asks = [compiled(made, kinds, None, rows[0]) for made in asked]
            for row, said in zip(rows, answers, strict=True):
                assert [ask(None, row) for ask in asks] == [{answer} for answer in said], (first, second, row)
            connection.execute("DROP TABLE pair")


NUMBERS = st.from_regex(
    r"[+-]?([0-9]{1,25}(\.[0-9]{0,25})?|\.[0-9]{1,25})([eE][+-]?[0-9]{1,2})?|[+-]?Infinity|NaN", fullmatch=True
)
YEARS = st.one_of(st.integers(1, 2100), st.integers(1, 294_277))
DAYS = st.builds("{:04d}-{:02d}-{:02d}".format, YEARS, st.integers(1, 12), st.integers(1, 31))
ERAS = st.sampled_from(["", "", " BC"])
CLOCKS = st.builds(lambda time, digits: str(time)[:digits].rstrip("."), st.times(), st.sampled_from([5, 8, 12, 15]))
ZONES = st.sampled_from(
    ["", "Z", " z", "+02", " -07", "+0545", " -15:59", "-00:00", "+15:59:59", "-10:14:45", "-101445", "-1014:45"]
)
SPELLINGS = {
    Kind.INTEGER: st.from_regex(r"[+-]?[0-9]{1,19}(\.0{0,3})?|[1-9](\.[0-9])?[eE][+]?[0-9]", fullmatch=True),
    Kind.NUMERIC: NUMBERS,
    Kind.REAL: NUMBERS,
    Kind.DOUBLE: NUMBERS,
    Kind.UUID: st.builds(
        lambda uuid, size: "-".join(uuid.hex[at : at + size] for at in range(0, 32, size)),
        st.uuids(), st.sampled_from([4, 8, 12, 32]),
    ),
    Kind.DATE: st.builds("{}{}".format, DAYS, ERAS),
    Kind.TIME: CLOCKS,
    Kind.TIMESTAMP: st.builds("{}{}{}{}".format, DAYS, st.sampled_from("T "), CLOCKS, ERAS),
    Kind.TIMESTAMPTZ: st.builds("{}{}{}{}{}".format, DAYS, st.sampled_from("T "), CLOCKS, ZONES, ERAS),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_written_value_is_read_as_postgres_reads_it(database: Database, kind: Kind) -> None:
    """What we take, Postgres takes; and prints as what it is compared with."""
    type_name = "numeric::bigint" if kind is Kind.INTEGER else TYPES[kind]  # a bigint takes no 1.0 in quotes

    def fits(text: str) -> bool:
        return not type_problems(parse(f"a = '{text}'"), {"a": ColumnType(kind)})

    with session(database) as connection:

        @FUZZ
        @given(st.lists(SPELLINGS[kind].filter(fits), min_size=BATCH, max_size=BATCH))
        def agree(texts: Sequence[str]) -> None:
            values = "), (".join(f"'{text}', '{text}'::{type_name}" for text in [*texts, *FAR.get(kind, ())])
            for row in sent(connection, f"SELECT * FROM (VALUES ({values})) read (text, value)"):
                asked = parse(f"a = '{(row['text'] or b'').decode()}'")
                assert condition.truth(asked, None, {"a": row["value"]}, {"a": kind}) is True, row

        agree()


def test_what_is_generated_passes_the_type_check(database: Database) -> None:
    """Else the test above would show less than it seems to."""
    types = {name: ColumnType(kind) for name, kind in TABLE.items()}

    @settings(max_examples=200, deadline=None, database=None)
    @given(conditions(TABLE, far=True))
    def fit(node: Node) -> None:
        assert type_problems(parse(condition.written(node)), types) == []

    fit()


def test_images_are_told_apart_in_sql(database: Database) -> None:
    database.execute("CREATE TABLE t (id int, status text, code char(4))")
    database.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', NULL)")
    made = parse("old.id < new.id and changed(code) and new.code is null and old.code = 'x' and status = 'b'")
    kinds = {"id": Kind.INTEGER, "status": Kind.TEXT, "code": Kind.PADDED}
    written = sql(made, kinds, tables={"row": "n", "new": "n", "old": "o"})
    assert database.execute(f"SELECT o.id, n.id FROM t o, t n WHERE {written}") == [(1, 2)]


async def test_the_catalog_tells_base_types_labels_and_texts_with_an_equality_of_their_own(database: Database) -> None:
    database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);"
        "CREATE DOMAIN price AS positive; CREATE DOMAIN feeling AS mood; CREATE TYPE pair AS (a int, b int);"
        # Not every server is built with ICU, which alone has such collations.
        'CREATE COLLATION insensitive FROM "C";'
        "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'insensitive';"
        "CREATE TABLE t (id int PRIMARY KEY, mood mood, price price, feeling feeling, pair pair,"
        ' email text COLLATE insensitive, "Odd Name" varchar(9), tags text[]) PARTITION BY RANGE (id);'
        "CREATE TABLE leaf PARTITION OF t FOR VALUES FROM (0) TO (9)"
    )
    async with await connect(database.dsn, application_name="test") as connection:
        leaf = next(t for t in await catalog.tables(connection, [("public", "t")]) if t.name == "leaf")
        announced = Relation(
            leaf.oid, "public", "leaf", "d", tuple(Column(c.name, c.type_oid, c.name == "id") for c in leaf.columns)
        )
        made = await catalog.completed(connection, announced)
        nowhere = await catalog.completed(connection, Relation(1, "public", "gone", "d", announced.columns))
    bases = {"id": 23, "mood": ENUM_OID, "price": 1700, "feeling": ENUM_OID, "pair": OPAQUE_OID}
    bases |= {"email": OPAQUE_OID, "Odd Name": 1043, "tags": 1009}
    assert (made.schema, made.table) == ("public", "t")
    assert {column.name: column.base_oid for column in made.columns} == bases
    assert [column.type_oid for column in made.columns] == [column.type_oid for column in announced.columns]
    assert {column.base_oid for column in nowhere.columns} == {None}
    assert {column.name: column.base_oid for column in leaf.columns} == bases
    assert {column.name: column.enum_labels for column in leaf.columns if column.enum_labels} == {
        "mood": ("sad", "happy"),
        "feeling": ("sad", "happy"),
    }
    kinds = {name: known.kind for name, known in condition.column_types(made).items()}
    assert kinds["price"] is Kind.NUMERIC
    assert kinds["tags"] is kinds["pair"] is kinds["email"] is Kind.OPAQUE
