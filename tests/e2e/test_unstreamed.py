"""What happens to tables without a word in the stream is found, and their rules are widened."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.daemon import ITEM_RULE, Stack
from tests.support.processes import Program
from tests.support.watched import Watched

EVENT_RULE = {"name": "event", "table": "public.event", "invalidate": {"keys": ["event:{id}"]}}


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    """A table and a partitioned one, published, with a slot."""
    await stack.sql("CREATE TABLE event (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day)")
    await stack.sql("CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1)")
    await stack.sql("CREATE TABLE event_2 (id int, day int, PRIMARY KEY (id, day))")
    await stack.sql("INSERT INTO event_2 VALUES (7, 2)")
    stack.rules = [ITEM_RULE, EVENT_RULE]
    stack.settings["continuity"]["catalog_seconds"] = 0.2
    return stack


async def looked(stack: Stack) -> None:
    """Return when the daemon keeps what it has seen."""
    await stack.until(lambda: stack.client.exists(f"invalidator:{stack.database.name}:catalog"), "it has looked")


async def gap(program: Program) -> str:
    event = await program.event("gap.found")
    assert event["reason"] == "catalog_changed"
    return str(event["detail"])


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("ALTER TABLE event ATTACH PARTITION event_2 FOR VALUES IN (2)", "1 partitions with rows attached"),
        ("ALTER TABLE event DETACH PARTITION event_1", "1 partitions detached or dropped"),
        ("DROP TABLE event_1", "1 partitions detached or dropped"),
        ("ALTER TABLE event ALTER COLUMN id TYPE bigint", "columns altered"),
        ("ALTER TABLE event RENAME TO other", "dropped or renamed"),
        ("ALTER PUBLICATION invalidator DROP TABLE event", "not published any more"),
    ],
)
async def test_what_the_stream_does_not_tell_is_widened_for_its_table_alone(
    shop: Stack, statement: str, told: str
) -> None:
    program = await shop.start()
    await looked(shop)
    shop.fill("event:7", "item:1")

    await shop.sql(statement)

    await shop.gone("event:7")
    assert told in await gap(program)
    assert shop.client.exists("item:1")
    await shop.sql("INSERT INTO item VALUES (1)")
    await shop.gone("item:1")
    await shop.confirmed_everything()


async def test_a_table_that_was_not_published_for_a_while_is_widened_when_it_is_back(shop: Stack) -> None:
    program = await shop.start()
    await looked(shop)
    await shop.sql("ALTER PUBLICATION invalidator DROP TABLE item")
    await gap(program)
    await shop.sql("INSERT INTO item VALUES (1)")
    shop.fill("item:1", "event:7")

    await shop.sql("ALTER PUBLICATION invalidator ADD TABLE item")

    await shop.gone("item:1")
    await Watched(program).until_value(2, "invalidator_gaps_total", reason="catalog_changed")
    assert shop.client.exists("event:7")


async def test_what_happened_while_no_daemon_ran_is_found_too(shop: Stack) -> None:
    program = await shop.start()
    await looked(shop)
    program.terminate()
    await asyncio.to_thread(program.wait)
    await shop.sql("ALTER PUBLICATION invalidator DROP TABLE item")
    await shop.sql("INSERT INTO item VALUES (1)")
    await shop.sql("ALTER PUBLICATION invalidator ADD TABLE item")
    shop.fill("item:1", "event:7")

    program = await shop.start()

    await shop.gone("item:1")
    assert "public.item: published in another way" in await gap(program)
    assert shop.client.exists("event:7")


async def test_a_flushed_cache_gets_what_was_seen_again(shop: Stack) -> None:
    program = await shop.start()
    await looked(shop)
    shop.client.flushall()
    await looked(shop)
    program.kill()
    await shop.sql("ALTER PUBLICATION invalidator DROP TABLE item")
    await shop.sql("ALTER PUBLICATION invalidator ADD TABLE item")
    shop.fill("item:1")

    await shop.start()

    await shop.gone("item:1")


async def test_a_cache_that_is_set_back_to_before_it_was_widened_is_widened_again(shop: Stack) -> None:
    name = f"invalidator:{shop.database.name}:catalog"
    watched = Watched(await shop.start())
    await looked(shop)
    before = shop.client.dump(name)
    assert isinstance(before, bytes)
    await shop.sql("ALTER PUBLICATION invalidator DROP TABLE item")
    await watched.until_value(1, "invalidator_gaps_total", reason="catalog_changed")
    assert before is not None
    await shop.until(lambda: shop.client.dump(name) != before, "it keeps what it has seen")

    shop.fill("item:1")  # before: a look may come, and widen, at any moment from then on
    shop.client.restore(name, 0, before, replace=True)

    await shop.gone("item:1")
    await watched.until_value(2, "invalidator_gaps_total", reason="catalog_changed")


async def test_vacuum_analyze_and_new_partitions_widen_nothing(shop: Stack) -> None:
    program = await shop.start()
    await looked(shop)
    shop.fill("item:1", "event:7")
    await shop.sql("CREATE TABLE event_3 PARTITION OF event FOR VALUES IN (3)")
    await shop.sql("ALTER TABLE item ADD COLUMN more int DEFAULT 7")
    for statement in ("VACUUM FULL item", "ANALYZE", "TRUNCATE event_1", "REINDEX TABLE item"):
        await shop.sql(statement)
    await shop.gone("event:7")  # the TRUNCATE came through the stream, after all of it

    await shop.sql("ALTER PUBLICATION invalidator DROP TABLE event")
    assert await gap(program) == "public.event: not published any more"
    assert shop.client.exists("item:1")
