"""The outbox against a real server: what triggers write down, what the source makes of it, what it deletes when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from invalidator.continuity.recorder import database as database_of
from invalidator.errors import ConfigError, SlotInUse
from invalidator.model import GapReason, Lsn, WidenReason
from invalidator.postgres.catalog.outbox import LOCK_KEY, SLEEP_KEY
from invalidator.postgres.outbox.deletion import CONFIRM_SQL, Deletion
from invalidator.postgres.outbox.window import LAST_ID, PAGE_SQL, Window, page, xmin
from invalidator.postgres.provision.capture import CHANNEL
from invalidator.sources.outbox import OutboxSource, Settings
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.outbox import asleep, emptied, is_asleep, reading, setup
from tests.support.postgres import CopiedServer, Database, Server, own_database
from tests.support.processes import DEADLINE_SECONDS
from tests.support.reading import Reading, engine_of, read, rule

pytestmark = pytest.mark.usefixtures("quiet_logs")

ITEM = rule("item", "item:{id}", "slug:{slug}")
STRANGER = (
    "INSERT INTO invalidator.outbox (xid, relation, schema_name, table_name, operation)"
    " VALUES ('999999999', 0, 'public', 'item', 'T')"
)
"""A row of another cluster."""


@pytest.fixture
async def shop(database: Database) -> Database:
    """A table with an outbox."""
    database.execute("CREATE TABLE item (id int PRIMARY KEY, slug text, price int)")
    await setup(database.dsn, [ITEM])
    return database


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.execute(
        "SELECT operation::text, old_rows, new_rows FROM invalidator.outbox WHERE operation NOT IN ('H', 'L')"
        " ORDER BY xid, id"
    )


async def test_inserts_updates_and_deletes_name_old_and_new_values(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 1)")
        await reader.until("item:1", "item:2", "slug:a", "slug:b")
        reader.forget()
        shop.execute("UPDATE item SET id = id + 10, slug = slug || slug")
        await reader.until("item:1", "item:2", "item:11", "item:12", "slug:a", "slug:aa", "slug:b", "slug:bb")
        reader.forget()
        shop.execute("DELETE FROM item WHERE id = 11")
        await reader.until("item:11", "slug:aa")
        assert reader.keys == {b"item:11", b"slug:aa"}


async def test_bytes_of_a_database_without_an_encoding_are_kept(postgres_server: Server) -> None:
    with own_database(postgres_server, "ENCODING 'SQL_ASCII' LOCALE 'C'") as database:
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        rules = [rule("item", "id:{id}", "name:{name}")]
        await setup(database.dsn, rules)
        statement = "INSERT INTO item VALUES (1, convert_from('\\xfffe41', 'SQL_ASCII'))"
        await asyncio.to_thread(database.execute, statement)
        async with reading(database.dsn, rules) as reader:
            await reader.until("id:1")
            assert reader.keys == {b"id:1", b"name:\xff\xfeA"}


async def test_what_was_written_before_the_daemon_came_is_read(shop: Database) -> None:
    shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
    async with reading(shop.dsn, [ITEM]) as reader:
        await reader.until("item:1")


async def test_what_is_confirmed_is_deleted_and_nothing_else(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        await emptied(shop)
        reader.may_confirm = False
        shop.execute("INSERT INTO item VALUES (2, 'b', 1)")
        await reader.until("item:2")
        shop.execute("INSERT INTO item VALUES (3, 'c', 1)")
        await reader.until("item:3")
    assert [new for _, _, new in rows(shop)] == [[["2", "b"]], [["3", "c"]]]
    async with reading(shop.dsn, [ITEM]) as reader:
        await reader.until("item:2", "item:3")
        await emptied(shop)


async def test_a_backlog_is_deleted_in_parts_and_its_position_is_noted_before_any_of_it_is_gone(shop: Database) -> None:
    """A server that deletes millions of rows at once says nothing for longer than it may."""
    insert = "INSERT INTO invalidator.outbox (relation, schema_name, table_name, operation) VALUES (0, 's', 't', 'C')"
    shop.execute(f"DO $$ BEGIN FOR n IN 1..3000 LOOP {insert}; COMMIT; END LOOP; END $$")
    count = "SELECT count(*) FROM invalidator.outbox"
    deletion, left = Deletion(CONFIRM_SQL, "7/1/1"), list[int]()
    with shop.connect() as late, psycopg.connect(shop.dsn, autocommit=True) as daemon:
        late.execute(insert)
        daemon.execute("SET invalidator.reader = 'on'")
        deletion.want(Lsn(100), shop.execute("SELECT pg_current_snapshot()::text")[0][0])
        late.commit()
        shop.execute(insert)
        while (part := deletion.part()) is not None:
            deletion.deleted(daemon.execute(deletion.statement, part).fetchall(), seconds=0.05)
            left.append(shop.execute(count)[0][0])
            assert shop.execute("SELECT position::text FROM invalidator.confirmed") == [("0/64",)]
    assert left == [3002 - 1024, 3002 - 2048, 2], "what the snapshot does not see stays"


async def test_a_transaction_that_commits_late_is_not_passed_over(shop: Database) -> None:
    """Its rows have lower numbers than those of transactions that began later and were read, and deleted, before."""
    async with reading(shop.dsn, [ITEM]) as reader:
        with shop.connect() as late:
            late.execute("INSERT INTO item VALUES (1, 'late', 1)")
            for number in range(2, 30):
                shop.execute("INSERT INTO item VALUES (%s, 'early', 1)", number)
            await reader.until(*(f"item:{number}" for number in range(2, 30)))
            await emptied(shop)
            late.execute("UPDATE item SET slug = 'later' WHERE id = 1")
            assert b"item:1" not in reader.keys
            late.commit()
        await reader.until("item:1", "slug:late", "slug:later")
        await emptied(shop)


async def test_a_transaction_that_commits_while_a_window_is_read_is_neither_lost_nor_deleted_unread(
    shop: Database,
) -> None:
    """The window has several pages, and the other transaction's number lies before all of them."""
    with shop.connect() as late:
        late.execute("INSERT INTO item VALUES (1000, 'late', 1)")
        for number in range(300):
            shop.execute("INSERT INTO item VALUES (%s, 'x', 1)", number)
        async with reading(shop.dsn, [ITEM], max_batch_items=1) as reader:
            await reader.until("item:0")
            late.commit()
            await reader.until("item:1000", "item:299")
            await emptied(shop)


