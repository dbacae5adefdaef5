"""Sentinels fail Redis over under a running daemon, and the replica that takes over had lost the last writes."""

from __future__ import annotations

import asyncio

from tests.support.daemon import Stack
from tests.support.sentinel import Group

COUNT = 20


async def test_nothing_stays_stale_when_sentinels_fail_over_to_a_replica_that_had_lost_writes(
    stack: Stack, sentinel_group: Group
) -> None:
    group = sentinel_group
    for target in stack.targets.values():
        target["url"] = group.url
    stack.settings["continuity"]["redo_window_seconds"] = 3600
    await stack.sql("INSERT INTO item SELECT generate_series(1, %s)", 2 * COUNT)
    program = await stack.start()

    first = await asyncio.to_thread(group.primary)
    await lose(stack, group, 1)
    await asyncio.to_thread(group.fail_over)
    await check(stack, group, 1)
    assert first.running
    await program.event("stream.lost")
    assert program.events("stream.lost")[0]["reason"] == "redo"

    await asyncio.to_thread(group.mend_replication)
    await asyncio.to_thread(group.until_whole)
    await lose(stack, group, 2)
    second = await asyncio.to_thread(group.primary)
    await asyncio.to_thread(group.be_impatient)
    await asyncio.to_thread(second.kill)
    await asyncio.to_thread(group.until, lambda: group.primary().port != second.port, "the sentinels fail over")
    await check(stack, group, 2)

    assert not program.events("gap.found")


async def lose(stack: Stack, group: Group, number: int) -> None:
    """Entries are dropped at the primary, and the replica does not hear of it."""
    stack.connect(f"redis://127.0.0.1:{(await asyncio.to_thread(group.primary)).port}/0")
    stack.fill(*names(number))
    await stack.recorded_everything()
    await stack.until(lambda: stack.client.wait(1, 1000) == 1, "the replica has entries and record")
    await asyncio.to_thread(group.cut_replication)
    await stack.sql("UPDATE item SET name = 'x' WHERE id BETWEEN %s AND %s", (number - 1) * COUNT + 1, number * COUNT)
    await stack.gone(*names(number))
    await stack.recorded_everything()


async def check(stack: Stack, group: Group, number: int) -> None:
    """What the new primary had kept of the stale entries goes; new changes arrive."""
    primary = await asyncio.to_thread(group.primary)
    stack.connect(f"redis://127.0.0.1:{primary.port}/0")
    await stack.gone(*names(number))
    stack.fill("item:1")
    await stack.sql("UPDATE item SET name = %s WHERE id = 1", f"after {number}")
    await stack.gone("item:1")


def names(number: int) -> list[str]:
    return [f"item:{id_}" for id_ in range((number - 1) * COUNT + 1, number * COUNT + 1)]
