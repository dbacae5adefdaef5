"""The daemon over an outbox, a real Postgres without a slot, and a real Redis."""

from __future__ import annotations

import asyncio

import pytest

from invalidator.demo.servers import KeyValueServer
from tests.support.daemon import ITEM_RULE, Stack
from tests.support.outbox import emptied, setup
from tests.support.postgres import Server, own_database
from tests.support.watched import Watched


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    """The stack with an outbox instead of a slot."""
    stack.source = {"type": "outbox", "heartbeat_seconds": 0.5}
    await setup(stack.database.dsn, [ITEM_RULE])
    return stack


async def test_what_changes_is_dropped_and_then_leaves_the_outbox(shop: Stack) -> None:
    await shop.start()
    shop.fill("item:1", "item:2", "item:3")
    await shop.sql("INSERT INTO item VALUES (1, 'a'), (2, 'b')")
    await shop.gone("item:1", "item:2")
    await emptied(shop.database)
    assert shop.client.exists("item:3")


async def test_what_was_not_confirmed_before_a_kill_is_applied_again(shop: Stack) -> None:
    program = await shop.start()
    program.kill()
    shop.fill("item:1")
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.start()
    await shop.gone("item:1")


async def test_nothing_leaves_the_outbox_while_redis_is_away(shop: Stack) -> None:
    shop.targets = {"redis": {"type": "redis_keys", "url": "redis://127.0.0.1:1", "retry": {"max_delay_seconds": 0.2}}}
    watched = Watched(await shop.start())
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await watched.until_value(1, "invalidator_events_total", table="public.item", op="insert")
    for _ in range(2):
        await watched.until_failing("redis", "connection")
    assert (await shop.sql("SELECT count(*) FROM invalidator.outbox WHERE operation = 'I'")) == [(1,)]


async def test_a_second_daemon_takes_over_when_the_first_is_killed(shop: Stack) -> None:
    first = await shop.start()
    second = shop.run()
    standby = await second.event("stream.standby")
    assert standby["holder_pid"]
    first.kill()
    await second.event("stream.connected")
    shop.fill("item:7")
    await shop.sql("INSERT INTO item VALUES (7, 'a')")
    await shop.gone("item:7")


async def test_a_restart_is_no_gap_and_a_flushed_redis_gets_its_record_again(shop: Stack) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await emptied(shop.database)
    program.kill()
    shop.fill("item:2", "item:9")
    await shop.sql("INSERT INTO item VALUES (2, 'a')")
    program = await shop.start()
    await shop.gone("item:2")
    await emptied(shop.database)

    shop.client.delete("invalidator:outbox")

    await program.event("record.forgotten")
    await shop.sql("INSERT INTO item VALUES (3, 'a')")
    await emptied(shop.database)
    await shop.until(lambda: shop.client.get("invalidator:outbox"), "the record is kept again")
    assert shop.client.exists("item:9")
    assert not program.events("gap.found")


async def test_an_outbox_that_somebody_empties_widens_every_rule_and_nothing_is_confirmed_before(shop: Stack) -> None:
    shop.rules = [ITEM_RULE, {"name": "other", "table": "public.other", "invalidate": {"keys": ["other:{id}"]}}]
    await shop.sql("CREATE TABLE other (id int PRIMARY KEY)")
    await setup(shop.database.dsn, shop.rules)
    shop.settings["continuity"]["pause_seconds"] = 3600
    program = await shop.start()
    shop.fill("item:9", "other:9")

    await shop.sql("TRUNCATE invalidator.outbox")

    await shop.gone("item:9")
    found = await program.event("gap.found")
    assert (found["reason"], found["rules"]) == ("outbox_emptied", 2)
    assert shop.client.exists("other:9")
    assert await shop.sql("SELECT count(*) FROM invalidator.outbox WHERE operation = 'L'") == [(1,)]
    program.kill()
    shop.settings["continuity"]["pause_seconds"] = 0

    program = await shop.start()

    await shop.gone("other:9")
    assert (await program.event("gap.found"))["reason"] == "outbox_emptied"
    await emptied(shop.database)


