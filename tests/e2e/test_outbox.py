"""The daemon over an outbox, a real Postgres without a slot, and a real Redis."""

from __future__ import annotations

import pytest

from tests.support.daemon import ITEM_RULE, Stack
from tests.support.outbox import emptied, setup


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
    program = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await program.event("delivery.failed", count=2)
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
