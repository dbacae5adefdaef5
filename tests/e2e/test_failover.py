"""Postgres fails over to a streaming standby, and the daemon goes on there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from invalidator.demo.servers import PostgresServer
from tests.support.daemon import Stack
from tests.support.outbox import setup
from tests.support.postgres import Database, Server
from tests.support.processes import DEADLINE_SECONDS, Program
from tests.support.services import missing
from tests.support.standby import Standby
from tests.support.watched import Watched


@dataclass
class Pair:
    """A primary with a table, a standby of it, and a daemon that is told of both."""

    primary: PostgresServer
    standby: Standby
    stack: Stack

    def on(self, server: PostgresServer, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description is not None else []


@pytest.fixture
async def pair(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    crashable_postgres: PostgresServer,
    redis_url: str,
    run_program: Callable[..., Program],
) -> AsyncIterator[Pair]:
    """The test's parameter says whether the standby synchronizes slots."""
    primary = crashable_postgres
    with psycopg.connect(primary.dsn(), autocommit=True) as admin:
        if admin.info.server_version < 170000:
            missing("failover slots need Postgres 17")
        admin.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    slot = "standby_1" if request.param else None
    with await asyncio.to_thread(Standby, primary, physical_slot=slot) as standby:
        if slot is not None:
            with psycopg.connect(primary.dsn(), autocommit=True) as admin:
                admin.execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby_1'")
                admin.execute("SELECT pg_reload_conf()")
        database = Database(Server(primary.dsn()), "postgres")
        database.close()
        database.dsn = primary.dsn().replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
        stack = Stack(tmp_path, database, redis_url, run_program)
        yield Pair(primary, standby, stack)
        stack.client.close()


async def confirmed_everything(pair: Pair, server: PostgresServer) -> None:
    """Return when the slot on this server has confirmed all that is committed there now."""
    end = (await asyncio.to_thread(pair.on, server, "SELECT pg_current_wal_flush_lsn()::text"))[0][0]
    ask = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_type = 'logical'"  # noqa: S608
    await pair.stack.until(lambda: pair.on(server, ask) == [(True,)], f"{end} is confirmed")


@pytest.mark.parametrize("pair", [True], indirect=True, ids=["synchronized"])
async def test_a_promoted_standby_with_a_copy_of_the_slot_is_followed_and_phantoms_are_dropped(pair: Pair) -> None:
    stack = pair.stack
    program = await stack.start()
    await asyncio.to_thread(pair.on, pair.primary, "INSERT INTO item VALUES (1)")
    await confirmed_everything(pair, pair.primary)
    assert await asyncio.to_thread(pair.standby.wait_for_slot, "postgres", deadline_seconds=DEADLINE_SECONDS)
    stack.fill("item:1", "item:7", "other:1")  # item:7 may be of a commit that the standby never had

    pair.primary.kill()
    lost = await program.event("stream.lost")
    watched = Watched(program)
    await watched.until_value(1, "invalidator_role", role="reconnecting")
    assert stack.client.exists("item:1", "item:7") == 2, "a standby that is not promoted is no primary"
    await asyncio.to_thread(pair.standby.promote)

    gap = await program.event("gap.found")
    # A process whose postmaster was killed may still say so before it ends; more often there is just the end.
    assert lost["reason"] in {"connection", "server_shutdown"}
    assert gap["reason"] == "other_history"
    await stack.gone("item:1", "item:7")
    await program.event("gap.repaired")
    assert stack.client.exists("other:1")
    stack.fill("item:2", "item:9")
    await asyncio.to_thread(pair.on, pair.standby, "INSERT INTO item VALUES (2)")
    await stack.gone("item:2")
    assert stack.client.exists("item:9"), "only what changed is dropped from now on"
    await confirmed_everything(pair, pair.standby)
    assert len(program.events("gap.found")) == 1


