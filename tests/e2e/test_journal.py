"""A CDN that is down for long holds no WAL, whatever happens to the daemon, and gets everything afterwards."""

from __future__ import annotations

import asyncio
import random
import resource
import sqlite3
from copy import deepcopy

import pytest

from tests.support.daemon import Stack
from tests.support.http import Reply, ScriptedServer
from tests.support.processes import Program
from tests.support.purged import Cdn
from tests.support.watched import Watched


@pytest.fixture
def journaled(stack: Stack, cdn: Cdn) -> Stack:
    """A stack with a CDN, and a journal for it."""
    cdn.stand_behind(stack, repeat_after_seconds=[0.2])
    stack.settings |= {"state": {"path": str(stack.folder / "state.db")}}
    return stack


def tags(first: int, last: int) -> set[str]:
    return {f"item-{number}" for number in range(first, last + 1)}


async def test_an_outage_under_load_with_kills_holds_no_wal_and_every_tag_is_purged_afterwards(
    journaled: Stack, cdn: Cdn
) -> None:
    written = 0
    enough = asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not enough.is_set():
            first, written = written + 1, written + 5
            await journaled.sql("INSERT INTO item SELECT generate_series(%s::int, %s::int)", first, written)
            await asyncio.sleep(0.02)  # a load, not a flood: it must stay below the journal's bound

    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (-1)")
    await cdn.has_purged("item--1")
    cdn.is_down = True
    writing = asyncio.ensure_future(write())
    chance = random.Random(20261128)  # noqa: S311  (moments, not secrets)
    try:
        for _ in range(3):
            wanted = written + chance.randrange(50, 400)
            await journaled.until(lambda: written >= wanted, "rows are written")  # noqa: B023
            position = await journaled.position()
            await journaled.until(lambda: journaled.has_confirmed(position), "the position moves on")  # noqa: B023
            program.kill()
            program = await journaled.start()
    finally:
        enough.set()
        await writing
    position = await journaled.position()
    await journaled.until(lambda: journaled.has_confirmed(position), "the position is at the end")
    watched = Watched(program)
    # The first may wait once more: it was purged, but nobody may have written that down before a kill.
    assert written <= await watched.value("invalidator_journal_items", target="edge") <= written + 1
    assert cdn.purged.isdisjoint(tags(1, written))

    cdn.is_down = False

    await cdn.has_purged(*tags(1, written))
    await watched.until_value(0, "invalidator_journal_items", target="edge")
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0


async def test_a_kill_between_a_purge_and_its_answer_purges_again(journaled: Stack, cdn: Cdn) -> None:
    cdn.server.script(Reply(hold=asyncio.Event()))
    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (1)")
    await cdn.server.received(1)
    await journaled.confirmed_everything()

    program.kill()
    await journaled.start()

    await cdn.has_purged("item-1")


async def test_a_repeat_that_was_due_while_no_daemon_ran_comes_after_the_start(journaled: Stack, cdn: Cdn) -> None:
    journaled.targets["edge"]["repeat_after_seconds"] = [3600]
    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (1)")
    await Watched(program).until_value(1, "invalidator_journal_repeats", target="edge")
    program.kill()
    cdn.purged.clear()
    db = sqlite3.connect(journaled.folder / "state.db")  # an hour passes
    db.execute("UPDATE purge SET due = due - 3600")
    db.commit()
    db.close()

    await journaled.start()

    await cdn.has_purged("item-1")


async def test_a_disk_that_takes_no_more_means_late_confirm_until_it_does(journaled: Stack, cdn: Cdn) -> None:
    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (0)")
    await cdn.has_purged("item-0")
    watched = Watched(program)
    cdn.is_down = True
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # no write to any file succeeds

    await journaled.sql("INSERT INTO item SELECT generate_series(1, 5000)")
    position = await journaled.position()
    await program.event("journal.failed")
    await watched.until_value(0, "invalidator_journal_usable", target="edge")
    await program.event("delivery.failed")
    assert not journaled.has_confirmed(position)

    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    await journaled.until(lambda: journaled.has_confirmed(position), "the position moves on")
    await watched.until_value(1, "invalidator_journal_usable", target="edge")
    assert not cdn.purged & tags(1, 5000)
    cdn.is_down = False
    await cdn.has_purged(*tags(1, 5000))


async def test_a_damaged_file_is_set_aside_and_the_coarse_tags_of_all_rules_are_purged(
    journaled: Stack, cdn: Cdn
) -> None:
    cdn.is_down = True
    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (1)")
    await journaled.confirmed_everything()
    program.kill()
    (journaled.folder / "state.db").write_bytes(b"\xff" * 8192)
    (journaled.folder / "state.db-wal").unlink()  # it holds every page of so small a file
    cdn.is_down = False

    program = await journaled.start()

    await cdn.has_purged("items")
    lost = await program.event("journal.lost")
    assert (journaled.folder / lost["set_aside"]).read_bytes() == b"\xff" * 8192


