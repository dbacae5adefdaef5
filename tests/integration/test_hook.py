"""Event triggers on a real server: what they tell, in which order, and that DDL never fails by them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from psycopg import Connection

from invalidator.continuity.unstreamed import CatalogWatch
from invalidator.model import Gap, GapReason, Invalidation, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction
from invalidator.postgres.catalog import unstreamed
from invalidator.postgres.catalog.told import PREFIX, Told
from invalidator.postgres.side import SideConnection
from invalidator.sources.pgoutput import PgoutputSource, Settings
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.checked import Project
from tests.support.hook import hook
from tests.support.postgres import Database
from tests.support.processes import DEADLINE_SECONDS
from tests.support.reading import rule, ruleset_of

pytestmark = pytest.mark.usefixtures("quiet_logs")

RULES = ruleset_of([rule("item", "item:{id}"), rule("event", "event:{id}")])


def wants(schema: str, table: str) -> bool:
    return bool(RULES.for_table(schema, table))


@pytest.fixture
async def shop(database: Database) -> Database:
    """A table and a partitioned one, published, with a slot and the hook."""
    database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    database.execute("CREATE TABLE event (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day)")
    database.execute("CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1)")
    database.execute("CREATE PUBLICATION p FOR TABLE item, event")
    assert (await hook(database.dsn)).to_run == ()
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", database.name)
    return database


class InOrder:
    """Rules that write down what they are asked, as it comes."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def bind(self, relation: Relation) -> RowFunction:
        def row(message: bytes, invalidation: Invalidation, transaction: Transaction) -> None:
            self.asked.append(f"row of {relation.name}")
            invalidation.keys.add(b"something")

        return row

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        self.asked += [f"truncate {relation.name}" for relation in relations]

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        self.asked.append(f"{reason} {relation.name}")


async def streamed(database: Database, last: str) -> list[str]:
    """What the stream asks of the rules, up to this."""
    state = State()
    options = Settings(type="pgoutput", dsn=database.dsn, slot=database.name, publication="p", status_seconds=0.1)
    told = Told(wants)
    source = PgoutputSource(options, Events(state), on_ddl=lambda content: map(parts, told.changes(content)))
    rules = InOrder()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for _ in source.batches(rules):
                if last in rules.asked:
                    break
    finally:
        await source.close()
    return rules.asked


def parts(name: str) -> tuple[str, str]:
    schema, _, table = name.partition(".")
    return schema, table


async def test_ddl_arrives_between_the_rows_before_and_behind_it_and_never_when_it_is_rolled_back(
    shop: Database,
) -> None:
    shop.execute("INSERT INTO item VALUES (1)")
    shop.execute("ALTER TABLE item ALTER COLUMN id TYPE bigint")
    shop.execute("BEGIN; INSERT INTO event VALUES (1, 1); DROP TABLE event_1; ROLLBACK")
    shop.execute("INSERT INTO item VALUES (2)")
    shop.execute("BEGIN; INSERT INTO item VALUES (3); DROP TABLE item; COMMIT")
    shop.execute("INSERT INTO event VALUES (4, 1)")
    shop.execute("TRUNCATE event_1")
    assert await streamed(shop, "truncate public.event") == [
        "row of public.item",
        "catalog_changed public.item",
        "row of public.item",
        "row of public.item",
        "catalog_changed public.item",
        "row of public.event",
        "truncate public.event",
    ]


def content(database: Database, statement: str) -> list[dict[str, Any]]:
    """What the hook tells of one statement, as another slot decodes it."""
    name = f"{database.name}_told"
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", name)
    try:
        database.execute(statement)
        rows = database.execute("SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL)", name)
    finally:
        database.execute("SELECT pg_drop_replication_slot(%s)", name)
    told = [row[0].partition("content:")[2] for row in rows if f"prefix: {PREFIX}," in row[0]]
    return [entry for text in told for entry in json.loads(text)]


def told_of(database: Database, statement: str) -> set[tuple[str, str]]:
    return {(entry["table"], entry["what"]) for entry in content(database, statement)}


