"""What users of similar tools have lost changes, memory or disks by, and what nothing else here tests.

The table "Learned from others" in docs/guarantees.md names the tests for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from invalidator.demo.servers import KeyValueServer, PostgresServer
from invalidator.model import Lsn
from tests.support.daemon import Stack
from tests.support.postgres import Database, Server, own_database
from tests.support.processes import DEADLINE_SECONDS, Program
from tests.support.proxy import Fault, FaultProxy
from tests.support.watched import Watched

MEGABYTE = 1024
IDLE_TIMEOUT_SERVER = 180000
MANY = 200_000
ENOUGH = 50_000
STREAM = 2
"""The daemon's first connection is for questions; the stream is the next one."""


def copy(stack: Stack, rows: int) -> None:
    """Load that many rows by one COPY, which is one transaction, and whose rows share WAL records."""
    with stack.database.connect() as connection, connection.cursor().copy("COPY item FROM STDIN") as copying:
        copying.write("".join(f"{number}\ta\n" for number in range(rows)))


def peak_memory(program: Program) -> int:
    """The most that it has ever held, in kilobytes."""
    status = Path(f"/proc/{program.pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


async def test_a_copy_of_many_rows_in_one_transaction_takes_little_memory(stack: Stack) -> None:
    program = await stack.start()
    stack.fill("item:0", f"item:{MANY - 1}")

    await asyncio.to_thread(copy, stack, MANY)

    await stack.gone("item:0", f"item:{MANY - 1}")
    await stack.confirmed_everything()
    assert peak_memory(program) < 128 * MEGABYTE


async def test_a_copy_comes_again_as_a_whole_when_the_daemon_is_killed_in_the_middle(
    stack: Stack, proxy_to: Callable[[str], Awaitable[FaultProxy]]
) -> None:
    proxy = await proxy_to(stack.url)
    for target in stack.targets.values():
        target["url"] = proxy.through(stack.url)
    stack.source["max_batch_items"] = 1000
    program = await stack.start()
    stack.fill("item:0", f"item:{ENOUGH - 1}")
    proxy.hold_after(request_bytes=10 * ENOUGH)  # a fifth of what it sends, or less
    await asyncio.to_thread(copy, stack, ENOUGH)
    await stack.until(lambda: proxy.fault is Fault.BLACK_HOLE, "it is in the middle")
    await stack.gone("item:0")
    program.kill()
    assert stack.client.exists(f"item:{ENOUGH - 1}")
    stack.fill("item:0")
    proxy.fault = Fault.NONE

    await stack.start()

    await stack.gone("item:0", f"item:{ENOUGH - 1}")


async def test_a_busy_neighbour_does_not_make_an_idle_database_keep_wal(stack: Stack, postgres_server: Server) -> None:
    await stack.start()
    with own_database(postgres_server, "") as neighbour:
        neighbour.execute("CREATE TABLE noise AS SELECT generate_series(1, 100000) AS number")
        end = Lsn.parse(neighbour.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0])

        def keeps_less() -> bool:
            neighbour.execute("CHECKPOINT")  # writes down which transactions run: from there a slot may restart
            query = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
            return Lsn.parse(stack.database.execute(query, stack.database.name)[0][0]) >= end

        await stack.until(keeps_less, "the slot needs no WAL of before the noise")


@pytest.fixture
def shop(
    tmp_path: Path, crashable_postgres: PostgresServer, own_redis: KeyValueServer, run_program: Callable[..., Program]
) -> Iterator[Stack]:
    """The stack on a server of its own, whose settings may be changed."""
    database = Database(Server(crashable_postgres.dsn()), "postgres")
    database.execute("CREATE TABLE item (id int PRIMARY KEY, slug text)")
    made = Stack(tmp_path, database, own_redis.url, run_program)
    yield made
    made.client.close()
    database.close()


def remove_wal(database: Database) -> None:
    """More than the slot may keep."""
    database.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    database.execute("SELECT pg_reload_conf()")
    for _ in range(3):
        database.execute("SELECT pg_logical_emit_message(true, 'test', 'much'), pg_switch_wal()")
    database.execute("CHECKPOINT")
    database.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")


def be_idle(database: Database) -> None:
    """Longer than a slot may be, on servers that know such a bound."""
    if database.execute("SELECT current_setting('server_version_num')::int")[0][0] < IDLE_TIMEOUT_SERVER:
        pytest.skip("slots are lost by being idle since Postgres 18")
    database.execute("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
    database.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize(("lose", "reason"), [(remove_wal, "wal_removed"), (be_idle, "idle_timeout")])
async def test_a_slot_that_was_lost_while_the_daemon_was_away_is_made_anew_and_everything_is_widened(
    shop: Stack, lose: Callable[[Database], None], reason: str
) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.confirmed_everything()
    program.kill()
    lose(shop.database)

    def is_lost() -> bool:
        shop.database.execute("CHECKPOINT")
        return shop.database.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]

    await shop.until(is_lost, "the slot is lost")
    await shop.sql("ALTER SYSTEM RESET ALL")
    await shop.sql("SELECT pg_reload_conf()")
    await shop.sql("INSERT INTO item VALUES (2, 'a')")
    shop.fill("item:2")

    program = await shop.start()

    await shop.gone("item:2")
    await Watched(program).until_value(1, "invalidator_gaps_total", reason=reason)
    shop.fill("item:3")
    await shop.sql("INSERT INTO item VALUES (3, 'a')")
    await shop.gone("item:3")


async def test_a_slot_that_is_lost_between_the_look_and_the_start_is_no_end(
    shop: Stack, proxy_to: Callable[[str], Awaitable[FaultProxy]]
) -> None:
    program = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'a')")
    await shop.confirmed_everything()
    program.kill()
    database = shop.database
    database.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    database.execute("SELECT pg_reload_conf()")
    for _ in range(3):
        database.execute("SELECT pg_logical_emit_message(true, 'test', 'much'), pg_switch_wal()")
    proxy = await proxy_to(database.dsn)
    proxy.latency_seconds = 0.05
    shop.source["dsn"] = proxy.through(database.dsn)
    shop.fill("item:1")

    program = shop.run()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while proxy.connections < STREAM:  # noqa: ASYNC110  (bytes wait ten times as long as this look)
            await asyncio.sleep(0.005)
    proxy.fault = Fault.BLACK_HOLE  # it has looked, and nothing that it says on the stream's connection has passed yet
    await asyncio.to_thread(database.execute, "CHECKPOINT")
    assert database.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    proxy.fault, proxy.latency_seconds = Fault.NONE, 0

    await shop.gone("item:1")
    assert (await program.event("stream.lost"))["reason"] == "slot_lost"
    await Watched(program).until_value(1, "invalidator_gaps_total", reason="wal_removed")


async def test_a_publication_that_was_dropped_and_made_again_widens_its_tables(stack: Stack) -> None:
    stack.settings["continuity"]["catalog_seconds"] = 0.2
    watched = Watched(await stack.start())
    name = f"invalidator:{stack.database.name}:catalog"
    await stack.until(lambda: stack.client.exists(name), "it has looked")
    await stack.sql("DROP PUBLICATION invalidator")
    await watched.until_value(1, "invalidator_gaps_total", reason="catalog_changed")
    with psycopg.connect(stack.database.dsn, autocommit=True) as connection:
        stack.fill("item:1")
        connection.execute("CREATE PUBLICATION invalidator FOR TABLE item")

    await stack.gone("item:1")

    stack.fill("item:2")
    await stack.sql("INSERT INTO item VALUES (2, 'a')")
    await stack.gone("item:2")