async def test_a_prepared_transaction_comes_when_it_is_committed() -> None:
    with CopiedServer({"max_prepared_transactions": "2"}) as server:
        database = Database(Server(server.dsn()), "postgres")
        database.execute("CREATE TABLE item (id int PRIMARY KEY, slug text)")
        await setup(database.dsn, [ITEM])
        async with reading(database.dsn, [ITEM]) as reader:
            with psycopg.connect(database.dsn, autocommit=True) as other:
                other.execute("BEGIN; INSERT INTO item VALUES (1, 'a'); PREPARE TRANSACTION 'late'")
            database.execute("INSERT INTO item VALUES (2, 'b')")
            await reader.until("item:2")
            await emptied(database)
            database.execute("COMMIT PREPARED 'late'")
            await reader.until("item:1")
        database.close()


async def test_what_is_rolled_back_is_never_seen(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        with shop.connect() as other:
            other.execute("INSERT INTO item VALUES (1, 'a', 1)")
            other.rollback()
            other.execute("INSERT INTO item VALUES (2, 'b', 1)")
            other.execute("SAVEPOINT s")
            other.execute("INSERT INTO item VALUES (3, 'c', 1)")
            other.execute("ROLLBACK TO s")
            other.commit()
        await reader.until("item:2")
        assert reader.keys == {b"item:2", b"slug:b"}


async def test_truncate_is_the_coarse_form(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("TRUNCATE item")
        await reader.until("item:*", "slug:*")
        assert reader.state.rules["item"].widened[WidenReason.TRUNCATE] == 1


async def test_a_statement_of_many_rows_is_written_in_parts_that_keep_old_and_new_together(shop: Database) -> None:
    pairs = rule("item", "pair:{old.id}-{new.id}", events=["update"])
    await setup(shop.dsn, [pairs])
    shop.execute("INSERT INTO item SELECT n, 'x', 1 FROM generate_series(1, 2345) n")
    shop.execute("UPDATE item SET id = id + 100000")
    assert [len(new) for _, _, new in rows(shop)] == [500, 500, 500, 500, 345]
    async with reading(shop.dsn, [pairs]) as reader:
        await reader.until(*(f"pair:{n}-{n + 100000}" for n in range(1, 2346)))
        assert len(reader.keys) == 2345


@pytest.mark.parametrize(("count", "parts"), [(0, []), (1, [1]), (500, [500]), (501, [500, 1]), (1000, [500, 500])])
async def test_each_row_of_a_statement_is_written_once_however_many_there_are(
    shop: Database, count: int, parts: list[int]
) -> None:
    await setup(shop.dsn, [ITEM], wakes=True)
    insert = "INSERT INTO item SELECT n, 'x' || n, 1 FROM generate_series(1, %s) n"
    for statement, *values in ((insert, count), ("UPDATE item SET id = -id",), ("DELETE FROM item",)):
        shop.execute(str(statement), *values)
        found = rows(shop)
        assert [len(new or old) for _, old, new in found] == parts, statement
        old = [row for _, images, _ in found for row in images or ()]
        new = [row for _, _, images in found for row in images or ()]
        for images, sign in ((old, 1 if new else -1), (new, -1 if old else 1)):
            assert not images or sorted(images) == sorted([str(sign * n), f"x{n}"] for n in range(1, count + 1))
        assert not (old and new) or [(f"-{first}", slug) for first, slug in old] == [tuple(row) for row in new]
        shop.execute("DELETE FROM invalidator.outbox")


async def test_of_a_large_statement_only_parts_in_which_something_changed_are_written(shop: Database) -> None:
    await setup(shop.dsn, [rule("item", "item:{id}", changed=["slug"])])
    shop.execute("INSERT INTO item SELECT n, 'x', 1 FROM generate_series(1, 1001) n")
    shop.execute("DELETE FROM invalidator.outbox")
    shop.execute("UPDATE item SET price = 2")
    assert rows(shop) == []
    shop.execute("UPDATE item SET slug = CASE id WHEN 7 THEN 'y' ELSE slug END")
    [(_, old, new)] = rows(shop)
    assert [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]] == [(["7", "x"], ["7", "y"])]


async def test_copy_is_seen(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        with shop.connect() as other, other.cursor() as cursor:
            with cursor.copy("COPY item FROM STDIN") as copy:
                copy.write("1\ta\t1\n2\tb\t1\n")
            other.commit()
        await reader.until("item:1", "item:2")


async def test_only_the_columns_that_rules_read_are_written(shop: Database) -> None:
    shop.execute("INSERT INTO item VALUES (1, 'a', 4711)")
    assert rows(shop) == [("I", None, [["1", "a"]])]


async def test_an_update_that_changes_nothing_mapped_is_not_written_when_no_rule_asks_for_it(shop: Database) -> None:
    picky = rule("item", "item:{id}", changed=["slug"])
    await setup(shop.dsn, [picky])
    shop.execute("INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 1)")
    shop.execute("DELETE FROM invalidator.outbox")
    shop.execute("UPDATE item SET price = 2")
    assert rows(shop) == []
    shop.execute("UPDATE item SET slug = 'c' WHERE id = 2")
    assert rows(shop) == [("U", [["2", "b"]], [["2", "c"]])]


async def test_an_update_of_a_column_that_no_template_names_is_written_when_a_rule_fires_for_every_one(
    shop: Database,
) -> None:
    shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
    async with reading(shop.dsn, [ITEM]) as reader:
        await reader.until("item:1")
        reader.forget()
        shop.execute("UPDATE item SET price = 2")
        await reader.until("item:1", "slug:a")


async def test_values_have_the_text_that_logical_replication_sends_whatever_the_writer_has_set(
    database: Database,
) -> None:
    types = {
        "b": ("bool", "true"),
        "c": ("char(5)", "'ab'"),
        "i": ("inet", "'10.0.0.1'::inet"),
        "t": ("timestamptz", "'2026-01-02 03:04:05+03'::timestamptz"),
        "d": ("date", "'2026-01-02'::date"),
        "f": ("float8", "0.1::float8 + 0.2"),
        "n": ("numeric(10,4)", "1.5"),
        "v": ("interval", "'1 day 2 hours'::interval"),
        "y": ("bytea", "'\\xdeadbeef'::bytea"),
        "a": ("int[]", "'{1,2}'::int[]"),
        "j": ("jsonb", """'{"a": 1}'::jsonb"""),
        "e": ("mood", "'well'::mood"),
        "r": ("pair", "'(1,)'::pair"),
        "m": ("posint", "7"),
        "u": ("uuid", "'00000000-0000-0000-0000-000000000001'::uuid"),
    }
    database.execute("CREATE TYPE mood AS ENUM ('well')")
    database.execute("CREATE TYPE pair AS (x int, y text)")
    database.execute("CREATE DOMAIN posint AS int CHECK (VALUE > 0)")
    database.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {', '.join(f'{n} {t}' for n, (t, _) in types.items())})")
    wide = rule("wide", *(f"{name}:{{{name}}}" for name in types))
    await setup(database.dsn, [wide])
    database.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'")
    database.execute("SET bytea_output = 'escape'; SET extra_float_digits = 0")
    values = ", ".join(value for _, value in types.values())
    database.execute(f"INSERT INTO wide SELECT 1, {values}")
    database.execute("INSERT INTO wide (id, r) VALUES (2, NULL)")
    database.execute("RESET ALL")
    expected = {
        "b": "t", "c": "ab   ", "i": "10.0.0.1", "t": "2026-01-02 00:04:05+00", "d": "2026-01-02",
        "f": "0.30000000000000004", "n": "1.5000", "v": "1 day 02:00:00", "y": "\\xdeadbeef", "a": "{1,2}",
        "j": '{"a": 1}', "e": "well", "r": "(1,)", "m": "7", "u": "00000000-0000-0000-0000-000000000001",
    }  # fmt: skip
    ((_, _, first), (_, _, second)) = rows(database)
    ((order,), _) = database.execute("SELECT columns FROM invalidator.outbox")
    assert dict(zip(order, first[0], strict=True)) == expected
    assert second == [[None] * len(types)]


async def test_the_text_of_a_type_depends_on_nothing_that_the_writer_has_set_also_where_it_is_the_only_column(
    database: Database,
) -> None:
    """Functions set no more than their columns need."""
    expected = {
        "date '2026-01-02'": "2026-01-02",
        "timestamp '2026-01-02 03:04:05.6'": "2026-01-02 03:04:05.6",
        "timestamptz '2026-01-02 03:04:05+03'": "2026-01-02 00:04:05+00",
        "time '03:04:05'": "03:04:05",
        "timetz '03:04:05+03'": "03:04:05+03",
        "interval '1 day 2 hours'": "1 day 02:00:00",
        "bytea '\\xdeadbeef'": "\\xdeadbeef",
        "0.1::float8 + 0.2": "0.30000000000000004",
        "0.3::float4": "0.3",
        "ARRAY[timestamptz '2026-01-02 03:04:05+03']": '{"2026-01-02 00:04:05+00"}',
        "1.50::numeric": "1.50",
    }
    tables = [f"t{number}" for number in range(len(expected))]
    for table, value in zip(tables, expected, strict=True):
        database.execute(f"CREATE TABLE {table} AS SELECT {value} AS v")
    await setup(database.dsn, [rule(table, "t:{v}") for table in tables])
    database.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'")
    database.execute("SET bytea_output = 'escape'; SET extra_float_digits = -15")
    for table in tables:
        database.execute(f"UPDATE {table} SET v = v")  # noqa: S608  (names of this test)
    assert [old for _, old, _ in rows(database)] == [[[text]] for text in expected.values()]
    assert [new for _, _, new in rows(database)] == [[[text]] for text in expected.values()]


async def test_a_writer_that_will_not_wait_for_a_locked_outbox_goes_on(shop: Database) -> None:
    """Neither the values nor the note could be written: the server's log says so."""
    with shop.connect() as other, shop.connect() as writer:
        other.execute("LOCK TABLE invalidator.outbox")
        told: list[str] = []
        writer.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        writer.execute("SET lock_timeout = '10ms'")
        writer.execute("INSERT INTO item VALUES (1, 'a', 1)")
        writer.commit()
    assert told == ["invalidator: a change of public.item was not written down: SQLSTATE 55P03"]
    assert shop.execute("SELECT count(*) FROM item") == [(1,)]


async def test_a_failure_in_a_trigger_never_reaches_the_application_and_widens(shop: Database) -> None:
    shop.execute("ALTER TABLE item RENAME COLUMN slug TO name")
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:*", "slug:*")
        assert reader.state.rules["item"].widened[WidenReason.CAPTURE_FAILED] == 1
    assert shop.execute("SELECT count(*) FROM item") == [(1,)]


async def test_a_wake_up_that_fails_takes_no_note_back(shop: Database) -> None:
    """A hardened server, or one whose table of locks is full, may refuse the lock and take the row."""
    await setup(shop.dsn, [ITEM], wakes=True)
    shop.execute("ALTER FUNCTION pg_catalog.pg_try_advisory_xact_lock_shared(bigint) RENAME TO refused")
    shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
    shop.execute("TRUNCATE item")
    assert [operation for operation, _, _ in rows(shop)] == ["C", "C"]


async def test_writers_go_on_when_the_outbox_is_gone(shop: Database) -> None:
    shop.execute("DROP TABLE invalidator.outbox")
    shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
    shop.execute("UPDATE item SET slug = 'b'")
    shop.execute("TRUNCATE item")


async def test_rows_that_cannot_be_paired_widen(database: Database) -> None:
    """A trigger on the new partition swallows the row that an UPDATE moves there."""
    database.execute("CREATE TABLE part (id int, region text) PARTITION BY LIST (region)")
    database.execute("CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a')")
    database.execute("CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b')")
    part = rule("part", "part:{id}")
    await setup(database.dsn, [part])
    database.execute("INSERT INTO part VALUES (1, 'a'), (2, 'a')")
    database.execute("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    database.execute(
        "CREATE TRIGGER swallow BEFORE INSERT ON part_b FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION swallow()"
    )
    database.execute("UPDATE part SET region = 'b'")
    async with reading(database.dsn, [part]) as reader:
        await reader.until("part:1", "part:2", "part:*")
        assert reader.state.rules["part"].widened[WidenReason.CAPTURE_FAILED] == 1


async def test_statements_on_a_partitioned_table_and_on_its_partitions_come_under_its_name(database: Database) -> None:
    database.execute("CREATE TABLE part (id int, region text) PARTITION BY LIST (region)")
    database.execute("CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a')")
    database.execute("CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b') PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE part_b1 (region text, id int)")  # its columns are in another order
    database.execute("ALTER TABLE part_b ATTACH PARTITION part_b1 FOR VALUES FROM (0) TO (1000)")
    part = rule("part", "part:{id}:{region}")
    await setup(database.dsn, [part])
    async with reading(database.dsn, [part]) as reader:
        database.execute("INSERT INTO part VALUES (1, 'a')")
        database.execute("INSERT INTO part_b VALUES (2, 'b')")
        database.execute("INSERT INTO part_b1 (id, region) VALUES (3, 'b')")
        await reader.until("part:1:a", "part:2:b", "part:3:b")
        reader.forget()
        database.execute("UPDATE part SET region = 'b' WHERE id = 1")
        await reader.until("part:1:a", "part:1:b")
        assert list(reader.state.tables) == ["public.part"]


async def test_tables_without_a_key_with_a_composite_key_and_with_generated_columns_are_captured(
    database: Database,
) -> None:
    database.execute("CREATE UNLOGGED TABLE bare (a int, b int GENERATED ALWAYS AS (a * 2) STORED)")
    database.execute('CREATE TABLE "Odd_One" ("from" int, "to" text, PRIMARY KEY ("from", "to"))')
    bare = rule("bare", "bare:{a}:{b}")
    odd = {"name": "odd", "table": "public.Odd_One", "invalidate": {"keys": ["odd:{from}:{to}"]}}
    await setup(database.dsn, [bare, odd])
    async with reading(database.dsn, [bare, odd]) as reader:
        database.execute("INSERT INTO bare VALUES (1), (1)")
        database.execute("UPDATE bare SET a = 5")
        database.execute("""INSERT INTO "Odd_One" VALUES (1, '{"x",\\ null}')""")
        await reader.until("bare:1:2", "bare:5:10", 'odd:1:{"x",\\ null}')


async def test_cascading_deletes_and_upserts_are_seen(database: Database) -> None:
    database.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    database.execute("CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE)")
    child = rule("child", "child:{id}:{parent}")
    await setup(database.dsn, [child])
    async with reading(database.dsn, [child]) as reader:
        database.execute("INSERT INTO parent VALUES (1), (2)")
        database.execute("INSERT INTO child VALUES (1, 1), (2, 1)")
        await reader.until("child:1:1", "child:2:1")
        reader.forget()
        upsert = "INSERT INTO child VALUES (1, 2), (3, 2) ON CONFLICT (id) DO UPDATE SET parent = EXCLUDED.parent"
        database.execute(upsert)
        await reader.until("child:1:1", "child:1:2", "child:3:2")
        reader.forget()
        database.execute("DELETE FROM parent")
        await reader.until("child:1:2", "child:2:1", "child:3:2")


async def test_a_second_daemon_stands_by_until_the_first_is_gone(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as first:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await first.until("item:1")
        second = OutboxSource(Settings(type="outbox", dsn=shop.dsn), Events(State()))
        with pytest.raises(SlotInUse) as caught:
            await anext(second.batches(first.engine))
        pids = shop.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'invalidator/outbox'")
        assert (caught.value.holder_pid,) in pids
        assert database_of(caught.value.system or "") == database_of(first.starts[0].system)
    held = shop.execute("SELECT count(*) FROM pg_locks WHERE (classid::bigint << 32) | objid::bigint = %s", LOCK_KEY)
    assert held == [(0,)], "the next one need not wait until the server has noticed the end of this one"
    async with reading(shop.dsn, [ITEM]) as third:
        shop.execute("INSERT INTO item VALUES (2, 'b', 1)")
        await third.until("item:2")


async def test_a_missing_outbox_says_what_to_run(database: Database) -> None:
    source = OutboxSource(Settings(type="outbox", dsn=database.dsn), Events(State()))
    with pytest.raises(ConfigError, match=r"setup --source outbox"):
        await anext(source.batches(engine_of([ITEM], State())))


async def test_a_connection_begins_where_everything_was_confirmed(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as first:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await first.until("item:1")
        await emptied(shop)
        confirmed = first.end
    async with reading(shop.dsn, [ITEM]) as second:
        shop.execute("INSERT INTO item VALUES (2, 'b', 1)")
        await second.until("item:2")
    [begun], [again] = first.starts, second.starts
    assert (begun.position, begun.gap, again.gap) == (Lsn(0), None, None)
    assert again.position >= confirmed
    assert (again.system, again.timeline) == (begun.system, begun.timeline)
    assert again.end is not None
    assert again.end >= again.position


async def test_rows_of_a_restored_dump_are_a_gap_and_go(shop: Database) -> None:
    """Their numbers mean nothing here, so they would never be new or old."""
    shop.execute(STRANGER)
    async with reading(shop.dsn, [ITEM]) as reader:
        gap = await reader.gap()
        assert (gap.reason, "restored dump" in gap.detail) == (GapReason.OTHER_HISTORY, True)
        await emptied(shop)
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        assert b"item:*" not in reader.keys
        await emptied(shop)
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (2, 'b', 1)")
        await reader.until("item:2")
        assert [start.gap for start in reader.starts] == [None]


async def test_a_gap_is_found_again_until_something_is_confirmed(shop: Database) -> None:
    """A daemon that ends before the gap is made good must not make the next one forget it."""
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        await emptied(shop)
    shop.execute("UPDATE invalidator.confirmed SET outbox = '7/1/1'")
    for _ in range(2):
        async with reading(shop.dsn, [ITEM]) as reader:
            reader.may_confirm = False
            assert (await reader.gap()).reason is GapReason.OTHER_HISTORY


async def test_rows_of_a_restored_dump_alone_are_a_gap_until_something_is_confirmed(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        await emptied(shop)
    shop.execute(STRANGER)
    for _ in range(2):
        async with reading(shop.dsn, [ITEM]) as reader:
            reader.may_confirm = False
            await reader.gap()
            await emptied(shop)


async def test_what_is_committed_while_a_gap_is_handed_over_is_not_removed_with_what_nobody_can_place(
    shop: Database,
) -> None:
    """The first coarse form may have been applied before it."""
    shop.execute(STRANGER)
    source = OutboxSource(Settings(type="outbox", dsn=shop.dsn, heartbeat_seconds=0.1), Events(State()))
    batches = source.batches(engine_of([ITEM], State()))
    try:
        first = await anext(batches)
        assert first.start is not None
        assert first.start.gap is not None
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        found = [await anext(batches) for _ in range(3)]
        assert b"item:1" in {key for batch in found for key in batch.invalidation.keys}
    finally:
        await source.close()


async def test_an_outbox_that_was_made_anew_is_another_one(shop: Database) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        await emptied(shop)
    shop.execute("DROP TABLE invalidator.outbox")
    await setup(shop.dsn, [ITEM])
    async with reading(shop.dsn, [ITEM]) as reader:
        assert "another one" in (await reader.gap()).detail


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE invalidator.outbox",
        "DELETE FROM invalidator.outbox",
        "UPDATE invalidator.outbox SET operation = 'D'",
        "SET session_replication_role = replica; DELETE FROM invalidator.outbox",
    ],
)
async def test_whoever_changes_the_outbox_makes_a_gap(shop: Database, statement: str) -> None:
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        await emptied(shop)
        reader.may_confirm = False
        with shop.connect() as other:
            other.execute(statement)
        gap = await reader.gap()
        word = statement.rpartition(";")[2].split()[0]
        assert (gap.reason, f"by {word}" in gap.detail) == (GapReason.OUTBOX_EMPTIED, True)
    async with reading(shop.dsn, [ITEM]) as reader:  # not confirmed: found again, then gone
        await reader.gap()
        await emptied(shop)
        assert len(reader.starts) == 2


async def test_what_waits_is_not_read_again_while_an_old_transaction_is_open(shop: Database) -> None:
    """Rows that wait for their confirmation for the redo window must not make each look longer."""
    shop.execute("INSERT INTO item SELECT n, 'x', 1 FROM generate_series(1, 10) AS n")
    with shop.connect() as old:
        old.execute("SELECT pg_current_xact_id()")
        async with reading(shop.dsn, [ITEM], poll_max_seconds=0.01) as reader:
            reader.may_confirm = False
            for number in range(1, 11):
                shop.execute("UPDATE item SET price = 2 WHERE id = %s", number)
            await reader.until(*(f"item:{number}" for number in range(1, 11)))
            reader.forget()
            shop.execute("INSERT INTO item VALUES (11, 'y', 1)")
            await reader.until("item:11")
            assert reader.keys == {b"item:11", b"slug:y"}


async def test_the_server_looks_at_what_is_new_alone(shop: Database) -> None:
    """However much waits, and however old the oldest open transaction is: by the plan's own count of rows."""
    insert = "INSERT INTO invalidator.outbox (relation, schema_name, table_name, operation) VALUES (0, 's', 't', 'C')"
    shop.execute(f"DO $$ BEGIN FOR n IN 1..5000 LOOP {insert}; COMMIT; END LOOP; END $$")
    shop.execute("ANALYZE invalidator.outbox")
    with shop.connect() as old:
        old.execute("SELECT pg_current_xact_id()")
        shop.execute(insert)
        seen = shop.execute("SELECT pg_current_snapshot()::text")[0][0]
        shop.execute(insert)
        window = Window(seen=seen, xid=xmin(seen) - 1, id=LAST_ID)
        with psycopg.connect(shop.dsn) as connection:
            connection.execute("SET enable_seqscan = off")  # a small table: what matters is how an index is used
            [[plan]] = connection.execute(
                "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, FORMAT JSON) " + PAGE_SQL, page(window, 64)
            ).fetchall()
    scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "outbox"]
    assert sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans) == 1
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Bitmap Heap Scan"}
    assert plan[0]["Plan"]["Shared Hit Blocks"] < 20


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def test_writers_that_replication_applies_are_seen_only_with_fire_always(shop: Database) -> None:
    with psycopg.connect(shop.dsn, autocommit=True) as replica:
        replica.execute("SET session_replication_role = replica")
        replica.execute("INSERT INTO item VALUES (1, 'a', 1)")
        assert rows(shop) == []
        await setup(shop.dsn, [ITEM], fires_always=True)
        replica.execute("INSERT INTO item VALUES (2, 'b', 1)")
        assert len(rows(shop)) == 1