def test_each_statement_is_told_as_what_it_is(shop: Database) -> None:
    shop.execute("CREATE TABLE event_2 (id int, day int, PRIMARY KEY (id, day)); INSERT INTO event_2 VALUES (7, 2)")
    (attached,) = content(shop, "ALTER TABLE event ATTACH PARTITION event_2 FOR VALUES IN (2)")
    assert sorted(attached["partitions"].values()) == [False, True]
    (detached,) = content(shop, "ALTER TABLE event DETACH PARTITION event_1")
    assert list(detached["partitions"].values()) == [True]
    assert told_of(shop, "ALTER TABLE event DETACH PARTITION event_2 CONCURRENTLY") == {("event", "there")}
    assert told_of(shop, "DROP TABLE event_1") == {("event_1", "dropped")}
    assert told_of(shop, "CREATE TABLE event_3 PARTITION OF event FOR VALUES IN (3)") == {("event", "there")}
    assert told_of(shop, "ALTER TABLE item RENAME COLUMN name TO title") == {("item", "altered")}
    assert ("item", "altered") in told_of(shop, "ALTER TABLE item ALTER COLUMN title TYPE bytea USING NULL")
    assert ("item", "altered") in told_of(shop, "ALTER TABLE item DROP COLUMN title")
    shop.execute("ALTER PUBLICATION p DROP TABLE item")
    assert ("item", "altered") in told_of(shop, "ALTER TABLE item SET UNLOGGED")
    assert told_of(shop, "ALTER TABLE item RENAME TO thing") == {("thing", "there")}
    assert told_of(shop, "CREATE SCHEMA other; ALTER TABLE thing SET SCHEMA other") == {("thing", "there")}
    assert told_of(shop, "ALTER SCHEMA other RENAME TO another") == {("thing", "there")}
    assert told_of(shop, "DROP SCHEMA another CASCADE") == {("thing", "dropped")}


def test_what_changes_no_value_is_told_as_there_or_not_at_all(shop: Database) -> None:
    assert told_of(shop, "ALTER TABLE item ADD COLUMN more float DEFAULT random()") == {("item", "there")}
    assert told_of(shop, "ALTER TABLE item ALTER COLUMN name SET STATISTICS 10") == {("item", "there")}
    for statement in (
        "CREATE TABLE other (id int)",
        "CREATE INDEX ON item (name)",
        "VACUUM FULL item",
        "CREATE TEMP TABLE t (id int); ALTER TABLE t ADD COLUMN more int; DROP TABLE t",
        "CREATE VIEW v AS SELECT 1; DROP VIEW v",
    ):
        assert content(shop, statement) == [], statement


@pytest.fixture
def owner(shop: Database) -> Any:
    """A connection of a role that owns the tables and is nothing else."""
    name = f"owner_{shop.name}"
    shop.execute(f"CREATE ROLE {name}; ALTER TABLE item OWNER TO {name}; ALTER TABLE event_1 OWNER TO {name}")
    shop.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {name}")
    with shop.connect() as connection:
        connection.autocommit = True
        connection.execute(f"SET ROLE {name}")
        yield connection
    shop.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_ddl_of_a_plain_owner_is_told_and_never_fails_by_the_hook(
    shop: Database, owner: Connection[tuple[Any, ...]]
) -> None:
    owner.execute("SET search_path = ''")
    owner.execute("ALTER TABLE public.item RENAME COLUMN name TO title")
    owner.execute("RESET search_path")
    owner.execute("ALTER TABLE public.item ALTER COLUMN id TYPE bigint")
    function = "pg_logical_emit_message(boolean, text, text%s)"
    function %= ", boolean" if shop.execute("SHOW server_version_num")[0][0] >= "170000" else ""
    shop.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    warnings: list[str] = []
    owner.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    owner.execute("ALTER TABLE item RENAME COLUMN title TO name")
    owner.execute("ALTER TABLE item ALTER COLUMN id TYPE numeric")
    owner.execute("DROP TABLE event_1")
    assert shop.execute("SELECT to_regclass('event_1')") == [(None,)]
    assert {warning.partition(": ")[2] for warning in warnings} == {
        "ALTER TABLE was not told: SQLSTATE 42501",
        "DROP TABLE was not told: SQLSTATE 42501",
    }


def test_what_the_hook_cannot_work_out_is_told_as_unknown(shop: Database, owner: Connection[tuple[Any, ...]]) -> None:
    shop.execute("REVOKE EXECUTE ON FUNCTION pg_partition_root(regclass) FROM PUBLIC")
    shop.execute('REVOKE EXECUTE ON FUNCTION jsonb_build_object(VARIADIC "any") FROM PUBLIC')
    name = f"{shop.name}_told"
    shop.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", name)
    owner.execute("ALTER TABLE item RENAME COLUMN name TO title")
    rows = shop.execute("SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL)", name)
    shop.execute("SELECT pg_drop_replication_slot(%s)", name)
    assert any('[{"what": "unknown"}]' in row[0] for row in rows)


