"""A network that swallows everything without a word: noticed in time, told truthfully, and made good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import notify, outbox
from tests.support.daemon import Stack
from tests.support.proxy import Fault, FaultProxy
from tests.support.watched import Watched


async def put_source(stack: Stack, source: str) -> None:
    """Another source than a slot, with what it needs in the database."""
    if source == "outbox":
        await outbox.setup(stack.database.dsn, stack.rules)
        stack.source = {"type": source, "heartbeat_seconds": 0.5}
    elif source == "notify":
        await notify.triggers(stack.database.dsn, stack.rules)
        stack.source = {"type": source, "heartbeat_seconds": 0.5, "channels": [notify.CHANNEL]}


@pytest.mark.parametrize("source", ["pgoutput", "outbox", "notify"])
async def test_a_black_hole_before_postgres_is_noticed_and_told_and_nothing_is_lost(
    stack: Stack, proxy_to: Callable[[str], Any], source: str
) -> None:
    proxy: FaultProxy = await proxy_to(stack.database.dsn)
    await put_source(stack, source)
    stack.source |= {"dsn": proxy.through(stack.database.dsn), "silence_seconds": 3}
    program = await stack.start()
    watched = Watched(program)
    stack.fill("item:1", "item:2")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("item:1")
    await watched.until_above(0, "invalidator_heartbeat_last_delivered_timestamp_seconds")

    proxy.fault = Fault.BLACK_HOLE
    await stack.sql("INSERT INTO item VALUES (2)")

    await watched.until_value(1, "invalidator_role", role="reconnecting")
    assert await watched.value("invalidator_stream_connected") == 0
    lost = await program.event("stream.lost")
    assert lost["reason"] == "silence"
    assert "nothing for 3 s" in lost["error"]
    assert await watched.text("/livez") == "ok\n"
    # Nobody knows of newer changes.
    await watched.until_above(0, "invalidator_staleness_seconds")
    assert (await watched.status())["role"] == "reconnecting"
    assert stack.client.exists("item:2")

    proxy.fault = Fault.NONE
    await stack.gone("item:2")
    await watched.until_value(0, "invalidator_staleness_seconds")
    if source == "pgoutput":
        await stack.confirmed_everything()
    if source == "outbox":
        await outbox.emptied(stack.database)
    if source == "notify":
        await program.event("gap.found")  # what was notified meanwhile is lost
    else:
        assert not program.events("gap.found")


async def test_a_black_hole_before_redis_is_told_and_is_no_reason_to_restart(
    stack: Stack, proxy_to: Callable[[str], Any]
) -> None:
    proxy: FaultProxy = await proxy_to(stack.url)
    stack.targets["redis"] |= {"url": proxy.through(stack.url), "timeout_seconds": 0.5, "connect_timeout_seconds": 0.5}
    program = await stack.start()
    watched = Watched(program)
    await watched.text("/readyz")  # it has answered
    stack.fill("item:1")

    proxy.fault = Fault.BLACK_HOLE
    await stack.sql("INSERT INTO item VALUES (1)")
    position = await stack.position()

    assert (await program.event("delivery.failed"))["result"] == "timeout"
    assert await watched.text("/livez") == "ok\n"
    assert "ready" in await watched.text("/readyz"), "nobody else could invalidate that Redis"
    before = await watched.until_above(0, "invalidator_staleness_seconds")
    await watched.until_above(before, "invalidator_staleness_seconds")
    assert await watched.value("invalidator_stream_connected") == 1
    assert not stack.has_confirmed(position)

    proxy.fault = Fault.NONE
    await stack.gone("item:1")
    await watched.until_value(0, "invalidator_staleness_seconds")
    await stack.confirmed_everything()
    assert len(program.events("stream.connected")) == 1, "the stream went on meanwhile"


async def test_a_postgres_that_ends_while_redis_is_away_is_not_called_connected(
    stack: Stack, proxy_to: Callable[[str], Any]
) -> None:
    """What was read is waiting for Redis, and nobody asks the stream for more: its end is told all the same."""
    database: FaultProxy = await proxy_to(stack.database.dsn)
    cache: FaultProxy = await proxy_to(stack.url)
    stack.source["dsn"] = database.through(stack.database.dsn)
    stack.targets = {"redis": {"type": "redis_keys", "url": cache.through(stack.url), "timeout_seconds": 60}}
    program = await stack.start()
    watched = Watched(program)
    stack.fill("item:1")
    await stack.confirmed_everything()
    cache.fault = Fault.BLACK_HOLE
    await stack.sql("INSERT INTO item VALUES (1)")
    await watched.until_value(1, "invalidator_events_total", table="public.item", op="insert")

    database.fault = Fault.REFUSE
    database.reset_connections()

    await watched.until_value(1, "invalidator_role", role="reconnecting")
    assert await watched.value("invalidator_stream_connected") == 0
    assert not program.events("stream.lost"), "it waits for the answer of Redis"
    assert await watched.text("/livez") == "ok\n"
    cache.fault = database.fault = Fault.NONE

    await stack.gone("item:1")
    await program.event("stream.lost")
    await watched.until_value(1, "invalidator_role", role="streaming")


@pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.REFUSE])
async def test_a_daemon_that_reaches_no_postgres_at_its_start_is_alive_and_not_ready(
    stack: Stack, proxy_to: Callable[[str], Any], fault: Fault
) -> None:
    proxy: FaultProxy = await proxy_to(stack.database.dsn)
    proxy.fault = fault
    stack.source["dsn"] = proxy.through(stack.database.dsn)

    program = stack.run()

    watched = Watched(program)
    assert await watched.text("/livez") == "ok\n"
    assert "[-] stream" in await watched.text("/readyz", status=503)
    proxy.fault = Fault.NONE
    await program.event("stream.connected")
    await watched.text("/readyz")