async def test_an_application_needs_no_privilege_on_the_outbox(shop: Database) -> None:
    role = f"app_{shop.name}"
    shop.execute(f"CREATE ROLE {role}; GRANT INSERT ON item TO {role}")
    try:
        shop.execute(f"SET ROLE {role}")
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.execute("SELECT * FROM invalidator.outbox")
        shop.execute("RESET ROLE")
        assert len(rows(shop)) == 1
    finally:
        shop.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def sleepy(dsn: str) -> Settings:
    """It never looks by itself once it sleeps."""
    return Settings(type="outbox", dsn=dsn, wake="notify").model_copy(update={"poll_max_seconds": 3600})


def sleeping(dsn: str) -> contextlib.AbstractAsyncContextManager[Reading]:
    """An outbox that is read by such a daemon."""
    return read(lambda events: OutboxSource(sleepy(dsn), events), [ITEM])


async def test_a_wake_up_ends_the_wait(shop: Database) -> None:
    await setup(shop.dsn, [ITEM], wakes=True)
    async with sleeping(shop.dsn) as reader:
        for number in range(3):
            await asleep(shop)
            shop.execute("INSERT INTO item VALUES (%s, 'a', 1)", number)
            await reader.until(f"item:{number}")


async def test_the_daemon_does_not_wait_for_a_wake_up_by_a_transaction_that_saw_it_awake(shop: Database) -> None:
    await setup(shop.dsn, [ITEM], wakes=True)
    with shop.connect() as late:
        late.execute("INSERT INTO item VALUES (1, 'late', 1)")  # nobody sleeps: it does not notify
        async with sleeping(shop.dsn) as reader:
            shop.execute("INSERT INTO item VALUES (2, 'early', 1)")
            await reader.until("item:2")
            await emptied(shop)
            assert not is_asleep(shop)
            late.commit()
            await reader.until("item:1")
            await asleep(shop)


