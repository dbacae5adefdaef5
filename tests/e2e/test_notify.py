"""The daemon over an application's own notifications, a real Postgres and a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.support.daemon import ITEM_RULE, Stack
from tests.support.notify import CHANNEL, triggers
from tests.support.pooler import Pooler
from tests.support.watched import Watched

END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE application_name = 'invalidator/notify/listen' AND datname = current_database()
"""


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    """The stack with triggers that notify, instead of a slot."""
    stack.source = {"type": "notify", "channels": [CHANNEL], "heartbeat_seconds": 0.3}
    stack.rules = [ITEM_RULE, {"name": "post", "table": "public.post", "invalidate": {"keys": ["post:{id}"]}}]
    await stack.sql("CREATE TABLE post (id int PRIMARY KEY)")
    await triggers(stack.database.dsn, stack.rules)
    return stack


async def recorded(shop: Stack) -> None:
    """Return when the record beside the cache says that a daemon was there."""
    await shop.until(lambda: shop.client.exists("invalidator:notify"), "it keeps a record")


async def test_what_is_notified_is_dropped_and_the_first_start_drops_nothing_else(shop: Stack) -> None:
    shop.fill("item:1", "item:2", "post:1")
    program = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.gone("item:1")
    await recorded(shop)
    assert shop.client.exists("item:2", "post:1") == 2
    assert (await program.event("stream.begun"))["slot"] == "notify"
    watched = Watched(program)
    await watched.until_value(1, "invalidator_notifications_total", result="applied")
    assert 0 <= await watched.value("invalidator_notification_queue_ratio") < 0.01  # others on the server notify too
    await watched.until_value(0, "invalidator_staleness_seconds")


async def test_what_nobody_heard_is_made_good_after_a_kill_and_after_a_lost_connection(shop: Stack) -> None:
    program = await shop.start()
    await recorded(shop)
    program.kill()
    shop.fill("item:1", "post:1")
    await shop.sql("INSERT INTO item VALUES (1, 'a')")

    program = await shop.start()

    await shop.gone("item:1", "post:1")
    gap = await program.event("gap.found")
    assert (gap["reason"], gap["rules"]) == ("not_listening", 2)
    shop.fill("item:1", "post:1")
    assert await shop.sql(END) == [(True,)]
    await shop.gone("item:1", "post:1")
    watched = Watched(program)
    await watched.until_value(2, "invalidator_gaps_total", reason="not_listening")
    await watched.until_problems("gap")


async def test_rubbish_is_a_problem_and_nothing_more(shop: Stack) -> None:
    program = await shop.start()
    shop.fill("item:1")
    await shop.sql("SELECT pg_notify(%s, 'rubbish')", CHANNEL)
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.gone("item:1")
    status = await Watched(program).until_problems("notification-refused")
    assert "it is no JSON" in json.dumps(status)
    assert "rubbish" not in program.output


async def test_the_second_daemon_takes_over_and_makes_good_what_nobody_heard(shop: Stack) -> None:
    first = await shop.start()
    await recorded(shop)
    second = shop.run()
    standby = await second.event("stream.standby")
    assert standby["holder_pid"]
    shop.fill("item:7", "post:7")  # before: the second one may take over at any moment from the kill on
    first.kill()
    await second.event("stream.connected")
    await shop.gone("item:7", "post:7")


async def test_a_pooler_that_takes_listen_away_ends_the_start_with_the_reason(
    shop: Stack, pooler_to: Callable[[str], Awaitable[Pooler]]
) -> None:
    pooler = await pooler_to(shop.database.dsn)
    shop.source |= {"dsn": pooler.through(shop.database.dsn), "unheard_seconds": 0.5}
    program = shop.run()
    assert await asyncio.to_thread(program.wait) == 78
    assert "a connection pooler in transaction or statement mode stands between" in program.output


async def test_a_pooler_that_is_put_between_later_is_a_problem_until_it_is_gone(
    shop: Stack, pooler_to: Callable[[str], Awaitable[Pooler]]
) -> None:
    pooler = await pooler_to(shop.database.dsn)
    pooler.is_pooling = False
    shop.source |= {"dsn": pooler.through(shop.database.dsn), "unheard_seconds": 2}  # at first it must be heard in time
    program = await shop.start()
    pooler.is_pooling = True
    pooler.cut()
    watched = Watched(program)
    await watched.until("notify", is_there=True)
    status = await watched.until_problems("notifications-unheard")
    assert "source.dsn" in json.dumps(status)
    shop.fill("item:1")
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    pooler.is_pooling = False
    pooler.cut()
    await shop.gone("item:1")
