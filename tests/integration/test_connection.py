"""Who waits for an answer of Postgres, and does not want it any more."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from invalidator.postgres import connection as postgres
from invalidator.postgres.connection import ask, connect
from tests.support.postgres import Database
from tests.support.processes import DEADLINE_SECONDS


async def test_a_server_that_does_not_end_a_statement_in_time_is_hung_up_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_CANCEL_SECONDS", 0.01)
    is_asked = asyncio.Event()

    async def stubborn(_: psycopg.AsyncConnection[Any]) -> None:
        """Wait on when cancelled, as psycopg does for the end of the statement."""
        try:
            is_asked.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    async with asyncio.timeout(DEADLINE_SECONDS), await connect(database.dsn, application_name="test") as own:
        asking = asyncio.create_task(ask(own, stubborn))
        await is_asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(psycopg.OperationalError):
            await own.execute("SELECT 1")


async def test_a_server_that_ends_a_statement_in_time_can_be_asked_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_CANCEL_SECONDS", DEADLINE_SECONDS)
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' AND wait_event = 'PgSleep'"
    async with asyncio.timeout(DEADLINE_SECONDS), await connect(database.dsn, application_name="test") as own:
        asking = asyncio.create_task(ask(own, lambda connection: connection.execute("SELECT pg_sleep(3600)")))
        while not (await asyncio.to_thread(database.execute, sleeping))[0][0]:
            pass
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        cursor = await own.execute("SELECT 1")
        assert await cursor.fetchall() == [(1,)]
