"""Random tables, random rules, random writes: no statement fails, and nothing that rules need stays behind.

What must arrive is what the same rules make of a publication without column lists and row filters, made afterwards.
``FUZZ_EXAMPLES=500 pytest --timeout=0 tests/integration/test_setup_random.py`` looks longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from invalidator.rules import document
from tests.integration.test_setup_proof import Application
from tests.support.heard import heard
from tests.support.postgres import Database

TYPES = {
    "int": ("0", "1", "2"),
    "bigint": ("7", "8"),
    "text": ("'a'", "'b'", "repeat('long', 3000)"),
    "varchar(9)": ("'v'", "'w'"),
    "bool": ("true", "false"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"),
    "date": ("'2026-01-01'", "'2026-12-31'"),
    "timestamptz": ("'2026-01-01 12:00+02'",),
    "numeric(9,2)": ("1.50", "2"),
    "jsonb": ("'{}'", "'[1, 2]'"),
    "int[]": ("'{1,2}'", "'{}'"),
    "mood": ("'sad'", "'glad'"),
    "word": ("'x'", "'y'"),
}
KEYABLE = ("int", "bigint", "text", "varchar(9)", "uuid", "date", "mood", "word")


@dataclass(frozen=True)
class Shape:
    """A table made by chance: columns by name, with their types."""

    columns: dict[str, str]
    key: tuple[str, ...]
    made: str


@pytest.fixture
def application(database: Database, tmp_path: Path) -> Iterator[Application]:
    database.execute("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN word AS text")
    made = Application(database, tmp_path)
    yield made
    made.close()


def shape(chance: random.Random) -> Shape:
    names = ["id", "a", "b b", 'c"', "D", "e"]
    columns = {name: chance.choice(sorted(TYPES)) for name in names[: chance.randrange(2, 7)]}
    columns["id"] = "int"
    keyable = [name for name, kind in columns.items() if kind in KEYABLE]
    rest = [name for name in keyable if name != "id"]
    key = ("id", *chance.sample(rest, min(len(rest), chance.choice([0, 0, 1]))))
    has_key = chance.random() < 0.8
    parts = [f"{quoted(name)} {kind}" for name, kind in columns.items()]
    if has_key:
        parts.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
    made = f"CREATE TABLE t ({', '.join(parts)})"
    if has_key and chance.random() < 0.3:
        made += (
            " PARTITION BY RANGE (id); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (2);"
            "CREATE TABLE t_rest PARTITION OF t DEFAULT"
        )
        if chance.random() < 0.5:
            made += f"; ALTER TABLE t_1 REPLICA IDENTITY {chance.choice(['FULL', 'NOTHING'])}"
    else:
        if chance.random() < 0.4:
            name = chance.choice(keyable)
            made += (
                f"; ALTER TABLE t ALTER {quoted(name)} SET NOT NULL; CREATE UNIQUE INDEX u ON t ({quoted(name)}, id)"
            )
            made += "; ALTER TABLE t ALTER id SET NOT NULL"
            made += chance.choice(["", "; ALTER TABLE t REPLICA IDENTITY USING INDEX u"])
        made += chance.choice(
            ["", "", "; ALTER TABLE t REPLICA IDENTITY FULL", "; ALTER TABLE t REPLICA IDENTITY NOTHING"]
        )
    return Shape(columns, key if has_key else (), made)


def rule(chance: random.Random, number: int, table: Shape) -> dict[str, Any]:
    def template() -> str:
        scope = chance.choice(["", "", "new.", "old."])
        column = chance.choice(list(table.columns))
        written = column if column.islower() and column.isalpha() else quoted(column)
        return f"r{number}:{{{scope}{written}|default:''}}"

    made: dict[str, Any] = {
        "name": f"r{number}",
        "table": "public.t",
        "invalidate": {"keys": sorted({template() for _ in range(chance.randrange(1, 3))})},
    }
    if chance.random() < 0.3:
        made["events"] = chance.choice([["insert", "truncate"], ["insert", "delete"], ["update"]])
    if chance.random() < 0.3 and "update" in made.get("events", ["update"]):
        made["changed"] = chance.sample(list(table.columns), 1)
    return made


def quoted(name: str) -> str:
    return psycopg.sql.Identifier(name).as_string(None)


def write(application: Application, chance: random.Random, table: Shape) -> None:
    """Twenty statements as the application; only what the table itself forbids may fail."""

    def assigned(name: str) -> str:
        return f"{quoted(name)} = {chance.choice(TYPES[table.columns[name]])}"

    with psycopg.connect(application.database.dsn, autocommit=True) as connection:
        connection.execute(f"SET ROLE {application.app}")
        for _ in range(20):
            values = ", ".join(chance.choice(TYPES[kind]) for kind in table.columns.values())
            some = chance.sample(list(table.columns), chance.randrange(1, len(table.columns) + 1))
            statement = chance.choice(
                [
                    f"INSERT INTO t VALUES ({values})",  # noqa: S608  (our own words)
                    f"INSERT INTO t VALUES ({values}) ON CONFLICT DO NOTHING",  # noqa: S608
                    f"UPDATE t SET {', '.join(map(assigned, some))} WHERE {assigned('id')}",  # noqa: S608
                    f"DELETE FROM t WHERE {assigned('id')}",  # noqa: S608
                ]
            )
            try:
                connection.execute(statement)
            except (psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation):
                continue


@pytest.mark.parametrize("seed", range(int(os.environ.get("FUZZ_EXAMPLES", "20"))))
def test_random_tables_and_rules_lose_nothing_and_break_no_writer(application: Application, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  (a test, and it must be the same each time)
    table = shape(chance)
    database = application.database
    database.execute(table.made)
    application.may_write()
    application.write_rules(*(rule(chance, number, table) for number in range(chance.randrange(1, 4))))
    before = application.catalog()

    application.setup("--apply", *chance.choice([[], [], ["--keep-identity"]]))
    write(application, chance, table)
    assert_nothing_lost(application, chance, table)
    application.write(["TRUNCATE t"])
    code, printed = application.setup("--drop", "--apply")
    assert code == 0, printed
    assert application.catalog() == before


def assert_nothing_lost(application: Application, chance: random.Random, table: Shape) -> None:
    """Compare with a publication of everything, of the operations that ours publishes."""
    database = application.database
    rows = database.execute("SELECT pubinsert, pubupdate, pubdelete FROM pg_publication")
    if not rows:
        return  # left out, with a finding: the writes were the test
    operations = [name for name, is_on in zip(("insert", "update", "delete"), rows[0], strict=True) if is_on]
    more = ", publish_generated_columns = stored" if application.version >= 18 else ""
    database.execute(f"CREATE PUBLICATION everything FOR TABLE t WITH (publish = '{', '.join(operations)}'{more})")
    # What was written before has no place in it: publications are read as of each change.
    database.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", application.slot)
    write(application, chance, table)
    rules = document.load([application.rules])
    ours = heard(database, application.slot, "invalidator", rules)
    assert ours == heard(database, application.slot, "everything", rules)
    database.execute("DROP PUBLICATION everything")