async def test_messages_count_only_with_the_hook_and_widen_a_table_once_a_second(shop: Database) -> None:
    repairs: list[Gap] = []
    repaired = asyncio.Event()

    def repair(gap: Gap, _: object) -> None:
        repairs.append(gap)
        repaired.set()

    watch = CatalogWatch(
        interval_seconds=3600,
        look=partial(unstreamed.look, publication="p"),
        patterns=lambda: [("public", "item"), ("public", "event")],
        beside=None,
        repair=repair,
        wants=wants,
    )
    forged = json.dumps([{"oid": 1, "schema": "public", "table": "item", "what": "dropped"}]).encode()
    side = await SideConnection.open(shop.dsn, slot="test")
    try:
        assert (await hook(shop.dsn, remove=True)).to_run == ()
        await watch.look_again(side)
        assert watch.take(forged) == []
        assert (await hook(shop.dsn)).to_run == ()
        await watch.look_again(side)
    finally:
        await side.close()
    assert watch.take(forged) == [("public", "item")]
    for _ in range(100):
        assert watch.take(forged) == []
    async with asyncio.timeout(DEADLINE_SECONDS):
        await repaired.wait()
    assert [(gap.reason, gap.tables) for gap in repairs] == [(GapReason.CATALOG_CHANGED, frozenset({"public.item"}))]


async def test_setup_makes_compares_and_drops_the_hook(checked: Project) -> None:
    checked.database.execute("CREATE TABLE post (id int PRIMARY KEY)")
    checked.write("  - {name: post, table: public.post, invalidate: {keys: ['post:{id}']}}\n")
    assert "+ event trigger invalidator_sql_drop" in checked.run("setup", "--ddl-hook", "--diff").output
    assert checked.run("setup", "--ddl-hook", "--apply").code == 0
    assert checked.database.execute("SELECT count(*) FROM pg_event_trigger") == [(3,)]
    checked.database.execute("ALTER EVENT TRIGGER invalidator_sql_drop DISABLE")
    differs = checked.run("setup", "--ddl-hook", "--diff")
    assert (differs.code, "~ event trigger invalidator_sql_drop: does not always fire" in differs.output) == (1, True)
    assert checked.run("setup", "--ddl-hook", "--apply").code == 0
    assert checked.database.execute("SELECT bool_and(evtenabled = 'A') FROM pg_event_trigger") == [(True,)]
    assert checked.run("setup", "--drop", "--apply").code == 0
    assert checked.database.execute("SELECT count(*) FROM pg_event_trigger") == [(0,)]
    assert checked.database.execute("SELECT to_regnamespace('invalidator')") == [(None,)]
    assert "has none" in checked.run("setup", "--ddl-hook", "--source", "outbox").errors


async def test_a_schema_that_somebody_else_has_made_is_refused(
    shop: Database, owner: Connection[tuple[Any, ...]]
) -> None:
    """Its owner could give the function another body, and wait for a superuser's DDL."""
    name = f"owner_{shop.name}"
    assert (await hook(shop.dsn, remove=True)).to_run == ()
    shop.execute(f"GRANT CREATE ON DATABASE {shop.name} TO {name}")
    owner.execute("CREATE SCHEMA invalidator")
    assert [f"belongs to role '{name}'" in each.text for each in (await hook(shop.dsn)).problems] == [True]

    owner.execute("CREATE FUNCTION invalidator.tell_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    shop.execute("ALTER SCHEMA invalidator OWNER TO CURRENT_USER")
    assert [f"belongs to role '{name}'" in each.text for each in (await hook(shop.dsn)).problems] == [True]
    assert shop.execute("SELECT count(*) FROM pg_event_trigger") == [(0,)]

    shop.execute("DROP SCHEMA invalidator CASCADE")
    assert (await hook(shop.dsn)).problems == ()


async def test_who_may_not_make_event_triggers_is_told_so(checked: Project) -> None:
    database = checked.database
    database.execute("CREATE TABLE post (id int PRIMARY KEY)")
    checked.write("  - {name: post, table: public.post, invalidate: {keys: ['post:{id}']}}\n")
    name = f"plain_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'x'; ALTER TABLE post OWNER TO {name}")
    try:
        checked.source["dsn"] = database.dsn.replace("postgres:", f"{name}:", 1)
        plain = (
            f"host=127.0.0.1 port={database.execute('SHOW port')[0][0]} dbname={database.name} user={name} password=x"
        )
        left = checked.run("setup", "--ddl-hook", "--dsn", plain)
        assert "only a superuser can make event triggers" in left.output, left.errors
        assert left.code == 1
        managed = checked.run("setup", "--ddl-hook", "--dsn", plain, "--provider", "supabase")
        assert "Supabase lets the user 'postgres' make event triggers" in managed.output
    finally:
        database.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")
