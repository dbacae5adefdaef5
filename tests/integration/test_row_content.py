"""What rows hold, and how tables change, on the way from a real server to names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from invalidator.demo.servers import PostgresServer, ServerMissing, find_postgres
from invalidator.errors import SourceDisconnected
from invalidator.model import Operation
from invalidator.rules.engine import Engine
from invalidator.rules.rule import Coarse, Exact, Place, Rule, RuleSet
from invalidator.rules.template import parse
from tests.integration.test_pgoutput import publish, reading, sql
from tests.support.postgres import Database, Server, own_database
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import missing

pytestmark = pytest.mark.usefixtures("quiet_logs")


def rules(*keys: str, table: str = "item") -> Engine:
    """One rule with these keys, whose coarse form is the key COARSE."""
    rule = Rule(
        name="rule",
        schema="public",
        table=table,
        events=frozenset(Operation),
        changed=None,
        exact=Exact(keys=tuple(map(parse, keys))),
        coarse=Coarse(keys=(parse("COARSE"),)),
        bulk_over=None,
        repeat_after=(),
        soft=False,
        place=Place("rules.yaml", 1, 1),
    )
    return Engine(RuleSet((rule,), ""), states={}, tables={})


# ---------------------------------------------------------------- tables that change


async def test_a_renamed_column_widens_the_rule_that_lost_it(database: Database) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    publish(database, "item")
    async with reading(database, rules("name:{new.name}", "id:{id}")) as reader:
        await sql(database, "INSERT INTO item VALUES (1, 'a')")
        await sql(database, "ALTER TABLE item RENAME COLUMN name TO title; INSERT INTO item VALUES (2, 'b')")
        await reader.until(b"id:2")

    assert reader.names == {b"name:a", b"id:1", b"id:2", b"COARSE"}


async def test_a_retyped_column_is_rendered_as_its_new_type_writes_it(database: Database) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, price int)")
    publish(database, "item")
    async with reading(database, rules("price:{new.price}")) as reader:
        await sql(database, "INSERT INTO item VALUES (1, 5)")
        await sql(database, "ALTER TABLE item ALTER price TYPE numeric(9,2)")
        await sql(database, "UPDATE item SET id = 2")
        await reader.until(b"price:5.00")

    assert reader.names == {b"price:5", b"price:5.00"}


async def test_an_added_column_with_a_default_is_seen_with_it_in_rows_that_were_there(database: Database) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'a')")
    publish(database, "item")
    async with reading(database, rules("more:{new.more}")) as reader:
        await sql(database, "ALTER TABLE item ADD COLUMN more text DEFAULT 'fast'")
        await sql(database, "UPDATE item SET name = 'b'")
        await reader.until(b"more:fast")

    assert reader.names == {b"more:fast"}


async def test_ddl_in_the_middle_of_a_transaction_takes_effect_between_its_rows(database: Database) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    publish(database, "item")
    async with reading(database, rules("id:{id}", "name:{new.name}")) as reader:
        await sql(
            database,
            "BEGIN; INSERT INTO item VALUES (1, 'a'); SAVEPOINT s; ALTER TABLE item DROP COLUMN name;"
            "INSERT INTO item VALUES (2); ROLLBACK TO s; ALTER TABLE item ADD COLUMN first int;"
            "INSERT INTO item VALUES (3, 'c', 1); COMMIT",
        )
        await reader.until(b"id:3")

    assert reader.names == {b"id:1", b"name:a", b"id:3", b"name:c"}


async def test_a_renamed_enum_value_is_written_by_the_name_that_it_has_when_it_is_read(database: Database) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE item (id int PRIMARY KEY, mood mood)")
    publish(database, "item")
    async with reading(database, rules("mood:{new.mood}")) as reader:
        await sql(database, "INSERT INTO item VALUES (1, 'sad')")
        await reader.until(b"mood:sad")
        await sql(database, "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; UPDATE item SET id = 2")
        await reader.until(b"mood:blue")


async def test_a_table_without_an_identity_sends_its_inserts(database: Database) -> None:
    database.execute("CREATE TABLE item (id int); ALTER TABLE item REPLICA IDENTITY NOTHING")
    publish(database, "item WITH (publish = 'insert, truncate')")
    async with reading(database, rules("id:{id}")) as reader:
        await sql(database, "INSERT INTO item VALUES (1); UPDATE item SET id = 2; INSERT INTO item VALUES (3)")
        await reader.until(b"id:3")

    assert reader.names == {b"id:1", b"id:3"}


async def test_a_generated_column_that_is_not_sent_widens_and_is_never_a_wrong_name(database: Database) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)")
    publish(database, "item")
    async with reading(database, rules("id:{id}", "twice:{twice}")) as reader:
        await sql(database, "INSERT INTO item VALUES (4)")
        await reader.until(b"id:4")

    assert reader.names == {b"id:4", b"COARSE"}


# ---------------------------------------------------------------- partitions


@pytest.fixture
def event(database: Database) -> Database:
    database.execute(
        "CREATE TABLE event (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
        "CREATE TABLE event_a PARTITION OF event FOR VALUES IN ('a');"
        "CREATE TABLE event_b (region text NOT NULL, gone int, id int NOT NULL); ALTER TABLE event_b DROP COLUMN gone;"
        "ALTER TABLE event ATTACH PARTITION event_b FOR VALUES IN ('b')"
    )
    publish(database, "event")
    return database


async def test_a_row_that_moves_between_partitions_drops_the_old_and_the_new_name(event: Database) -> None:
    async with reading(event, rules("r:{region}:{id}", table="event")) as reader:
        await sql(event, "INSERT INTO event VALUES (1, 'a')")
        await sql(event, "UPDATE event SET region = 'b'")
        await reader.until(b"r:b:1")

    assert reader.names == {b"r:a:1", b"r:b:1"}


async def test_a_truncated_partition_widens_the_rules_of_the_partitioned_table(event: Database) -> None:
    async with reading(event, rules("r:{id}", table="event")) as reader:
        await sql(event, "TRUNCATE event_a; INSERT INTO event_a VALUES (1, 'a')")
        await sql(event, "TRUNCATE event_a")
        await reader.until(b"r:1", b"COARSE")


# ---------------------------------------------------------------- transactions


async def test_only_what_remains_of_nested_savepoints_arrives(database: Database) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY)")
    publish(database, "item")
    async with reading(database, rules("id:{id}")) as reader:
        await sql(
            database,
            "BEGIN; SAVEPOINT a; INSERT INTO item VALUES (1); SAVEPOINT b; INSERT INTO item VALUES (2);"
            "ROLLBACK TO b; INSERT INTO item VALUES (3); RELEASE a; SAVEPOINT c; INSERT INTO item VALUES (4);"
            "ROLLBACK TO c; INSERT INTO item VALUES (5); COMMIT",
        )
        await reader.until(b"id:5")

    assert reader.names == {b"id:1", b"id:3", b"id:5"}


@pytest.fixture(scope="module")
def two_phase_server() -> Iterator[Server]:
    try:
        find_postgres()
    except ServerMissing as error:
        missing(str(error))
    with PostgresServer(settings={"max_prepared_transactions": "5"}) as server:
        yield Server(server.dsn())


async def test_a_prepared_transaction_arrives_when_it_is_committed_and_never_when_it_is_rolled_back(
    two_phase_server: Server,
) -> None:
    with own_database(two_phase_server, "") as database:
        database.execute("CREATE TABLE item (id int PRIMARY KEY)")
        publish(database, "item")
        async with reading(database, rules("id:{id}")) as reader:
            await sql(database, "BEGIN; INSERT INTO item VALUES (1); PREPARE TRANSACTION 'kept'")
            await sql(database, "BEGIN; INSERT INTO item VALUES (2); PREPARE TRANSACTION 'dropped'")
            await sql(database, "INSERT INTO item VALUES (3)")
            await reader.until(b"id:3")
            assert reader.names == {b"id:3"}

            await sql(database, "ROLLBACK PREPARED 'dropped'")
            await sql(database, "COMMIT PREPARED 'kept'")
            await reader.until(b"id:1")

        assert reader.names == {b"id:1", b"id:3"}


# ---------------------------------------------------------------- values

VALUES = {
    "mood": ("'so so'", "so so"),
    "word": ("'x y'", "x y"),
    "text[]": ("""'{a,NULL,"b,c"}'""", '{a,NULL,"b,c"}'),
    "jsonb": ("""'{"b": 1, "a": [true]}'""", '{"a": [true], "b": 1}'),
    "json": ("""'{"b":1 }'""", '{"b":1 }'),
    "bytea": ("'\\x00ff'", "\\x00ff"),
    "boolean": ("true", "t"),
    "numeric": ("1.50", "1.50"),
    "double precision": ("0.1::real", "0.10000000149011612"),
    "date": ("'2026-02-28'", "2026-02-28"),
    "timestamptz": ("'2026-06-01 12:00+02'", "2026-06-01 10:00:00+00"),
    "interval": ("'1 day 2 hours'", "1 day 02:00:00"),
    "int4range": ("'[1,4]'", "[1,5)"),
    "uuid": ("'{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "character(3)": ("'a'", "a  "),
}


async def test_values_are_named_in_one_form_whatever_the_settings_of_the_database(database: Database) -> None:
    columns = ", ".join(f"c{at} {kind}" for at, kind in enumerate(VALUES))
    literals = ", ".join(literal for literal, _ in VALUES.values())
    database.execute("CREATE TYPE mood AS ENUM ('so so'); CREATE DOMAIN word AS text")
    database.execute(f"CREATE TABLE item (id int PRIMARY KEY, {columns})")
    publish(database, "item")
    for setting in (
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Tokyo'",
        "IntervalStyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
    ):
        database.execute(f"ALTER DATABASE {database.name} SET {setting}")
    async with reading(database, rules(*(f"c{at}:{{new.c{at}}}" for at in range(len(VALUES))))) as reader:
        await sql(database, f"INSERT INTO item VALUES (1, {literals})")  # noqa: S608  (our own words)
        expected = {f"c{at}:{text}".encode() for at, (_, text) in enumerate(VALUES.values())}
        await reader.until(b"c0:so so")

    assert reader.names == expected


async def test_quoted_names_of_columns_are_found_and_their_values_named(database: Database) -> None:
    database.execute('CREATE TABLE item (id int PRIMARY KEY, "Odd ""Name}" text)')
    publish(database, "item")
    async with reading(database, rules('n:{new."Odd ""Name}"}')) as reader:
        await sql(database, "INSERT INTO item VALUES (1, 'x')")
        await reader.until(b"n:x")


async def test_bytes_of_a_database_without_an_encoding_are_kept(postgres_server: Server) -> None:
    with own_database(postgres_server, "ENCODING 'SQL_ASCII' LOCALE 'C'") as database:
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        publish(database, "item")
        async with reading(database, rules("n:{new.name}")) as reader:
            await sql(database, "INSERT INTO item VALUES (1, convert_from('\\xfffe41', 'SQL_ASCII'))")
            await reader.until(b"n:\xff\xfeA")


async def test_a_value_that_utf8_has_no_character_for_stops_the_stream_and_is_told(postgres_server: Server) -> None:
    with own_database(postgres_server, "ENCODING 'WIN1252' LOCALE 'C'") as database:
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        publish(database, "item")
        async with reading(database, rules("n:{new.name}")) as reader:
            await sql(database, "INSERT INTO item VALUES (1, convert_from('\\x8081', 'WIN1252'))")
            with pytest.raises(SourceDisconnected, match=r'sequence 0x81 in encoding "WIN1252" has no equivalent'):
                await asyncio.wait_for(asyncio.shield(reader.task), DEADLINE_SECONDS)
        assert reader.names == set()
