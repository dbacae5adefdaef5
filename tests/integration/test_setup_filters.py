"""Row filters that ``setup`` makes change no name that the rules make; careless ones do.

``FUZZ_EXAMPLES=200 pytest --timeout=0 tests/integration/test_setup_filters.py`` looks longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from invalidator.postgres import provision
from invalidator.postgres.connection import connect
from invalidator.postgres.provision import Facts, Need, Plan, Request, Rows
from invalidator.rules import document
from tests.integration.test_setup_proof import Application
from tests.support.heard import heard
from tests.support.postgres import Database

SEEDS = int(os.environ.get("FUZZ_EXAMPLES", "8"))
EVERYTHING = frozenset({"insert", "update", "delete", "truncate"})
SINGLE = frozenset({"insert", "delete"})
Row = dict[str, str | None]

CONDITIONS: dict[str, tuple[frozenset[str], Callable[[Row], bool]]] = {
    "tenant IS NOT DISTINCT FROM 1": (frozenset({"tenant"}), lambda row: row["tenant"] == "1"),
    "tenant IS DISTINCT FROM 2": (frozenset({"tenant"}), lambda row: row["tenant"] != "2"),
    "tenant IS NULL OR tenant IN (0, 3)": (frozenset({"tenant"}), lambda row: row["tenant"] in {None, "0", "3"}),
    "COALESCE(tenant > 1, false)": (frozenset({"tenant"}), lambda row: row["tenant"] in {"2", "3"}),
    "NOT COALESCE(tenant > 1, false)": (frozenset({"tenant"}), lambda row: row["tenant"] not in {"2", "3"}),
    "flag IS TRUE AND id < 3": (
        frozenset({"flag", "id"}),
        lambda row: row["flag"] == "t" and int(row["id"] or 9) < 3,
    ),
    "kind IS NOT DISTINCT FROM 'a''b'": (frozenset({"kind"}), lambda row: row["kind"] == "a'b"),
}
TABLES = (
    "CREATE TABLE t (id int, tenant int, flag bool, kind text, slug text, PRIMARY KEY (id, tenant, flag, kind))",
    "CREATE TABLE t (id int, tenant int, flag bool, kind text, slug text); ALTER TABLE t REPLICA IDENTITY FULL",
    "CREATE TABLE t (id int PRIMARY KEY, tenant int, flag bool, kind text, slug text)",
)


WRITES = (
    "INSERT INTO t VALUES ({id}, {tenant}, {flag}, {kind}, 's')",
    "UPDATE t SET tenant = {tenant}, flag = {flag} WHERE id = {id}",
    "UPDATE t SET id = {other}, kind = {kind} WHERE id = {id}",
    "UPDATE t SET slug = 'x' WHERE id = {id}",
    "DELETE FROM t WHERE id = {id}",
)


@dataclass(frozen=True)
class Rule:
    """What a rule with a condition means, said as simply as can be."""

    condition: str
    operations: frozenset[str]
    is_fixed: bool
    """Its name holds no row value; else it is made of the id, of each image there is."""

    def need(self) -> Need:
        columns, _ = CONDITIONS[self.condition]
        survives = self.is_fixed and self.operations >= {"insert", "update", "delete"}
        rows = Rows(lambda _: self.condition, columns, survives_updates=survives)
        read = columns | {"id"}
        return Need("r", "rules.yaml:1", "public", "t", read, columns, operations=self.operations, rows=rows)

    def names(self, operation: str, images: list[Row]) -> set[str]:
        holds = CONDITIONS[self.condition][1]
        if operation not in self.operations or not any(holds(image) for image in images):
            return set()
        return {self.condition} if self.is_fixed else {f"{self.condition}:{image['id']}" for image in images}


@pytest.fixture
def filtering(database: Database) -> Database:
    if int(database.execute("SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("row filters came with Postgres 15")
    return database


async def set_up(database: Database, *needs: Need, may_filter: bool = True) -> Plan:
    """Apply; the result is what a second look would still do."""
    request = Request(f"s_{database.name}", "invalidator", None, may_filter=may_filter)
    async with await connect(database.dsn, application_name="test") as connection:
        found: Facts = await provision.facts(connection, needs, request)
        await provision.apply(connection, provision.plan(needs, found, request))
        return provision.plan(needs, await provision.facts(connection, needs, request), request)


def row_filter(database: Database) -> str | None:
    rows = database.execute(
        "SELECT pg_get_expr(prqual, prrelid) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid"
        " WHERE pubname = 'invalidator'"
    )
    return None if not rows else rows[0][0]


def changes(database: Database, publication: str) -> Iterator[tuple[str, list[Row]]]:
    """Each change that the publication lets through: the operation and the images, as far as they are known."""
    columns: list[str] = []
    for (data,) in database.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
        " 'publication_names', %s)",
        f"s_{database.name}",
        publication,
    ):
        message = bytes(data)
        match message[:1]:
            case b"R":
                columns = _column_names(message)
            case b"I" | b"U" | b"D":
                yield _change(message, columns)
            case _:
                pass


def _column_names(message: bytes) -> list[str]:
    at = message.index(b"\0", message.index(b"\0", 5) + 1) + 2  # past schema, table and identity
    names: list[str] = []
    for _ in range(int.from_bytes(message[at : at + 2])):
        start = at + 3 if not names else at + 1
        end = message.index(b"\0", start)
        names.append(message[start:end].decode())
        at = end + 9
    return names


def _change(message: bytes, columns: list[str]) -> tuple[str, list[Row]]:
    operation = {b"I": "insert", b"U": "update", b"D": "delete"}[message[:1]]
    images: dict[bytes, Row] = {}
    at = 5
    while at < len(message):
        kind = message[at : at + 1]
        images[kind], at = _tuple(message, at + 1, columns)
    new, old = images.get(b"N"), images.get(b"O") or images.get(b"K")
    if operation == "update" and old is None:
        old = new  # the identity did not change, and nothing else is asked of the old row
    return operation, [image for image in (old, new) if image is not None]


def _tuple(message: bytes, at: int, columns: list[str]) -> tuple[Row, int]:
    row: Row = {}
    at += 2
    for name in columns:
        kind, at = message[at : at + 1], at + 1
        row[name] = None
        if kind == b"t":
            end = at + 4 + int.from_bytes(message[at : at + 4])
            row[name], at = message[at + 4 : end].decode(), end
    return row, at


def names(database: Database, publication: str, rules: list[Rule]) -> set[str]:
    return {
        name
        for operation, images in changes(database, publication)
        for rule in rules
        for name in rule.names(operation, images)
    }


def write_at_random(database: Database, chance: random.Random) -> None:
    """Rows that enter, stay in, leave and never meet any of the conditions."""
    is_keyed = bool(database.execute("SELECT FROM pg_index WHERE indrelid = 't'::regclass AND indnatts > 1"))
    tenants = ["0", "1", "2", "3"] if is_keyed else ["0", "1", "2", "3", "NULL"]
    kinds = ["'a'", "'a''b'", "''"]
    for _ in range(25):
        number = chance.randrange(6)
        tenant, flag, kind = chance.choice(tenants), chance.choice(["true", "false"]), chance.choice(kinds)
        values = {"id": number, "other": chance.randrange(6), "tenant": tenant, "flag": flag, "kind": kind}
        statement = chance.choice(WRITES).format(**values)
        try:
            database.execute(statement)
        except psycopg.errors.UniqueViolation:
            continue


@pytest.mark.parametrize("seed", range(2 * SEEDS))
async def test_the_names_are_equal_with_and_without_the_filters_that_setup_makes(
    filtering: Database, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  (a test, and it must be the same each time)
    filtering.execute(chance.choice(TABLES))
    operations = chance.choice([EVERYTHING, EVERYTHING, SINGLE, frozenset({"insert"})])
    is_fixed = chance.random() < 0.7
    rules = [Rule(text, operations, is_fixed) for text in chance.sample(sorted(CONDITIONS), chance.choice([1, 1, 2]))]

    rest = await set_up(filtering, *(rule.need() for rule in rules))
    assert rest.to_run == ()
    filtering.execute("CREATE PUBLICATION everything FOR TABLE t WITH (publish = 'insert, update, delete, truncate')")
    write_at_random(filtering, chance)

    assert names(filtering, "invalidator", rules) == names(filtering, "everything", rules)
    if row_filter(filtering) is not None:
        sent = sum(1 for _ in changes(filtering, "invalidator"))
        assert sent <= sum(1 for _ in changes(filtering, "everything"))
        assert operations != EVERYTHING or is_fixed
    elif operations == EVERYTHING:
        assert not is_fixed


def test_a_careless_filter_loses_the_name_of_the_image_outside_of_it(filtering: Database) -> None:
    filtering.execute(TABLES[0])
    filtering.execute("CREATE PUBLICATION invalidator FOR TABLE t WHERE (tenant = 1)")
    filtering.execute("CREATE PUBLICATION everything FOR TABLE t")
    filtering.execute(f"SELECT pg_create_logical_replication_slot('s_{filtering.name}', 'pgoutput')")
    filtering.execute("INSERT INTO t VALUES (1, 1, true, '', ''); UPDATE t SET id = 2, tenant = 2")
    rule = Rule("tenant IS NOT DISTINCT FROM 1", EVERYTHING, is_fixed=False)
    lost = names(filtering, "everything", [rule]) - names(filtering, "invalidator", [rule])
    assert lost == {"tenant IS NOT DISTINCT FROM 1:2"}


FIXED = Rule("tenant IS NOT DISTINCT FROM 1", EVERYTHING, is_fixed=True).need()


async def test_a_filter_is_recorded_and_replaced_when_the_rules_change(filtering: Database) -> None:
    filtering.execute(TABLES[0])
    await set_up(filtering, FIXED)
    assert "tenant" in (row_filter(filtering) or "")
    other = Rule("tenant IS DISTINCT FROM 2", EVERYTHING, is_fixed=True).need()
    assert (await set_up(filtering, other)).to_run == ()
    assert "2" in (row_filter(filtering) or "")
    named = Rule("tenant IS DISTINCT FROM 2", EVERYTHING, is_fixed=False).need()
    assert (await set_up(filtering, named)).to_run == ()
    assert row_filter(filtering) is None
    assert filtering.execute("SELECT obj_description(oid, 'pg_publication') FROM pg_publication") == [
        ('invalidator setup: {"made": true}',)
    ]


async def test_a_filter_for_other_rules_is_a_step_also_for_those_who_make_no_filters(filtering: Database) -> None:
    filtering.execute(TABLES[0])
    await set_up(filtering, FIXED)
    request = Request(f"s_{filtering.name}", "invalidator", None, may_alter_tables=False)
    async with await connect(filtering.dsn, application_name="test") as connection:
        same = provision.plan([FIXED], await provision.facts(connection, [FIXED], request), request)
        assert same.to_run == ()
        other = Rule("tenant IS DISTINCT FROM 2", EVERYTHING, is_fixed=True).need()
        made = provision.plan([other], await provision.facts(connection, [other], request), request)
    assert [step.purpose for step in made.to_run] == [provision.Purpose.PUBLICATION]


async def test_somebody_elses_filter_and_comment_are_left(filtering: Database) -> None:
    filtering.execute(TABLES[0])
    filtering.execute("CREATE PUBLICATION invalidator FOR TABLE t WHERE (id > 0)")
    rest = await set_up(filtering, FIXED)
    assert "id" in (row_filter(filtering) or "")
    assert any("filters the rows" in finding.text for finding in rest.findings)
    filtering.execute("DROP PUBLICATION invalidator; CREATE PUBLICATION invalidator FOR TABLE t")
    filtering.execute("COMMENT ON PUBLICATION invalidator IS 'mine'")
    await set_up(filtering, FIXED)
    assert row_filter(filtering) is None
    assert filtering.execute("SELECT obj_description(oid, 'pg_publication') FROM pg_publication") == [("mine",)]


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE t (id int PRIMARY KEY, tenant int, flag bool, kind text, slug text)",
        "CREATE TABLE t (id int, tenant int, PRIMARY KEY (id, tenant)) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t DEFAULT",
        "CREATE DOMAIN number AS int; CREATE TABLE t (id int, tenant number, PRIMARY KEY (id, tenant))",
        "CREATE TABLE t (id int, tenant numeric, PRIMARY KEY (id, tenant))",
    ],
    ids=["not in the identity", "partitioned", "a domain", "numeric"],
)
async def test_there_is_no_filter_where_something_could_be_lost_or_fail(filtering: Database, made: str) -> None:
    filtering.execute(made)
    need = Need("r", "rules.yaml:1", "public", "t", frozenset({"tenant"}), rows=FIXED.rows)
    assert (await set_up(filtering, need)).to_run == ()
    assert row_filter(filtering) is None
    filtering.execute("INSERT INTO t (id, tenant) VALUES (1, 1); UPDATE t SET tenant = 2; DELETE FROM t")


async def test_there_is_no_filter_when_another_rule_needs_all_rows(filtering: Database) -> None:
    filtering.execute(TABLES[0])
    everything = Need("all", "rules.yaml:9", "public", "*", frozenset({"id"}))
    await set_up(filtering, FIXED, everything)
    assert row_filter(filtering) is None


async def test_there_is_no_filter_when_none_is_wanted(filtering: Database) -> None:
    filtering.execute(TABLES[0])
    await set_up(filtering, FIXED, may_filter=False)
    assert row_filter(filtering) is None


# -- with the rules themselves ---------------------------------------------------------------------------------------

WHEN = (
    "tenant = 1",
    "tenant != 2 and flag",
    "tenant in (0, 3) or tenant is null",
    "not (tenant > 1)",
    "kind = 'a''b' or id <= 2",
    "flag = false and not kind in ('a', '')",
)
TEMPLATES: tuple[dict[str, list[str]], ...] = (
    {"tags": ["all-of-one"]},
    {"tags": ["{meta.table}"], "l1": ["one:*"]},
    {"keys": ["t:{id}"]},
    {"keys": ["t:{new.id}"]},
)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_the_daemon_makes_of_conditions_is_the_same_with_and_without_filters(
    filtering: Database, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  (a test, and it must be the same each time)
    filtering.execute(chance.choice(TABLES[:2]))
    application = Application(filtering, tmp_path)
    try:
        events = chance.choice([["insert", "update", "delete", "truncate"]] * 3 + [["insert", "delete"], ["insert"]])
        templates = chance.choice(TEMPLATES[:2] * 2 + TEMPLATES)
        application.write_rules(
            *(
                {"name": f"r{at}", "table": "public.t", "events": events, "when": when, "invalidate": templates}
                for at, when in enumerate(chance.sample(WHEN, chance.choice([1, 2])))
            )
        )
        code, printed = application.setup("--apply")
        assert code == 0, printed
        assert {mark["sign"] for mark in application.setup("--diff")[1]["objects"]} == {"="}
        filtering.execute(
            "CREATE PUBLICATION everything FOR TABLE t WITH (publish = 'insert, update, delete, truncate')"
        )
        write_at_random(filtering, chance)
        rules = document.load([application.rules])
        assert heard(filtering, application.slot, "invalidator", rules) == heard(
            filtering, application.slot, "everything", rules
        )
        is_lossless = "update" not in events or templates in TEMPLATES[:2]
        assert (row_filter(filtering) is not None) == is_lossless
    finally:
        application.close()
