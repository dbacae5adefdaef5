"""The daemon as a process, over real servers: what it drops, and that it loses nothing when things break."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from invalidator.demo.servers import KeyValueServer, PostgresServer
from invalidator.model import Lsn
from tests.support.daemon import ITEM_RULE, Stack
from tests.support.postgres import Database, Server, own_database
from tests.support.processes import Program
from tests.support.proxy import Fault, FaultProxy


def status(program: Program) -> dict[str, Any]:
    address = program.wait_for_event("daemon.started")["http"]
    parsed: dict[str, Any] = json.loads(program.wait_for_http(f"http://{address}/status"))
    return parsed


# ---------------------------------------------------------------- what is dropped


async def test_a_changed_row_drops_its_keys_its_tag_set_and_tells_the_processes(stack: Stack) -> None:
    await stack.start()
    listener = stack.subscribed()
    stack.fill("item:1", "page:1", "item:2")
    stack.client.sadd("tag:item:1", "page:1")

    await stack.sql("INSERT INTO item VALUES (1, 'a')")

    await stack.gone("item:1", "page:1", "tag:item:1")
    assert stack.client.exists("item:2")
    await stack.until(lambda: "item:1:*" in str(listener.get_message(timeout=1)), "the message")
    listener.close()


async def test_a_rolled_back_transaction_drops_nothing(stack: Stack) -> None:
    await stack.start()
    stack.fill("item:1", "item:2")

    await stack.sql("BEGIN; INSERT INTO item VALUES (1); ROLLBACK")
    await stack.sql("INSERT INTO item VALUES (2)")

    await stack.gone("item:2")
    assert stack.client.exists("item:1")


async def test_a_changed_key_drops_the_old_and_the_new_one(stack: Stack) -> None:
    stack.rules = [{"name": "slug", "table": "public.item", "invalidate": {"keys": ["item:slug:{name}"]}}]
    await stack.sql("ALTER TABLE item REPLICA IDENTITY FULL; INSERT INTO item VALUES (1, 'a')")
    await stack.start()
    stack.fill("item:slug:a", "item:slug:b", "item:slug:c")

    await stack.sql("UPDATE item SET name = 'b'")

    await stack.gone("item:slug:a", "item:slug:b")
    assert stack.client.exists("item:slug:c")


async def test_an_old_value_that_was_not_sent_widens_instead_of_staying_stale(stack: Stack) -> None:
    stack.rules = [{"name": "slug", "table": "public.item", "invalidate": {"keys": ["item:slug:{name}"]}}]
    await stack.sql("INSERT INTO item VALUES (1, 'a')")
    program = await stack.start()
    stack.fill("item:slug:a", "item:slug:b", "item:slug:c", "other:slug:a")

    await stack.sql("UPDATE item SET name = 'b'")

    await stack.gone("item:slug:a", "item:slug:b", "item:slug:c")
    assert stack.client.exists("other:slug:a")
    assert status(program)["rules"]["by_name"]["slug"]["widened"] == {"old_unavailable": 1}


async def test_a_truncate_drops_everything_that_the_rule_can_name(stack: Stack) -> None:
    await stack.sql("INSERT INTO item VALUES (1, 'a')")
    await stack.start()
    stack.fill("item:1", "item:77", "page:1", "other:1")
    stack.client.sadd("tag:item:5", "page:1")

    await stack.sql("TRUNCATE item")

    await stack.gone("item:1", "item:77", "page:1")
    assert stack.client.exists("other:1")


async def test_a_bulk_change_drops_the_coarse_form_once(stack: Stack) -> None:
    stack.rules = [{**ITEM_RULE, "bulk_over": 100, "coarse": {"tags": ["items"]}}]
    program = await stack.start()
    stack.fill("item:1", "listing")
    stack.client.sadd("tag:items", "listing")

    await stack.sql("INSERT INTO item SELECT generate_series(1, 5000)")

    await stack.gone("item:1", "listing")
    await stack.confirmed_everything()
    assert status(program)["rules"]["by_name"]["item"]["widened"] == {"bulk": 1}
    assert status(program)["targets"]["redis"]["delivered"]["key"] <= 100


async def test_a_null_in_a_template_names_nothing_and_stops_nothing(stack: Stack) -> None:
    stack.rules = [{"name": "name", "table": "public.item", "invalidate": {"keys": ["item:name:{name}"]}}]
    await stack.start()
    stack.fill("item:name:", "item:name:x", "item:name:NULL")

    await stack.sql("INSERT INTO item VALUES (1, NULL), (2, 'x')")

    await stack.gone("item:name:x")
    assert stack.client.exists("item:name:", "item:name:NULL") == 2


async def test_a_dropped_column_widens_its_rule_and_is_reported(stack: Stack) -> None:
    stack.rules = [{"name": "name", "table": "public.item", "invalidate": {"keys": ["item:name:{new.name}"]}}]
    program = await stack.start()
    await stack.sql("ALTER TABLE item DROP COLUMN name")
    stack.fill("item:name:anything")

    await stack.sql("INSERT INTO item VALUES (1)")

    await stack.gone("item:name:anything")
    await stack.confirmed_everything()  # the look at the catalog, which widens too, may have come before the row
    assert "missing_column" in status(program)["rules"]["by_name"]["name"]["widened"]
    assert any(problem["code"] == "missing-column" for problem in status(program)["problems"])


async def test_hostile_values_name_their_own_key_and_no_other(stack: Stack) -> None:
    stack.rules = [
        {"name": "name", "table": "public.item", "invalidate": {"keys": ["k:{new.name}"], "l1": ["k:{new.name}:*"]}}
    ]
    await stack.start()

    for number, value in enumerate(["*", "?", "[a]", "a b", "a,b", "a\nb", "\x01\x7f", "x" * 10_000, "ü€😀", "'\"\\"]):
        stack.fill(f"k:{value}", "k:other")
        await stack.sql("INSERT INTO item VALUES (%s, %s)", number, value)
        await stack.gone(f"k:{value}")
        assert stack.client.exists("k:other")


async def test_bytes_that_are_no_utf8_name_their_key(
    tmp_path: Path, postgres_server: Server, redis_url: str, run_program: Callable[..., Program]
) -> None:
    with own_database(postgres_server, "ENCODING 'SQL_ASCII' LOCALE 'C'") as database:
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        stack = Stack(tmp_path, database, redis_url, run_program)
        stack.rules = [
            {"name": "n", "table": "public.item", "invalidate": {"keys": ["k:{new.name}"], "l1": ["k:{new.name}"]}}
        ]
        await stack.start()
        stack.client.set(b"k:\xff\xfe", "stale")

        await stack.sql("INSERT INTO item VALUES (1, convert_from('\\xfffe', 'SQL_ASCII'))")

        await stack.until(lambda: not stack.client.exists(b"k:\xff\xfe"), "the key of raw bytes is gone")
        stack.client.close()


async def test_a_rule_for_a_table_that_is_not_published_is_a_problem_from_the_first_moment(stack: Stack) -> None:
    await stack.sql("CREATE TABLE other (id int PRIMARY KEY)")
    await stack.sql("CREATE PUBLICATION invalidator FOR TABLE item")
    await stack.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", stack.database.name)
    stack.source["create"] = False
    stack.rules = [
        ITEM_RULE,
        {"name": "other", "table": "public.other", "invalidate": {"keys": ["other:{id}"]}},
        {"name": "typo", "table": "public.itme", "invalidate": {"keys": ["itme:{id}"]}},
    ]

    program = await stack.start()

    problems = {problem["subject"]: problem for problem in status(program)["problems"]}
    unpublished, misspelled = problems["public.other (not-published)"], problems["public.itme (unknown-table)"]
    assert unpublished["code"] == misspelled["code"] == "setup-incomplete"
    assert 'ADD TABLE "public"."other"' in unpublished["fix"]
    assert "rules.yaml" in misspelled["text"]
    assert "public.item" in misspelled["fix"]


# ---------------------------------------------------------------- kill -9 between any two steps


async def test_a_kill_before_the_unlink_loses_nothing(stack: Stack, proxy_to: Callable[[str], Any]) -> None:
    proxy: FaultProxy = await proxy_to(stack.url)
    program = await start_behind(proxy, stack)
    proxy.fault = Fault.BLACK_HOLE

    await stack.sql("INSERT INTO item VALUES (1)")
    position = await stack.position()
    await stack.until(lambda: status(program)["tables"].get("public.item", {}).get("insert") == 1, "the row was read")
    assert stack.client.exists("item:1")
    assert not stack.has_confirmed(position)
    program.kill()
    proxy.reset_connections()  # what the dead daemon had sent never arrives
    proxy.fault = Fault.NONE
    await stack.start()

    await stack.gone("item:1")


async def test_a_kill_between_the_unlink_and_its_reply_loses_nothing(
    stack: Stack, proxy_to: Callable[[str], Any]
) -> None:
    proxy: FaultProxy = await proxy_to(stack.url)
    program = await start_behind(proxy, stack)
    proxy.fault = Fault.DROP_REPLIES

    await stack.sql("INSERT INTO item VALUES (1)")
    position = await stack.position()
    await stack.until(lambda: not status(program)["targets"]["redis"]["ok"], "it has waited for a reply in vain")
    assert not stack.has_confirmed(position), "unlinked or not, nobody told us: not confirmed"
    program.kill()
    stack.fill("item:1")
    proxy.fault = Fault.NONE
    await stack.start()

    await stack.gone("item:1")


async def start_behind(proxy: FaultProxy, stack: Stack) -> Program:
    """A daemon whose connection to Redis goes through the proxy and is open; no heartbeat disturbs what follows."""
    stack.source["heartbeat_seconds"] = 60
    stack.targets = {"redis": {"type": "redis_keys", "url": proxy.through(stack.url)}}
    program = await stack.start()
    stack.fill("item:1")
    await stack.until(lambda: status(program)["targets"]["redis"]["p50_ms"] is not None, "Redis has answered")
    return program


async def test_a_kill_after_the_confirmation_repeats_nothing_that_was_confirmed(stack: Stack) -> None:
    program = await stack.start()
    stack.fill("item:1")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.confirmed_everything()
    program.kill()
    stack.fill("item:1", "item:2")

    await stack.start()
    await stack.sql("INSERT INTO item VALUES (2)")

    await stack.gone("item:2")
    assert stack.client.exists("item:1")


async def test_kills_at_random_moments_under_load_lose_nothing(stack: Stack) -> None:
    written = 0
    enough = asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not enough.is_set():
            first, written = written + 1, written + 5
            # The reader's fill comes before the write: whatever is in the cache afterwards was missed.
            await asyncio.to_thread(stack.fill, *(f"item:{number}" for number in range(first, written + 1)))
            await stack.sql("INSERT INTO item SELECT generate_series(%s::int, %s::int)", first, written)

    program = await stack.start()
    writing = asyncio.ensure_future(write())
    chance = random.Random(20261122)  # noqa: S311  (moments, not secrets)
    try:
        for _ in range(4):
            applied = status(program)["source"]["transactions"] + chance.randrange(5, 60)
            await stack.until(lambda: status(program)["source"]["transactions"] >= applied, "it works")  # noqa: B023
            program.kill()
            program = await stack.start()
    finally:
        enough.set()
        await writing

    await stack.gone(*(f"item:{number}" for number in range(1, written + 1)))


# ---------------------------------------------------------------- Redis breaks


async def test_a_restarted_redis_gets_what_it_missed(stack: Stack, own_redis: KeyValueServer) -> None:
    own = Stack(stack.folder, stack.database, own_redis.url, stack._run)
    program = await own.start()
    own_redis.kill()

    await own.sql("INSERT INTO item VALUES (1)")
    position = await own.position()
    await program.event("delivery.failed")
    assert not own.has_confirmed(position)
    own_redis.start()

    await program.event("delivery.recovered")
    await own.until(lambda: own.has_confirmed(position), "the position is confirmed")
    own.fill("item:2")
    await own.sql("INSERT INTO item VALUES (2)")
    await own.gone("item:2")
    own.client.close()


async def test_a_hung_redis_holds_the_position_and_the_server_is_still_answered(
    stack: Stack, own_redis: KeyValueServer
) -> None:
    own = Stack(stack.folder, stack.database, own_redis.url, stack._run)
    own.targets = {"redis": {"type": "redis_keys", "url": own_redis.url, "timeout_seconds": 0.5}}
    program = await own.start()
    own.fill("item:1")
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        await own.sql("INSERT INTO item VALUES (1)")
        position = await own.position()
        failed = await program.event("delivery.failed", count=1)
        assert failed["result"] == "timeout"
        replies: set[object] = set()
        statement = (
            "SELECT reply_time FROM pg_stat_replication"
            " WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s)"
        )

        def has_replied() -> bool:
            replies.update(own.database.execute(statement, own.database.name))
            return len(replies) > 3

        await own.until(has_replied, "status updates go on")
        assert not own.has_confirmed(position)
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)

    await own.gone("item:1")
    own.client.close()


# ---------------------------------------------------------------- Postgres breaks


async def test_a_postgres_that_restarts_is_followed_and_its_shutdown_is_not_delayed(
    tmp_path: Path,
    crashable_postgres: PostgresServer,
    own_redis: KeyValueServer,
    run_program: Callable[..., Program],
) -> None:
    with psycopg.connect(crashable_postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    database = unconnected(crashable_postgres)
    stack = Stack(tmp_path, database, own_redis.url, run_program)
    program = await stack.start()
    os.kill(own_redis.pid, signal.SIGSTOP)  # a consumer that confirms nothing would block a fast shutdown for ever
    try:
        with psycopg.connect(crashable_postgres.dsn(), autocommit=True) as admin:
            admin.execute("INSERT INTO item SELECT generate_series(1, 1000)")

        await asyncio.to_thread(crashable_postgres.stop, "fast")  # fails after half a minute
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    await program.event("stream.lost")
    stack.fill("item:1", "item:1001")
    crashable_postgres.start()
    await program.event("stream.connected", count=2)
    with psycopg.connect(crashable_postgres.dsn(), autocommit=True) as admin:
        admin.execute("INSERT INTO item VALUES (1001)")

    await stack.gone("item:1", "item:1001")
    stack.client.close()


def unconnected(server: PostgresServer) -> Database:
    """The server's database without a connection to it, which would end with the server."""
    database = Database(Server(server.dsn()), "postgres")
    database.close()
    return database


