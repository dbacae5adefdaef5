"""A required target is down while the server is about to give the slot up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from invalidator.demo.servers import ServerMissing
from tests.support.daemon import Stack
from tests.support.postgres import CopiedServer, Database, Server
from tests.support.processes import Program
from tests.support.purged import Cdn
from tests.support.services import missing
from tests.support.watched import Watched

NARROW = {"max_slot_wal_keep_size": "64MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}


@pytest.fixture
async def narrow(tmp_path: Path, redis_url: str, run_program: Callable[..., Program], cdn: Cdn) -> AsyncIterator[Stack]:
    """A stack over a server that keeps 64 MB of WAL, with a CDN and no journal."""
    try:
        server = CopiedServer(NARROW)
    except ServerMissing as reason:
        missing(str(reason))
    with server:
        database = Database(Server(server.dsn()), "postgres")
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        stack = Stack(tmp_path, database, redis_url, run_program)
        stack.client.flushdb()
        cdn.stand_behind(stack, repeat_after_seconds=[])
        yield stack
        stack.client.close()
        database.close()


def write_wal(stack: Stack, segments: int) -> str:
    """Fill so many segments of 16 MB, have the server look what it need not keep, and tell what becomes of the slot."""
    with psycopg.connect(stack.database.dsn, autocommit=True) as connection:
        for _ in range(segments):
            connection.execute("SELECT pg_logical_emit_message(false, 'filler', 'x')")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
        slots = connection.execute("SELECT wal_status FROM pg_replication_slots").fetchall()
    return str(slots[0][0]) if slots else "lost"  # it is just being made anew


async def fail_at_the_edge(stack: Stack, cdn: Cdn) -> Program:
    """A daemon that streams, and cannot purge item-1."""
    program = await stack.start()
    await stack.sql("INSERT INTO item VALUES (0)")
    await stack.confirmed_everything()
    cdn.is_down = True
    await stack.sql("INSERT INTO item VALUES (1)")
    await program.event("delivery.failed")
    return program


async def test_by_default_the_position_is_held_until_the_slot_is_lost_and_the_gap_is_made_good(
    narrow: Stack, cdn: Cdn
) -> None:
    program = await fail_at_the_edge(narrow, cdn)
    position = await narrow.position()
    await asyncio.to_thread(write_wal, narrow, 3)
    await Watched(program).until_value(1, "invalidator_problems", code="slot-at-risk")
    assert not narrow.has_confirmed(position)
    assert not program.events("debt.incurred")

    def is_lost() -> bool:
        """The slot may have been made anew already; of what is written by then that one is not lost."""
        return write_wal(narrow, 1) == "lost" or bool(program.events("gap.found"))

    await narrow.until(is_lost, "the slot is lost")

    cdn.is_down = False
    found = await program.event("gap.found")
    assert found["reason"] == "wal_removed"
    await narrow.until(lambda: "items" in cdn.purged, "the coarse tag is purged")
    await narrow.confirmed_everything()


async def test_with_widen_and_skip_the_slot_survives_and_the_target_is_widened_at_its_return(
    narrow: Stack, cdn: Cdn
) -> None:
    narrow.settings["continuity"] |= {"wal": "widen_and_skip", "wal_share": 0.5}
    program = await fail_at_the_edge(narrow, cdn)
    position = await narrow.position()
    assert not narrow.has_confirmed(position)

    await asyncio.to_thread(write_wal, narrow, 3)

    owed = await program.event("debt.incurred")
    assert owed["target"] == "edge"
    await narrow.until(lambda: narrow.has_confirmed(position), "positions go on")
    watched = Watched(program)
    await watched.until_value(1, "invalidator_problems", code="debt")
    assert await watched.value("invalidator_debt_since_timestamp_seconds", target="edge") > 0
    narrow.fill("item:2")
    await narrow.sql("INSERT INTO item VALUES (2)")
    await narrow.gone("item:2")
    await narrow.confirmed_everything()
    for _ in range(3):
        assert await asyncio.to_thread(write_wal, narrow, 2) != "lost"
        await narrow.confirmed_everything()
    program.kill()

    program = await narrow.start()

    assert (await program.event("debt.known"))["target"] == "edge"
    assert "items" not in cdn.purged
    cdn.is_down = False
    await narrow.until(lambda: "items" in cdn.purged, "the coarse tag is purged")
    await program.event("debt.paid")
    await Watched(program).until_value(0, "invalidator_debt_since_timestamp_seconds", target="edge")
    await narrow.sql("INSERT INTO item VALUES (3)")
    await narrow.until(lambda: "item-3" in cdn.purged, "the next tag is purged by its name")
    await narrow.confirmed_everything()
    await narrow.until(lambda: '"debts":[]' in narrow.record(), "nothing is owed any more")