async def test_a_second_daemon_with_the_same_file_says_so_and_takes_it_over(journaled: Stack, cdn: Cdn) -> None:
    first = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (1)")
    await cdn.has_purged("item-1")
    second = journaled.run()
    await second.event("stream.standby")
    failed = await second.event("journal.failed")
    assert failed["reason"] == "locked"
    cdn.is_down = True
    await journaled.sql("INSERT INTO item VALUES (2)")
    await journaled.confirmed_everything()

    first.kill()
    await second.event("stream.connected")
    cdn.is_down = False

    await cdn.has_purged("item-2")


async def test_a_cdn_that_is_away_for_too_long_gets_coarse_tags_and_delays_neither_another_one_nor_the_position(
    journaled: Stack, cdn: Cdn
) -> None:
    async with ScriptedServer() as server:
        other = Cdn(server)
        journaled.targets["other"] = deepcopy(journaled.targets["edge"]) | {"url": server.url}
        dead = {"url": "http://127.0.0.1:1", "required": False}
        journaled.targets["dead"] = deepcopy(journaled.targets["edge"]) | dead
        journaled.settings["state"]["max_journal_items"] = 100
        cdn.is_down = True
        program = await journaled.start()

        for first in range(1, 200, 40):
            await journaled.sql("INSERT INTO item SELECT generate_series(%s::int, %s::int)", first, first + 39)
            await other.has_purged(*tags(first, first + 39))
        await journaled.confirmed_everything()
        watched = Watched(program)
        await watched.until_value(1, "invalidator_journal_escalations_total", target="edge", step="coarse")
        assert await watched.value("invalidator_journal_escalations_total", target="other", step="coarse") == 0
        assert await watched.value("invalidator_journal_items", target="edge") <= 100
        program.kill()
        assert not cdn.purged
        cdn.is_down = False

        program = await journaled.start()

        await cdn.has_purged("items")
        await Watched(program).until_value(0, "invalidator_journal_items", target="edge")
        program.terminate()
        assert await asyncio.to_thread(program.wait) == 0


async def stop(program: Program) -> None:
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0


async def test_a_daemon_with_a_cdn_alone_finds_gaps_by_the_record_in_its_file(journaled: Stack, cdn: Cdn) -> None:
    del journaled.targets["redis"]
    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (1)")
    await cdn.has_purged("item-1")
    await journaled.confirmed_everything()
    await stop(program)
    program = await journaled.start()
    await journaled.sql("INSERT INTO item VALUES (2)")
    await cdn.has_purged("item-2")
    await journaled.confirmed_everything()
    assert not program.events("gap.found")
    await stop(program)
    older = (journaled.folder / "state.db").read_bytes()
    await journaled.drop_slot()
    assert "items" not in cdn.purged

    program = await journaled.start()

    assert (await program.event("gap.found"))["reason"] == "slot_missing"
    await cdn.has_purged("items")
    await journaled.sql("INSERT INTO item VALUES (3)")
    await cdn.has_purged("item-3")
    await journaled.confirmed_everything()
    await stop(program)
    cdn.purged.clear()
    (journaled.folder / "state.db").write_bytes(older)  # a volume that was restored from a backup

    program = await journaled.start()

    assert (await program.event("gap.found"))["reason"] == "position_ahead"
    await cdn.has_purged("items")
    await stop(program)


async def test_a_lost_file_is_missed_by_redis_and_a_flushed_redis_by_the_file(journaled: Stack, cdn: Cdn) -> None:
    program = await journaled.start()
    for number in (1, 2):
        await journaled.sql("INSERT INTO item VALUES (%s)", number)
        await cdn.has_purged(f"item-{number}")
        await journaled.confirmed_everything()
    await stop(program)
    (journaled.folder / "state.db").unlink()
    journaled.fill("item:9")

    program = await journaled.start()

    found = await program.event("gap.found")
    assert (found["reason"], found["target"]) == ("target_lost_writes", "edge")
    await cdn.has_purged("items")
    assert journaled.client.exists("item:9"), "Redis has lost nothing"
    await journaled.sql("INSERT INTO item VALUES (3)")
    await cdn.has_purged("item-3")
    await journaled.confirmed_everything()
    await stop(program)
    cdn.purged.clear()
    journaled.client.flushdb()
    await journaled.drop_slot()

    program = await journaled.start()

    assert (await program.event("gap.found"))["reason"] == "slot_missing"
    await cdn.has_purged("items")
    await stop(program)