async def insert_and_wait(stack: Stack, admin: psycopg.Connection[Any], number: int) -> str:
    """Insert a row; return the end of the WAL behind it once the slot has confirmed that."""
    admin.execute("INSERT INTO item VALUES (%s)", [number])
    row = admin.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    ask = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots"
    await stack.until(lambda: admin.execute(ask, row).fetchone() == (True,), f"row {number} is confirmed")
    assert row is not None
    return str(row[0])


async def test_a_crashed_postgres_is_followed(
    tmp_path: Path, crashable_postgres: PostgresServer, redis_url: str, run_program: Callable[..., Program]
) -> None:
    with psycopg.connect(crashable_postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    database = unconnected(crashable_postgres)
    stack = Stack(tmp_path, database, redis_url, run_program)
    with psycopg.connect(crashable_postgres.dsn(), autocommit=True) as admin:
        program = await stack.start()
        # What it writes now and then makes the server save the slot's position, which only a checkpoint does else.
        rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'").fetchall()
        background_writer = rows[0][0]
        os.kill(background_writer, signal.SIGSTOP)
        await insert_and_wait(stack, admin, 0)
        end = await insert_and_wait(stack, admin, 1)

    crashable_postgres.kill()
    os.kill(background_writer, signal.SIGCONT)
    await program.event("stream.lost")
    stack.fill("item:1", "item:2", "item:3")
    crashable_postgres.start()
    with psycopg.connect(crashable_postgres.dsn(), autocommit=True) as admin:
        admin.execute("INSERT INTO item VALUES (2)")
    again = await program.event("stream.connected", count=2)

    await stack.gone("item:1", "item:2")  # the first row comes once more
    assert Lsn.parse(again["position"]) < Lsn.parse(end), "the position went back, or this test shows nothing"
    assert not program.events("gap.found")
    assert stack.client.exists("item:3")
    stack.client.close()


async def test_a_second_daemon_stands_by_and_takes_over(stack: Stack) -> None:
    first = await stack.start()
    second = stack.run()
    await second.event("stream.standby")
    stack.fill("item:1")

    first.terminate()
    assert await asyncio.to_thread(first.wait) == 0
    await stack.sql("INSERT INTO item VALUES (1)")

    await stack.gone("item:1")
    await second.event("stream.connected")  # the key may be gone before the log has told


# ---------------------------------------------------------------- stopping, and not starting


async def test_sigterm_in_the_middle_of_work_ends_with_0_and_what_was_not_confirmed_comes_again(stack: Stack) -> None:
    stack.settings["shutdown"] = {"grace_seconds": 60}
    program = await stack.start()
    stack.fill("item:50000")
    await stack.sql("INSERT INTO item SELECT generate_series(1, 50000)")
    position = await stack.position()
    program.terminate()

    assert await asyncio.to_thread(program.wait) == 0
    assert program.events("daemon.stopped")[0]["clean"] is True
    await stack.released()
    if not stack.has_confirmed(position):
        stack.fill("item:50000")
    await stack.start()
    await stack.confirmed_everything()
    assert not stack.client.exists("item:50000")


async def test_sigterm_with_a_dead_target_ends_within_the_grace_and_leaves_the_rest_unconfirmed(
    stack: Stack, own_redis: KeyValueServer
) -> None:
    own = Stack(stack.folder, stack.database, own_redis.url, stack._run)
    own.settings["shutdown"] = {"grace_seconds": 0.5}
    program = await own.start()
    own_redis.kill()
    await own.sql("INSERT INTO item VALUES (1)")
    position = await own.position()
    await program.event("delivery.failed")

    program.terminate()

    assert await asyncio.to_thread(program.wait) == 0
    assert program.events("daemon.stopped")[0]["clean"] is False
    assert not own.has_confirmed(position)
    own.client.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda stack: stack.rules.append({"name": "x", "tabel": "public.item", "invalidate": {}}),
            "unknown field 'tabel'",
        ),
        (lambda stack: stack.targets["redis"].update(urll="x"), "urll"),
        (lambda stack: stack.targets.update(edge={"type": "fastyl"}), "did you mean 'fastly'?"),
        (lambda stack: stack.source.update(create=False), "publication"),
    ],
)
async def test_broken_settings_and_rules_start_nothing(
    stack: Stack, spoil: Callable[[Stack], object], message: str
) -> None:
    spoil(stack)

    program = stack.run()

    assert await asyncio.to_thread(program.wait) == 78
    assert message in program.output
    assert "Traceback" not in program.output
    assert not await stack.sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", stack.database.name)
