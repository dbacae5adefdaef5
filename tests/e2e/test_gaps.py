"""Whatever makes changes go missing, what could be stale is dropped everywhere, and it is said."""

from __future__ import annotations

import asyncio
import json

import pytest

from invalidator.demo.servers import KeyValueServer
from tests.support.daemon import Stack
from tests.support.processes import Program
from tests.support.watched import Watched

TABLES = ("alpha", "beta")
STALE = ("alpha:1", "alpha:2", "beta:1")


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    """Two tables with a rule each, both with stale entries to come."""
    for table in TABLES:
        await stack.sql(f"CREATE TABLE {table} (id int PRIMARY KEY)")
    stack.rules = [
        {
            "name": table,
            "table": f"public.{table}",
            "invalidate": {"keys": [f"{table}:{{id}}"], "l1": [f"{table}:{{id}}"]},
        }
        for table in TABLES
    ]
    stack.client.flushdb()
    return stack


async def stop(program: Program) -> None:
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0


async def test_a_slot_dropped_while_the_daemon_was_away_widens_every_rule_at_every_layer(shop: Stack) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.confirmed_everything()
    await stop(program)
    await shop.drop_slot()
    await shop.sql("INSERT INTO alpha VALUES (2); INSERT INTO beta VALUES (1)")
    shop.fill(*STALE, "other:1")
    listener = shop.subscribed()

    program = await shop.start()

    await shop.gone(*STALE)
    assert shop.client.exists("other:1")
    gap = await program.event("gap.found")
    assert (gap["reason"], gap["rules"]) == ("slot_missing", 2)
    await program.event("gap.repaired")
    heard: set[str] = set()

    def hears_both() -> bool:
        message = listener.get_message(timeout=1)
        heard.update(json.loads(message["data"])["patterns"] if message else ())
        return {"alpha:*", "beta:*"} <= heard

    await shop.until(hears_both, "both patterns are published")
    listener.close()
    watched = Watched(program)
    assert "gap" in [problem["code"] for problem in (await watched.status())["problems"]]
    await watched.until_value(1, "invalidator_gaps_total", reason="slot_missing")
    assert await watched.value("invalidator_widened_total", rule="beta", reason="gap") == 1
    shop.fill("beta:7")
    await shop.sql("INSERT INTO beta VALUES (7)")
    await shop.gone("beta:7")
    await shop.confirmed_everything()


async def test_a_slot_dropped_under_the_daemon_is_made_anew_and_everything_is_widened(shop: Stack) -> None:
    program = await shop.start()
    await shop.confirmed_everything()
    shop.fill(*STALE)

    await shop.drop_slot()

    await shop.gone(*STALE)
    assert (await program.event("gap.found"))["reason"] == "slot_missing"
    await program.event("stream.connected", count=2)
    shop.fill("alpha:9")
    await shop.sql("INSERT INTO alpha VALUES (9)")
    await shop.gone("alpha:9")


async def test_a_slot_that_somebody_made_anew_is_ahead_of_our_record(shop: Stack) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.confirmed_everything()
    await stop(program)
    await shop.drop_slot()
    await shop.sql("INSERT INTO alpha VALUES (2)")
    await shop.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", shop.database.name)
    shop.fill(*STALE)

    program = await shop.start()

    await shop.gone(*STALE)
    assert (await program.event("gap.found"))["reason"] == "position_ahead"


async def test_a_restart_is_no_gap(shop: Stack) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.confirmed_everything()
    program.kill()
    shop.fill("alpha:2", "beta:5")
    await shop.sql("INSERT INTO alpha VALUES (2)")

    program = await shop.start()

    await shop.gone("alpha:2")
    await shop.confirmed_everything()
    assert not program.events("gap.found")
    assert shop.client.exists("beta:5")


async def test_a_first_start_flushes_nothing_unless_it_is_asked_to(shop: Stack) -> None:
    shop.fill(*STALE)
    program = await shop.start()
    await program.event("stream.begun")
    await shop.confirmed_everything()
    assert shop.client.exists(*STALE) == 3
    await stop(program)
    shop.client.flushdb()
    await shop.drop_slot()
    shop.fill(*STALE)
    shop.settings["continuity"]["on_first_start"] = "widen"

    program = await shop.start()

    await shop.gone(*STALE)
    assert (await program.event("gap.found"))["reason"] == "first_start"