async def test_a_daemon_that_has_something_to_apply_is_awake_however_long_that_takes(shop: Database) -> None:
    await setup(shop.dsn, [ITEM], wakes=True)
    source = OutboxSource(sleepy(shop.dsn), Events(State()))
    batches = source.batches(engine_of([ITEM], State()))

    async def until_the_item_comes() -> None:
        while b"item:1" not in (await anext(batches)).invalidation.keys:
            pass

    task = asyncio.create_task(until_the_item_comes())
    try:
        await asleep(shop)
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await task
        assert not is_asleep(shop)
    finally:
        task.cancel()
        await source.close()


async def test_only_a_daemon_that_sleeps_is_notified(shop: Database) -> None:
    await setup(shop.dsn, [ITEM], wakes=True)
    with psycopg.connect(shop.dsn, autocommit=True) as daemon:
        daemon.execute(f"LISTEN {CHANNEL}")
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        shop.execute("SELECT pg_notify(%s, 'awake')", CHANNEL)
        daemon.execute("SELECT pg_advisory_lock(%s)", [SLEEP_KEY])
        for statement in ("UPDATE item SET slug = 'b'", "TRUNCATE item"):
            shop.execute(statement)
            shop.execute("SELECT pg_notify(%s, 'asleep')", CHANNEL)
        payloads = [notify.payload for notify in daemon.notifies(timeout=DEADLINE_SECONDS, stop_after=5)]
    assert payloads == ["awake", "", "asleep", "", "asleep"]
