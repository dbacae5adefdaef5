"""With the DDL hook the stream itself tells what happens to tables; nobody has to look."""

from __future__ import annotations

import pytest

from tests.support.daemon import ITEM_RULE, Stack
from tests.support.hook import hook
from tests.support.watched import Watched

EVENT_RULE = {"name": "event", "table": "public.event", "invalidate": {"keys": ["event:{id}"]}}
MARKER_RULE = {"name": "marker", "table": "public.marker", "invalidate": {"keys": ["marker:{id}"]}}


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    """A table and a partitioned one, with the hook, and a daemon that looks by itself once an hour."""
    await stack.sql("CREATE TABLE marker (id int PRIMARY KEY)")
    await stack.sql("CREATE TABLE event (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day)")
    await stack.sql("CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1)")
    await stack.sql("CREATE TABLE event_2 (id int, day int, PRIMARY KEY (id, day))")
    await stack.sql("INSERT INTO event_2 VALUES (7, 2)")
    await hook(stack.database.dsn)
    stack.rules = [ITEM_RULE, EVENT_RULE, MARKER_RULE]
    stack.settings["continuity"]["catalog_seconds"] = 3600
    return stack


async def started(shop: Stack) -> Watched:
    """A daemon that has looked once."""
    program = await shop.start()
    await shop.until(lambda: shop.client.exists(f"invalidator:{shop.database.name}:catalog"), "it has looked")
    return Watched(program)


async def test_what_happens_to_partitions_and_tables_is_widened_by_the_stream_alone(shop: Stack) -> None:
    watched = await started(shop)
    statements = (
        ("ALTER TABLE event ATTACH PARTITION event_2 FOR VALUES IN (2)", "event:7", "item:1"),
        ("ALTER TABLE item ALTER COLUMN name TYPE bytea USING NULL", "item:1", "event:7"),
        ("ALTER TABLE event DETACH PARTITION event_1", "event:7", "item:1"),
        ("ALTER TABLE item RENAME COLUMN name TO title", "item:1", "event:7"),
        ("ALTER TABLE event ALTER COLUMN id TYPE bigint", "event:7", "item:1"),
        ("TRUNCATE event_2", "event:7", "item:1"),
        ("DROP TABLE event_2", "event:7", "item:1"),
        ("DROP TABLE item", "item:1", "event:7"),
        ("ALTER TABLE event RENAME TO other", "event:7", "post:1"),
    )
    for number, (statement, stale, fresh) in enumerate(statements):
        shop.fill("item:1", "event:7", "post:1", f"marker:{number}")
        await shop.sql(statement)
        await shop.sql("INSERT INTO marker VALUES (%s)", number)  # what comes behind everything that the DDL tells
        await shop.gone(stale, f"marker:{number}")
        assert shop.client.exists(fresh), statement
    assert await watched.value("invalidator_widened_total", rule="event", reason="catalog_changed") >= 1
    await shop.confirmed_everything()


async def test_ddl_that_changes_no_value_and_ddl_that_is_rolled_back_widen_nothing(shop: Stack) -> None:
    watched = await started(shop)
    shop.fill("item:1", "event:7")
    for statement in (
        "ALTER TABLE item ADD COLUMN more float DEFAULT random()",
        "CREATE TABLE event_3 PARTITION OF event FOR VALUES IN (3)",
        "CREATE INDEX ON item (name); VACUUM FULL item",
        "BEGIN; DROP TABLE event; ALTER TABLE item RENAME TO thing; ROLLBACK",
    ):
        for each in statement.split("; ") if "VACUUM" in statement else [statement]:
            await shop.sql(each)
    await shop.sql("INSERT INTO item VALUES (2)")
    await shop.confirmed_everything()
    assert shop.client.exists("item:1", "event:7") == 2
    for rule in ("item", "event"):
        assert await watched.value("invalidator_widened_total", rule=rule, reason="catalog_changed") == 0
