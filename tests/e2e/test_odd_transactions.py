"""Huge and odd transactions through the whole daemon: nothing is lost, nothing is late, and what holds WAL is named."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invalidator.demo.servers import PostgresServer, ServerMissing
from tests.support.daemon import Stack
from tests.support.postgres import CopiedServer, Server, own_database
from tests.support.processes import Program
from tests.support.proxy import Fault, FaultProxy
from tests.support.services import missing
from tests.support.watched import Watched

SUBTRANSACTIONS = """
DO $$
BEGIN
  FOR n IN 1..3000 LOOP
    BEGIN
      INSERT INTO item VALUES (n);
      IF n %% 3 = 0 THEN RAISE EXCEPTION 'rolled back'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$
"""
MUCH_WAL = "SELECT pg_logical_emit_message(false, 'other', repeat('x', 1000000)) FROM generate_series(1, 20)"


async def test_subtransactions_and_a_changed_table_in_one_transaction(stack: Stack) -> None:
    stack.settings["continuity"]["catalog_seconds"] = 3600  # a column that goes widens the table
    program = await stack.start()
    kept = [f"item:{number}" for number in (1, 2, 2999, 4000, 4001, 4002)]
    stack.fill(*kept, "item:3", "item:3000")

    def write() -> None:
        with stack.database.connect() as connection:
            connection.execute(SUBTRANSACTIONS.replace("%%", "%"))
            connection.execute("INSERT INTO item VALUES (4000, 'before')")
            connection.execute("ALTER TABLE item ADD COLUMN more text")
            connection.execute("INSERT INTO item VALUES (4001, 'between', 'x')")
            connection.execute("ALTER TABLE item DROP COLUMN name")
            connection.execute("INSERT INTO item VALUES (4002, 'behind')")

    await asyncio.to_thread(write)

    await stack.gone(*kept)
    assert stack.client.exists("item:3", "item:3000") == 2, "what was rolled back was never there"
    await stack.confirmed_everything()
    assert len(program.events("stream.connected")) == 1


async def test_rows_of_a_copy_survive_a_crash_in_their_middle(stack: Stack, proxy_to: Callable[[str], Any]) -> None:
    """Rows of one COPY share positions: a position between two of them could be none."""
    proxy: FaultProxy = await proxy_to(stack.url)
    direct = stack.url
    stack.source |= {"max_batch_items": 100, "heartbeat_seconds": 60}
    stack.targets = {"redis": {"type": "redis_keys", "url": proxy.through(direct)}}
    program = await stack.start()
    names = [f"item:{number}" for number in range(5000)]
    stack.client.mset(dict.fromkeys(names, "stale"))
    before = await stack.position()
    await stack.until(lambda: stack.has_confirmed(before), f"{before} is confirmed")
    proxy.hold_after(request_bytes=20_000)  # of more than 50,000

    def copy() -> None:
        with stack.database.connect() as connection, connection.cursor().copy("COPY item (id) FROM STDIN") as rows:
            for number in range(5000):
                rows.write_row((number,))

    await asyncio.to_thread(copy)
    end = await stack.position()
    await stack.until(lambda: proxy.fault is Fault.BLACK_HOLE, "a part of it is applied")
    program.kill()
    await stack.until(lambda: stack.client.exists(*names) < 5000, "Redis has carried out what it was sent")
    assert stack.client.exists(*names) > 0
    assert stack.has_confirmed(before)
    assert not stack.has_confirmed(end), "the end of its commit is all that may be confirmed of it"
    stack.client.mset(dict.fromkeys(names, "stale"))
    proxy.fault = Fault.NONE
    await stack.start()

    await stack.until(lambda: not stack.client.exists(*names), "all of them are gone")


async def test_a_transaction_that_stays_open_holds_wal_but_no_change_back_and_is_named(stack: Stack) -> None:
    program = await stack.start()
    watched = Watched(program)
    with stack.database.connect() as session:
        session.execute("INSERT INTO item VALUES (1)")
        pid = session.info.backend_pid
        stack.fill("item:1", "item:2")
        await stack.sql(MUCH_WAL)
        await stack.sql("INSERT INTO item VALUES (2)")
        await stack.gone("item:2")
        await stack.confirmed_everything()

        def is_named() -> bool:
            stack.database.execute("CHECKPOINT")
            source = asyncio.run(watched.status())["source"]
            oldest = source["oldest_transaction"]
            if oldest is None or (oldest["pid"], oldest["state"]) != (pid, "idle in transaction"):
                return False
            is_true: bool = (
                oldest["age_s"] > 0
                and source["unconfirmed_wal_bytes"] < 1_000_000
                and source["retained_wal_bytes"] > 16_000_000
            )
            return is_true

        await stack.until(is_named, "the session is named, and that it holds WAL and no change back")
        await watched.until_value(0, "invalidator_staleness_seconds")
        assert stack.client.exists("item:1")
        session.commit()

    await stack.gone("item:1")
    assert len(program.events("stream.connected")) == 1


async def test_a_prepared_transaction_is_named_survives_a_restart_and_arrives_when_it_is_committed(
    tmp_path: Path, redis_url: str, run_program: Callable[..., Program]
) -> None:
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(two_phase_server())
        database = servers.enter_context(own_database(Server(server.dsn()), ""))
        database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
        stack = Stack(tmp_path, database, redis_url, run_program)
        servers.callback(stack.client.close)
        program = await stack.start()
        stack.fill("item:1", "item:2", "item:3")
        await stack.sql("BEGIN; INSERT INTO item VALUES (1); PREPARE TRANSACTION 'kept'")
        await stack.sql("BEGIN; INSERT INTO item VALUES (2); PREPARE TRANSACTION 'dropped'")
        await stack.sql(MUCH_WAL)
        await stack.sql("INSERT INTO item VALUES (3)")
        await stack.gone("item:3")
        await stack.confirmed_everything()
        watched = Watched(program)

        def is_named() -> bool:
            stack.database.execute("CHECKPOINT")
            oldest = asyncio.run(watched.status())["source"]["oldest_transaction"]
            return oldest is not None and (oldest["prepared_as"], oldest["state"]) == ("kept", "prepared")

        await stack.until(is_named, "the prepared transaction is named")
        program.kill()
        program = await stack.start()
        assert stack.client.exists("item:1", "item:2") == 2

        await stack.sql("ROLLBACK PREPARED 'dropped'")
        await stack.sql("COMMIT PREPARED 'kept'")

        await stack.gone("item:1")
        assert stack.client.exists("item:2")
        program.kill()


def two_phase_server() -> PostgresServer:
    try:
        return CopiedServer({"max_prepared_transactions": "5"})
    except ServerMissing as error:
        missing(str(error))