@pytest.mark.parametrize("pair", [False], indirect=True, ids=["not-synchronized"])
async def test_a_promoted_standby_without_the_slot_is_a_gap_with_a_new_slot(pair: Pair) -> None:
    stack = pair.stack
    program = await stack.start()
    await asyncio.to_thread(pair.on, pair.primary, "INSERT INTO item VALUES (1)")
    await stack.until(stack.record, "there is a record")
    ask = "SELECT (SELECT count(*) FROM item) + (SELECT count(*) FROM pg_publication)"
    await stack.until(lambda: pair.on(pair.standby, ask) == [(2,)], "the standby has the publication and the row")
    stack.fill("item:1", "item:7", "other:1")

    pair.primary.kill()
    await asyncio.to_thread(pair.standby.promote)

    gap = await program.event("gap.found")
    assert gap["reason"] == "slot_missing"
    await stack.gone("item:1", "item:7")
    assert stack.client.exists("other:1")
    made = await asyncio.to_thread(pair.on, pair.standby, "SELECT failover FROM pg_replication_slots WHERE plugin > ''")
    assert made == [(True,)], "the next failover finds it"
    stack.fill("item:2", "item:9")
    await asyncio.to_thread(pair.on, pair.standby, "INSERT INTO item VALUES (2)")
    await stack.gone("item:2")
    assert stack.client.exists("item:9")


@pytest.mark.parametrize("pair", [False], indirect=True, ids=["outbox"])
async def test_an_outbox_on_a_promoted_standby_is_read_on_and_phantoms_are_dropped(pair: Pair) -> None:
    """What the outbox held comes along and is read; what the standby never had is gone, also from the caches."""
    stack = pair.stack
    stack.source = {"type": "outbox", "heartbeat_seconds": 0.5}
    await setup(pair.primary.dsn(), stack.rules)
    program = await stack.start()
    stack.fill("item:1")
    await asyncio.to_thread(pair.on, pair.primary, "INSERT INTO item VALUES (1)")
    await stack.gone("item:1")
    await stack.until(lambda: stack.client.exists("invalidator:outbox"), "there is a record")
    waiting = "SELECT count(*) FROM invalidator.outbox WHERE operation = 'I'"
    has_first = "SELECT 1 FROM item WHERE id = 1"
    await stack.until(
        lambda: pair.on(pair.standby, has_first) and pair.on(pair.standby, waiting) == [(0,)],
        "the standby knows that the first row is confirmed",
    )

    program.process.send_signal(signal.SIGSTOP)  # so that the next row is not confirmed, for certain
    await asyncio.to_thread(pair.on, pair.primary, "INSERT INTO item VALUES (2)")
    await stack.until(lambda: pair.on(pair.standby, "SELECT 1 FROM item WHERE id = 2"), "the standby has the row")
    for statement in ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"):
        await asyncio.to_thread(pair.on, pair.standby, statement)
    receiving = "SELECT 1 FROM pg_stat_wal_receiver"
    await stack.until(lambda: not pair.on(pair.standby, receiving), "the standby is cut off")
    await asyncio.to_thread(pair.on, pair.primary, "INSERT INTO item VALUES (3)")
    stack.fill("item:2", "item:3", "other:1")  # item:3 is what a reader has seen of a commit that is lost
    pair.primary.kill()
    await asyncio.to_thread(pair.standby.promote)
    assert await asyncio.to_thread(pair.on, pair.standby, waiting) == [(1,)], "item 2 is there, item 3 is lost"
    program.process.send_signal(signal.SIGCONT)

    gap = await program.event("gap.found")
    assert gap["reason"] == "other_history"
    await stack.gone("item:2", "item:3")
    await program.event("gap.repaired")
    assert stack.client.exists("other:1")
    stack.fill("item:4", "item:9")
    await asyncio.to_thread(pair.on, pair.standby, "INSERT INTO item VALUES (4)")
    await stack.gone("item:4")
    assert stack.client.exists("item:9"), "only what changed is dropped from now on"
    await stack.until(lambda: pair.on(pair.standby, waiting) == [(0,)], "what was confirmed is deleted there")
    assert len(program.events("gap.found")) == 1