async def test_a_trigger_that_did_not_fire_for_a_while_widens_its_table_when_it_does_again(shop: Stack) -> None:
    shop.rules = [ITEM_RULE, {"name": "other", "table": "public.other", "invalidate": {"keys": ["other:{id}"]}}]
    await shop.sql("CREATE TABLE other (id int PRIMARY KEY)")
    await setup(shop.database.dsn, shop.rules)
    shop.settings["continuity"]["catalog_seconds"] = 0.2
    program = await shop.start()
    await shop.until(lambda: shop.client.exists("invalidator:outbox:catalog"), "it has looked")
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0
    shop.fill("item:1", "other:1")
    disable = "ALTER TABLE item {} TRIGGER invalidator_insert"
    await shop.sql(disable.format("DISABLE"))
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.sql(disable.format("ENABLE"))

    program = await shop.start()

    await shop.gone("item:1")
    found = await program.event("gap.found")
    assert (found["reason"], found["rules"]) == ("catalog_changed", 1)
    assert "triggers" in found["detail"]
    assert shop.client.exists("other:1")
    shop.fill("item:2")
    await shop.sql("DROP TRIGGER invalidator_insert ON item")
    await shop.sql("INSERT INTO item VALUES (2, 'a')")
    await setup(shop.database.dsn, shop.rules)
    await shop.gone("item:2")


async def test_a_redis_that_comes_back_older_gets_what_it_lost_from_the_outbox_or_is_widened(
    shop: Stack, own_redis: KeyValueServer
) -> None:
    shop.targets = {"redis": {"type": "redis_keys", "url": own_redis.url, "retry": {"max_delay_seconds": 0.2}}}
    shop.settings["continuity"]["redo_window_seconds"] = 3600
    shop.connect(own_redis.url)
    program = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.until(lambda: shop.client.get("invalidator:outbox"), "a record is kept")
    shop.fill("item:2", "item:9")
    shop.client.save()
    await shop.sql("INSERT INTO item VALUES (2, 'a')")
    await shop.gone("item:2")

    await asyncio.to_thread(own_redis.restart)

    await shop.until(lambda: "redo" in [lost["reason"] for lost in program.events("stream.lost")], "it reads again")
    await shop.gone("item:2")
    assert shop.client.exists("item:9"), "nothing else was dropped"
    assert not program.events("gap.found")
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0

    shop.settings["continuity"]["redo_window_seconds"] = 0
    program = await shop.start()
    await shop.gone("item:2")
    await emptied(shop.database)
    shop.client.save()
    shop.fill("item:3")
    shop.client.save()
    await shop.sql("INSERT INTO item VALUES (3, 'a')")
    await shop.gone("item:3")
    await emptied(shop.database)

    await asyncio.to_thread(own_redis.restart)

    await shop.gone("item:3", "item:9")
    found = await program.event("gap.found")
    assert found["reason"] in {"position_ahead", "target_lost_writes"}


async def test_with_on_gap_stop_the_daemon_ends_at_a_restored_dump(shop: Stack) -> None:
    shop.settings["continuity"]["on_gap"] = "stop"
    await shop.sql("UPDATE invalidator.confirmed SET outbox = '7/1/1'")
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    shop.fill("item:1")

    program = shop.run()

    assert await asyncio.to_thread(program.wait) == 1
    assert "another one" in program.output
    assert shop.client.exists("item:1")
    assert await shop.sql("SELECT count(*) FROM invalidator.outbox WHERE operation = 'I'") == [(1,)]


async def test_two_databases_under_one_name_beside_one_redis_do_not_fight(shop: Stack, postgres_server: Server) -> None:
    first = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await emptied(shop.database)
    record = shop.client.get("invalidator:outbox")
    with own_database(postgres_server, "") as database:
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        await setup(database.dsn, [ITEM_RULE])
        second = Stack(shop.folder, database, shop.url, shop._run)
        second.source, second.targets = shop.source, shop.targets
        program = await second.start()
        shop.fill("item:1", "item:2")

        await second.sql("INSERT INTO item VALUES (2, 'a')")
        await second.gone("item:2")
        failed = await program.event("record.failed")
        await shop.sql("INSERT INTO item VALUES (3, 'a')")
        await emptied(shop.database)

        assert "a daemon of another database (system identifier" in failed["error"]
        assert database.execute("SELECT count(*) FROM invalidator.outbox WHERE operation = 'I'") == [(1,)]
        assert shop.client.get("invalidator:outbox") != record
        assert shop.client.exists("item:1"), "nobody has dropped everything"
        for each in (first, program):
            assert not each.events("gap.found")
        program.terminate()
        assert await asyncio.to_thread(program.wait) == 0
        second.client.close()