async def test_with_on_gap_stop_the_daemon_stops_and_makes_no_slot(shop: Stack) -> None:
    shop.settings["continuity"]["on_gap"] = "stop"
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.confirmed_everything()
    await stop(program)
    await shop.drop_slot()
    shop.fill(*STALE)

    program = shop.run()

    assert await asyncio.to_thread(program.wait) == 1
    assert "changes are missing" in program.output
    assert shop.client.exists(*STALE) == 3
    assert not await shop.sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", shop.database.name)


async def test_a_gap_is_found_again_when_the_daemon_dies_in_the_middle_of_its_repair(shop: Stack) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.confirmed_everything()
    await stop(program)
    await shop.drop_slot()
    shop.settings["continuity"]["pause_seconds"] = 3600
    shop.fill(*STALE)
    program = await shop.start()
    await shop.gone("alpha:1", "alpha:2")
    assert shop.client.exists("beta:1")
    program.kill()
    shop.settings["continuity"]["pause_seconds"] = 0

    program = await shop.start()

    await shop.gone(*STALE)
    assert (await program.event("gap.found"))["reason"] == "position_ahead"
    await shop.confirmed_everything()


async def test_a_redis_that_comes_back_as_it_was_before_gets_what_it_lost_from_the_wal(
    shop: Stack, own_redis: KeyValueServer
) -> None:
    """What a fail-over to a lagging replica does: the record and the unlinks behind a moment are gone."""
    shop.targets = {"redis": {"type": "redis_keys", "url": own_redis.url, "retry": {"max_delay_seconds": 0.2}}}
    shop.settings["continuity"]["redo_window_seconds"] = 3600
    shop.connect(own_redis.url)
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.recorded_everything()
    shop.fill("alpha:2", "beta:9")
    shop.client.save()
    await shop.sql("INSERT INTO alpha VALUES (2)")
    await shop.gone("alpha:2")

    await asyncio.to_thread(own_redis.restart)

    await shop.until(lambda: "redo" in [lost["reason"] for lost in program.events("stream.lost")], "it reads again")
    await shop.gone("alpha:2")
    assert shop.client.exists("beta:9"), "nothing else was dropped"
    assert not program.events("gap.found")


async def test_a_redis_that_lost_more_than_can_be_read_again_is_widened_alone(
    shop: Stack, own_redis: KeyValueServer
) -> None:
    shop.targets["redis"]["url"] = own_redis.url
    shop.targets["second"] = {"type": "redis_keys", "url": shop.url}
    second = shop.client
    shop.connect(own_redis.url)
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.recorded_everything()
    shop.fill("alpha:2", "beta:9")
    shop.client.save()
    await shop.sql("INSERT INTO alpha VALUES (2)")
    await shop.gone("alpha:2")
    await shop.confirmed_everything()
    second.set("beta:9", "fresh")

    await asyncio.to_thread(own_redis.restart)

    gap = await program.event("gap.found")
    assert (gap["reason"], gap["target"]) == ("target_lost_writes", "redis")
    await shop.gone("alpha:2", "beta:9")
    assert second.exists("beta:9")
    second.close()


async def test_a_flushed_redis_gets_its_record_again_and_nothing_is_dropped(shop: Stack) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO alpha VALUES (1)")
    await shop.confirmed_everything()

    shop.client.flushdb()
    shop.fill("beta:9")

    await program.event("record.forgotten")
    await shop.sql("INSERT INTO alpha VALUES (2)")
    await shop.confirmed_everything()
    assert json.loads(shop.record())["slot"] == shop.database.name
    assert shop.client.exists("beta:9")
    assert not program.events("gap.found")


async def test_a_record_that_may_not_be_written_is_a_problem_and_nothing_is_confirmed(shop: Stack) -> None:
    await stop(await shop.start())
    narrow = ("SETUSER", "narrow", "on", ">pw", "~alpha:*", "~tag:*", "+@all")
    shop.client.execute_command("ACL", *narrow)  # type: ignore[no-untyped-call]
    try:
        shop.targets["redis"]["url"] = shop.url.replace("://", "://narrow:pw@")
        program = await shop.start()
        failed = await program.event("record.failed")
        assert "NOPERM" in failed["error"]
        shop.fill("alpha:1")
        await shop.sql("INSERT INTO alpha VALUES (1)")
        position = await shop.position()
        await shop.gone("alpha:1")
        assert not shop.has_confirmed(position)
        assert len(program.events("record.failed")) == 1, "the same failure is written once"
        await stop(program)

        await shop.drop_slot()
        program = shop.run()

        assert await asyncio.to_thread(program.wait) == 78
        assert "ACL SETUSER" in program.output
    finally:
        shop.client.execute_command("ACL", "DELUSER", "narrow")  # type: ignore[no-untyped-call]
