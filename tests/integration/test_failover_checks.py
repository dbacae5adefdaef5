"""What check tells about a primary and its standby, and whether its SQL mends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest

from invalidator.demo.servers import PostgresServer
from invalidator.postgres.connection import connect
from invalidator.preflight.facts import gather
from invalidator.preflight.finding import Finding
from tests.support.preflight import examined, needs_of
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import missing
from tests.support.standby import Standby

RULE = """\
  - name: item
    table: public.item
    invalidate: {keys: ["item:{id}"]}
"""
MAKE = "SELECT pg_create_logical_replication_slot('inv', 'pgoutput', false, false, {})"
CONFIRM = """\
SELECT pg_log_standby_snapshot()
SELECT pg_replication_slot_advance('inv', pg_current_wal_lsn())"""
"""A standby keeps a copy of a slot that moves on: it looks the less often the longer nothing has moved."""


async def found(server: PostgresServer) -> dict[str, Finding]:
    """What is told about the replication of slots, by code."""
    async with await connect(server.dsn(), application_name="test") as connection:
        facts = await gather(connection, needs_of(RULE), slot="inv", publication="inv")
    return {each.code: each for each in examined(RULE, facts) if "standby" in each.code or "slot" in each.code}


async def until(
    server: PostgresServer, *codes: str, meanwhile: Callable[[], None] = lambda: None
) -> dict[str, Finding]:
    """What is told, as soon as it is just this."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (told := await found(server)).keys() != set(codes):
        if time.monotonic() > deadline:
            pytest.fail(f"not {codes}: {told}")
        meanwhile()
        await asyncio.sleep(0.05)
    return told


def run(server: PostgresServer, statements: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for statement in statements.splitlines():
            connection.execute(statement)


async def test_the_way_to_a_slot_that_survives_a_failover_is_told_step_by_step(
    crashable_postgres: PostgresServer,
) -> None:
    primary = crashable_postgres
    with psycopg.connect(primary.dsn(), autocommit=True) as admin:
        if admin.info.server_version < 170000:
            missing("failover slots need Postgres 17")
        admin.execute("CREATE TABLE item (id int PRIMARY KEY)")
        admin.execute("CREATE PUBLICATION inv FOR TABLE item")
        admin.execute(MAKE.format("false"))
        assert await found(primary) == {}
        with await asyncio.to_thread(Standby, primary, physical_slot="standby_1") as standby:
            await until(primary, "slot-not-failover")
            await until(standby, "server-is-standby", "slot-not-synced")
            admin.execute("SELECT pg_drop_replication_slot('inv')")
            admin.execute(MAKE.format("true"))

            told = await until(primary, "standby-not-awaited")
            run(primary, told["standby-not-awaited"].diagnostic.fix or "")
            await until(primary)
            told = await until(standby, "server-is-standby", "slot-not-synced")
            run(standby, told["slot-not-synced"].diagnostic.fix or "")
            await until(standby, "server-is-standby", meanwhile=lambda: run(primary, CONFIRM))

        told = await until(primary, "standby-away")
        assert "standby_1, which is not connected" in told["standby-away"].diagnostic.message
        run(primary, told["standby-away"].diagnostic.fix or "")
        await until(primary)
