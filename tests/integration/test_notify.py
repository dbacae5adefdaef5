"""Notifications of an application against a real server: what is heard, what is noticed when nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest

from invalidator.demo.servers import PostgresServer
from invalidator.errors import SlotInUse, SourceDisconnected, Unheard
from invalidator.model import GapReason, WidenReason
from invalidator.telemetry.problems import problems
from tests.support.checked import Project
from tests.support.notify import CHANNEL, listening, notify, triggers
from tests.support.pooler import Pooler
from tests.support.postgres import CopiedServer, Database, Server, own_database
from tests.support.processes import DEADLINE_SECONDS
from tests.support.reading import Reading, rule

pytestmark = pytest.mark.usefixtures("quiet_logs")

ITEM = rule("item", "item:{id}", "slug:{slug}")


@pytest.fixture
async def shop(database: Database) -> Database:
    """A table; nothing notifies yet."""
    database.execute("CREATE TABLE item (id int PRIMARY KEY, slug text, price int)")
    return database


async def sql(database: Database, statement: str, *parameters: object) -> None:
    await asyncio.to_thread(database.execute, statement, *parameters)


async def ended(reader: Reading) -> BaseException | None:
    """What ended the connection."""
    await asyncio.wait([reader.task], timeout=DEADLINE_SECONDS)
    return reader.task.exception()


def locks(database: Database) -> int:
    """How many advisory locks are held in the database."""
    statement = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE l.locktype = 'advisory' AND d.datname = current_database()"
    )
    return int(database.execute(statement)[0][0])


async def test_payloads_name_old_and_new_values(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM]) as reader:
        await reader.started()
        await notify(shop, table="item", op="INSERT", new={"id": 1, "slug": "a"})
        await notify(shop, table="item", op="update", old={"id": 1, "slug": "a"}, new={"id": 1, "slug": "b"})
        await notify(shop, schema="public", table="item", op="delete", old={"id": 2, "slug": "c"})
        await reader.until("item:1", "item:2", "slug:a", "slug:b", "slug:c")
        assert reader.keys == {b"item:1", b"item:2", b"slug:a", b"slug:b", b"slug:c"}
        assert reader.state.source.notifications.counts == {"applied": 3}


async def test_what_a_payload_does_not_send_widens(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM]) as reader:
        await reader.started()
        await notify(shop, table="item", op="update", new={"id": 1, "slug": "a"})
        await reader.until("item:*", "slug:*")
        reader.forget()
        await notify(shop, table="item", op="update", old={"id": 2}, new={"id": 2})
        await reader.until("item:2", "slug:*")
        reader.forget()
        await notify(shop, table="item", op="update")
        await reader.until("item:*", "slug:*")
        widened = reader.state.rules["item"].widened
        assert widened[WidenReason.OLD_UNAVAILABLE] == 1
        assert widened[WidenReason.MISSING_COLUMN] == 1
        assert widened[WidenReason.CAPTURE_FAILED] == 1


async def test_what_nobody_understands_is_counted_and_the_next_one_is_read(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM]) as reader:
        await reader.started()
        await notify(shop, "no json")
        await notify(shop, "[1]")
        await notify(shop, table="item\0", op="insert", new={"id": 1})
        await notify(shop, table="\ud800", op="insert", new={"id": 1})
        await notify(shop, "")
        await notify(shop, table="gone", op="insert", new={"id": 1})
        await notify(shop, table="item", op="explode", new={"id": 1})
        await notify(shop, table="item", op="insert", new={"id": 7, "slug": "a"})
        await reader.until("item:7")
        counts = reader.state.source.notifications.counts
        assert counts == {"unreadable": 5, "unknown_table": 1, "without_rows": 1, "applied": 1}


async def test_names_that_the_encoding_of_the_database_cannot_hold_are_tables_that_it_does_not_have(
    postgres_server: Server,
) -> None:
    with own_database(postgres_server, "ENCODING 'LATIN1' LOCALE 'C'") as database:
        await sql(database, "CREATE TABLE item (id int PRIMARY KEY, slug text)")
        async with listening(database.dsn, [ITEM]) as reader:
            await reader.started()
            await notify(database, table="\u2713", op="insert", new={"id": 1})
            await notify(database, table="item", op="insert", new={"id": 7, "slug": "a"})
            await reader.until("item:7")
            assert reader.state.source.notifications.counts == {"unknown_table": 1, "applied": 1}


async def test_a_rule_for_a_table_that_is_gone_widens(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM, rule("gone", "gone:{id}")]) as reader:
        await reader.started()
        await notify(shop, table="gone", op="insert", new={"id": 1})
        await reader.until("gone:*")
        assert reader.keys == {b"gone:*"}


async def test_a_partition_counts_as_the_partitioned_table(database: Database) -> None:
    database.execute("CREATE TABLE item (id int, slug text) PARTITION BY LIST (id)")
    database.execute("CREATE TABLE item_1 PARTITION OF item FOR VALUES IN (1)")
    async with listening(database.dsn, [ITEM]) as reader:
        await reader.started()
        await notify(database, table="item_1", op="insert", new={"id": 1, "slug": "a"})
        await reader.until("item:1", "slug:a")


async def test_the_recommended_triggers_name_what_logical_replication_would(database: Database) -> None:
    database.execute(
        """CREATE TABLE item (id int PRIMARY KEY, slug text, flag bool, at timestamptz, moment timestamp, day interval,
           amount numeric, list int[], number float8, data bytea)"""
    )
    keys = [f"{name}:{{{name}}}" for name in ("id", "slug", "flag", "at", "moment", "day", "amount", "number", "data")]
    rules = [rule("item", *keys), rule("item", "list:{list}", name="lists")]
    await triggers(database.dsn, rules)
    async with listening(database.dsn, rules) as reader:
        await reader.started()
        await sql(
            database,
            """SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard';
               SET bytea_output = 'escape'; SET extra_float_digits = -5;
               INSERT INTO item VALUES (1, 'ü"\\', true, '2026-01-02 03:04:05.6+00', '2026-01-02 03:04:05', '1 day 2 h',
                                        1.50, '{1,2}', 0.1, '\\x00ff');
               INSERT INTO item (id) VALUES (2)""",
        )
        await reader.until("id:1", "id:2")
        assert reader.keys == {
            b"id:1", b"id:2", 'slug:ü"\\'.encode(), b"flag:t", b"at:2026-01-02 03:04:05.6+00",
            b"moment:2026-01-02 03:04:05", b"day:1 day 02:00:00", b"amount:1.50", b"number:0.1", b"data:\\x00ff",
            b"list:{1,2}",
        }  # fmt: skip
        reader.forget()
        await sql(database, "UPDATE item SET id = 3, slug = 'b' WHERE id = 1")
        await reader.until("id:1", "id:3", "slug:b", 'slug:ü"\\')
        reader.forget()
        await sql(database, "DELETE FROM item WHERE id = 2; TRUNCATE item")
        await reader.until("id:2", "id:*", "list:*")


async def test_a_row_too_long_for_a_payload_widens_and_no_trigger_fails_the_application(shop: Database) -> None:
    await triggers(shop.dsn, [ITEM])
    async with listening(shop.dsn, [ITEM]) as reader:
        await reader.started()
        await sql(shop, "INSERT INTO item VALUES (1, repeat('ü', 4000))")
        await reader.until("item:*", "slug:*")
        await sql(shop, "ALTER TABLE item RENAME COLUMN slug TO title")
        reader.forget()
        await sql(shop, "INSERT INTO item VALUES (2, 'a')")
        await reader.until("item:*", "slug:*")
        assert shop.execute("SELECT count(*) FROM item") == [(2,)]


async def test_rows_beyond_the_bound_widen_while_the_consumer_is_slow(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM], max_batch_items=10) as reader:
        await reader.started()
        notice = '{"table": "item", "op": "insert", "new": {"id": "%s", "slug": "a"}}'
        await sql(
            shop, "SELECT count(pg_notify(%s, format(%s, n))) FROM generate_series(1, 5000) AS n", CHANNEL, notice
        )
        await reader.until("item:*")
        assert reader.state.rules["item"].widened[WidenReason.BULK]
        assert max(len(batch.invalidation) for batch in reader.batches) <= 10 + 2  # the coarse forms


async def test_heartbeats_come_back_with_a_position_and_the_usage_of_the_queue(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM], heartbeat_seconds=0.05) as reader:
        first = await reader.beaten()
        second = await reader.beaten(2)
        assert first.heartbeat is not None
        assert first.end is not None
        assert second.end is not None
        assert second.end >= first.end
        usage = reader.state.source.notification_queue_usage
        assert usage is not None
        assert 0 <= usage < 0.01  # the queue is that of the whole server


async def test_a_lost_side_connection_costs_nothing_a_lost_listener_is_a_gap(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM], heartbeat_seconds=0.05) as reader:
        await reader.started()
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()"
        )
        assert shop.execute(end, "invalidator/notify/side") == [(True,)]
        await reader.beaten(len(reader.heartbeats) + 2)
        await notify(shop, table="item", op="insert", new={"id": 1, "slug": "a"})
        await reader.until("item:1")
        assert shop.execute(end, "invalidator/notify/listen") == [(True,)]
        error = await ended(reader)
        assert isinstance(error, SourceDisconnected)
        reader.again()
        gap = await reader.gap()
        assert gap.reason is GapReason.NOT_LISTENING
        assert "nobody listened for up to" in gap.detail


async def test_a_second_daemon_of_the_name_stands_by_and_one_of_another_name_listens(shop: Database) -> None:
    async with listening(shop.dsn, [ITEM]) as reader:
        await reader.started()
        async with listening(shop.dsn, [ITEM]) as second:
            error = await ended(second)
            assert isinstance(error, SlotInUse)
            assert error.holder_pid
            assert error.system == (await reader.started()).system
            second.task = asyncio.ensure_future(asyncio.sleep(0))
        async with listening(shop.dsn, [ITEM], name="other") as third:
            await third.started()
            assert locks(shop) == 2
    assert locks(shop) == 0, "the next one need not wait until the server has noticed the end of this one"


async def test_a_pooler_in_transaction_mode_is_told_at_the_start(
    shop: Database, pooler_to: Callable[[str], Awaitable[Pooler]]
) -> None:
    pooler = await pooler_to(shop.dsn)
    async with listening(pooler.through(shop.dsn), [ITEM], unheard_seconds=0.3) as reader:
        error = await ended(reader)
        assert isinstance(error, Unheard)
        assert "a connection pooler in transaction or statement mode stands between" in str(error)
        reader.task = asyncio.ensure_future(asyncio.sleep(0))
    assert locks(shop) == 0


async def test_a_pooler_that_comes_later_is_told_too(
    shop: Database, pooler_to: Callable[[str], Awaitable[Pooler]]
) -> None:
    pooler = await pooler_to(shop.dsn)
    pooler.is_pooling = False
    async with listening(
        pooler.through(shop.dsn), [ITEM], unheard_seconds=1.5
    ) as reader:  # at first it must be heard in time
        await reader.started()
        pooler.is_pooling = True
        pooler.cut()
        assert isinstance(await ended(reader), SourceDisconnected)
        reader.again()
        error = await ended(reader)
        assert isinstance(error, SourceDisconnected)
        assert error.reason == "unheard"
        reader.task = asyncio.ensure_future(asyncio.sleep(0))


@pytest.fixture(scope="module")
def small_queue() -> Iterator[PostgresServer]:
    """A server whose queue for notifications is as small as can be."""
    with CopiedServer({"max_notify_queue_pages": "64"}) as server:
        yield server


async def test_the_server_can_empty_its_queue_however_slow_the_consumer_is(small_queue: PostgresServer) -> None:
    """Three times what the queue holds; with a listener that did not read, COMMIT would fail."""
    with psycopg.connect(small_queue.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, slug text)")
        async with listening(small_queue.dsn(), [ITEM], max_batch_items=10) as reader:
            await reader.started()
            reader.pause()
            for number in range(200):
                payload = f'{{"table": "item", "op": "insert", "new": {{"id": {number}, "slug": "{"a" * 7000}"}}}}'
                await asyncio.to_thread(connection.execute, "SELECT pg_notify(%s, %s)", [CHANNEL, payload])
                deadline = time.monotonic() + DEADLINE_SECONDS
                while connection.execute("SELECT pg_notification_queue_usage() > 0.5").fetchone() == (True,):
                    assert time.monotonic() < deadline, "the queue is not emptied"
                    await asyncio.sleep(0.01)
            reader.go_on()
            await reader.until("item:*")
            assert sum(len(batch.invalidation) for batch in reader.batches) < 40


async def test_a_session_that_listens_in_an_open_transaction_fills_the_queue_which_is_told_until_it_is_emptied(
    small_queue: PostgresServer,
) -> None:
    def fill() -> None:
        """Some pages of the 64 that there are."""
        for _ in range(5):
            connection.execute("SELECT pg_notify('another', %s)", ["a" * 7000])

    def told(reader: Reading) -> list[str]:
        found = problems(reader.state, time.time())
        return [each.text for each in found if each.code == "notification-queue-high"]

    idle = psycopg.connect(small_queue.dsn())
    with psycopg.connect(small_queue.dsn(), autocommit=True) as connection, contextlib.closing(idle):
        connection.execute("CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, slug text)")
        async with listening(small_queue.dsn(), [ITEM], heartbeat_seconds=0.05) as reader:
            await reader.beaten()
            assert told(reader) == []
            idle.execute("LISTEN another")
            idle.commit()
            idle.execute("SELECT 1")
            for _ in range(5):
                await asyncio.to_thread(fill)
            await reader.beaten(len(reader.heartbeats) + 2)
            (text,) = told(reader)
            assert re.search(r"the server's notification queue is [1-9]\d% full", text)

            idle.rollback()

            deadline = time.monotonic() + DEADLINE_SECONDS
            while told(reader):
                assert time.monotonic() < deadline, "the queue is not emptied"
                await asyncio.to_thread(fill)
                await asyncio.to_thread(idle.execute, "SELECT 1")  # takes what has come
                idle.rollback()
                await reader.beaten(len(reader.heartbeats) + 1)


POST = "  - {name: post, table: public.post, invalidate: {keys: ['post:{id}']}}\n"


async def test_setup_recommends_triggers_and_makes_only_the_role(checked: Project) -> None:
    checked.database.execute("CREATE TABLE post (id int PRIMARY KEY)")
    checked.source = {"type": "notify", "dsn": checked.database.dsn, "channels": [CHANNEL]}
    checked.write(POST)
    role = f"reader_{checked.database.name}"
    try:
        done = checked.run("setup", "--apply", "--role", role)
        assert done.code == 0, done.errors
        assert f'CREATE ROLE "{role}" LOGIN' in done.output
        assert '-- CREATE OR REPLACE TRIGGER "notify_post" AFTER INSERT OR UPDATE OR DELETE' in done.output
        assert "setup makes no trigger" in done.output
        assert checked.database.execute("SELECT count(*) FROM pg_trigger") == [(0,)]
        assert "stays" in checked.run("setup", "--drop", "--role", role).output
    finally:
        checked.database.execute(f"DROP ROLE IF EXISTS {role}")


async def test_check_listens_and_says_whether_anything_comes(
    checked: Project, pooler_to: Callable[[str], Awaitable[Pooler]]
) -> None:
    checked.database.execute("CREATE TABLE post (id int PRIMARY KEY)")
    checked.source = {
        "type": "notify",
        "dsn": checked.database.dsn,
        "channels": [CHANNEL],
    }
    checked.write(POST)
    well = await asyncio.to_thread(checked.run, "check", "--online")
    assert (well.code, f"channels {CHANNEL} ✓" in well.output) == (0, True), well.output
    pooler = await pooler_to(checked.database.dsn)
    checked.source |= {"dsn": pooler.through(checked.database.dsn), "unheard_seconds": 0.5}
    checked.write(POST)
    deaf = await asyncio.to_thread(checked.run, "check", "--online", "--json")
    assert deaf.code == 1
    assert deaf.codes() == ["notifications-unheard"]
