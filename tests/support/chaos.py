"""Breaks everything around a daemon at random, and then looks whether a stale entry is left.

Readers fill the cache only with what is committed and while nobody writes that row, so a cached value that is not the
row's value can have one reason only: a change was not applied, and not made good.

``python -m tests.support.chaos --minutes 30 --seed 7`` runs for long; ``scripts/chaos`` is the same. A seed gives the
same faults and the same writes; when they meet, the operating system decides.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
import redis.asyncio

from invalidator.demo.servers import KeyValueServer, PostgresServer
from tests.support.processes import Program

ROWS: Final = 40
SLOT: Final = "chaos"
RULES: Final[Sequence[dict[str, Any]]] = (
    {"name": "item", "table": "public.item", "invalidate": {"keys": ["item:{id}"]}},
    {"name": "slug", "table": "public.item", "invalidate": {"keys": ["slug:{slug}"]}},
)
QUIET_SECONDS: Final = 60.0


@dataclass
class Outcome:
    """How a run ended."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    writes: int = 0
    fills: int = 0
    stale: dict[str, str] = field(default_factory=dict)
    """Key → what is wrong with it."""
    seconds: float = 0.0

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        stale = "; ".join(f"{key}: {what}" for key, what in list(self.stale.items())[:5])
        return (
            f"seed {self.seed}: {self.seconds:.0f} s, {self.writes} transactions, {self.fills} fills, "
            f"{self.faults.total()} faults ({faults}), {len(self.stale)} stale entries {stale}"
        ).rstrip()


class World:
    """Servers, a daemon, writers that are also readers, and the faults.

    Args:
        folder: for settings and rules.
        seed: of every choice.
        defect: a planted one, by its name in ``tests.support.defects``; None: the daemon as it is.
        rules: what the daemon is told.
        patience_seconds: how long a stale entry may still go after everything was confirmed.
        redo_window_seconds: of the daemon.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        defect: str | None = None,
        rules: Sequence[dict[str, Any]] = RULES,
        patience_seconds: float = QUIET_SECONDS / 3,
        redo_window_seconds: float = 2,
    ) -> None:
        self._folder = folder
        self._random = random.Random(seed)  # noqa: S311  (a seed that replays, no secret)
        self._defect = defect
        self._patience_seconds = patience_seconds
        self._redo_window_seconds = redo_window_seconds
        self._rules = list(rules)
        self._locks = [asyncio.Lock() for _ in range(ROWS)]
        self._every_row = asyncio.Lock()
        self._is_over = False
        self.outcome = Outcome(seed)
        self.postgres: PostgresServer
        self.redis: KeyValueServer
        self.daemon: Program

    # ---------------------------------------------------------------- life

    async def run(self, seconds: float, faults: Sequence[str]) -> Outcome:
        """Play for so long, let everything come to rest, and look."""
        begun = time.monotonic()
        settings = {"max_slot_wal_keep_size": "-1", "wal_sender_timeout": "10s"}
        with PostgresServer(settings=settings) as self.postgres, KeyValueServer() as self.redis:
            self._prepare()
            self.daemon = self._start()
            try:
                await self._play(seconds, faults)
                await self._come_to_rest()
                deadline = time.monotonic() + self._patience_seconds
                await self._look()
                while self.outcome.stale and time.monotonic() < deadline:  # what the catalog tells comes a little later
                    await asyncio.sleep(0.5)
                    await self._look()
            finally:
                self.daemon.close()
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    def _prepare(self) -> None:
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE item (id int PRIMARY KEY, slug text NOT NULL, version int NOT NULL)")
            connection.execute("ALTER TABLE item REPLICA IDENTITY FULL")
            connection.execute("INSERT INTO item SELECT g, 's' || g, 0 FROM generate_series(0, %s) g", [ROWS - 1])
        self._write_rules(0)
        settings = {
            "rules": "rules.yaml",
            "source": {
                "type": "pgoutput", "dsn": self.postgres.dsn(), "slot": SLOT, "publication": SLOT,
                "create": True,
                "heartbeat_seconds": 1,
            },
            "targets": {"redis": {"type": "redis_keys", "url": self.redis.url, "retry": {"max_delay_seconds": 0.3}}},
            "continuity": {
                "on_first_start": "widen", "redo_window_seconds": self._redo_window_seconds, "pause_seconds": 0,
                "catalog_seconds": 0.5, "max_new_slots_per_hour": 1000,
            },
            "reload": {"interval_seconds": 0.5},
            "http": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
        }  # fmt: skip
        (self._folder / "invalidator.yaml").write_text(json.dumps(settings), encoding="utf-8")

    def _write_rules(self, variant: int) -> None:
        rules = [*self._rules, {"name": f"more-{variant}", "table": "public.item", "invalidate": {"tags": ["t:{id}"]}}]
        (self._folder / "rules.yaml").write_text(json.dumps({"version": 1, "rules": rules}), encoding="utf-8")

    def _start(self) -> Program:
        call = ["run", "--settings", str(self._folder / "invalidator.yaml")]
        return (
            Program(*call) if self._defect is None else Program(*call, module=f"tests.support.defects.{self._defect}")
        )

    async def _play(self, seconds: float, faults: Sequence[str]) -> None:
        writers = [asyncio.create_task(self._write_and_read(number)) for number in range(4)]
        await asyncio.to_thread(self.daemon.wait_for_event, "stream.connected", deadline_seconds=60)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                await asyncio.sleep(self._random.uniform(0.3, 1.5))
                name = self._random.choice(list(faults))
                self.outcome.faults[name] += 1
                await FAULTS[name](self)
        finally:
            self._is_over = True
            await asyncio.gather(*writers)

    # ---------------------------------------------------------------- the application

    async def _write_and_read(self, number: int) -> None:
        choice = random.Random(f"{self.outcome.seed}/{number}")  # noqa: S311
        cache = redis.asyncio.Redis.from_url(self.redis.url, socket_timeout=60)
        connection: psycopg.AsyncConnection[Any] | None = None
        while not self._is_over:
            await asyncio.sleep(choice.uniform(0, 0.03))
            try:
                if connection is None or connection.closed:
                    connection = await psycopg.AsyncConnection.connect(
                        self.postgres.dsn(), autocommit=True, connect_timeout=2
                    )
                if choice.random() < 0.01:
                    await self._truncate(connection)
                elif choice.random() < 0.5:
                    await self._change(connection, choice)
                else:
                    await self._fill(connection, cache, choice)
            except (psycopg.Error, redis.RedisError, OSError):
                continue  # a server is away: whether the transaction was committed does not matter to the check
        await cache.aclose()
        if connection is not None:
            await connection.close()

    async def _change(self, connection: psycopg.AsyncConnection[Any], choice: random.Random) -> None:
        row = choice.randrange(ROWS)
        slug = f"s{row}-{choice.randrange(3)}"
        statement = choice.choice(
            (
                "UPDATE item SET version = %(version)s WHERE id = %(id)s",
                "UPDATE item SET version = %(version)s, slug = %(slug)s WHERE id = %(id)s",
                "DELETE FROM item WHERE id = %(id)s",
                "INSERT INTO item VALUES (%(id)s, %(slug)s, %(version)s) "
                "ON CONFLICT (id) DO UPDATE SET version = excluded.version",
            )
        )
        async with self._locks[row]:
            self.outcome.writes += 1  # also a version that no row had before
            await connection.execute(statement, {"id": row, "slug": slug, "version": self.outcome.writes})

    async def _truncate(self, connection: psycopg.AsyncConnection[Any]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for lock in self._locks:
                await stack.enter_async_context(lock)
            await connection.execute("TRUNCATE item")
            self.outcome.writes += 1

    async def _fill(
        self, connection: psycopg.AsyncConnection[Any], cache: redis.asyncio.Redis, choice: random.Random
    ) -> None:
        row = choice.randrange(ROWS)
        async with self._locks[row]:
            found = await (await connection.execute("SELECT slug, version FROM item WHERE id = %s", [row])).fetchone()
            if found is not None:
                await cache.mset({f"item:{row}": found[1], f"slug:{found[0]}": row})
                self.outcome.fills += 1

    # ---------------------------------------------------------------- the end

    async def _come_to_rest(self) -> None:
        """Everything runs again, and the daemon has confirmed all that is committed, or made good what never came."""
        for server in (self.postgres, self.redis):
            if not server.running:
                await asyncio.to_thread(server.start)
        if self.daemon.process.poll() is not None:
            self.daemon.close()
            self.daemon = self._start()
        deadline = time.monotonic() + QUIET_SECONDS
        target: str | None = None
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            with contextlib.suppress(psycopg.Error):
                target = target or self._committed()
                if self._has_confirmed(target):
                    return
        msg = f"the daemon did not confirm {target} within {QUIET_SECONDS} s:\n{self.daemon.output[-4000:]}"
        raise AssertionError(msg)

    def _committed(self) -> str:
        """A position behind everything that is committed."""
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'chaos', 'the end')")
            [(position,)] = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
        return str(position)

    def _has_confirmed(self, position: str) -> bool:
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            return connection.execute(query, [position, SLOT]).fetchall() == [(True,)]

    async def _look(self) -> None:
        with psycopg.connect(self.postgres.dsn()) as connection:
            rows = connection.execute("SELECT id, slug, version FROM item").fetchall()
        truth = {f"item:{row}": str(version) for row, _, version in rows}
        truth |= {f"slug:{slug}": str(row) for row, slug, _ in rows}
        cache = redis.Redis.from_url(self.redis.url, decode_responses=True)
        self.outcome.stale.clear()
        for key in [*cache.scan_iter("item:*", 1000), *cache.scan_iter("slug:*", 1000)]:
            value = cache.get(key)
            if value is not None and truth.get(key) != value:
                self.outcome.stale[str(key)] = f"cached {value!r}, is {truth.get(str(key))!r}"
        cache.close()


# -------------------------------------------------------------------- faults


Fault = Callable[[World], Awaitable[None]]


async def kill_daemon(world: World) -> None:
    world.daemon.kill()
    await asyncio.sleep(world._random.uniform(0, 0.5))
    world.daemon.close()
    world.daemon = world._start()


async def stop_daemon(world: World) -> None:
    world.daemon.terminate()
    await asyncio.to_thread(world.daemon.wait, 30)
    world.daemon.close()
    world.daemon = world._start()


async def freeze_daemon(world: World) -> None:
    await _freeze(world, world.daemon.pid)


async def freeze_redis(world: World) -> None:
    await _freeze(world, world.redis.pid)


async def _freeze(world: World, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(world._random.uniform(0.1, 1.5))
        os.kill(pid, signal.SIGCONT)


async def crash_postgres(world: World) -> None:
    await asyncio.to_thread(world.postgres.kill)
    await asyncio.to_thread(world.postgres.start)


async def restart_postgres(world: World) -> None:
    await asyncio.to_thread(world.postgres.restart, "fast")


async def restart_redis_empty(world: World) -> None:
    await asyncio.to_thread(_forget_dump, world.redis.url)
    await asyncio.to_thread(world.redis.kill)
    await asyncio.to_thread(world.redis.start)


async def fail_over_redis(world: World) -> None:
    """Back to what it was a moment ago, as a replica that lags."""
    await asyncio.to_thread(_save, world.redis.url)
    await asyncio.sleep(world._random.uniform(0.1, 1.2))
    await asyncio.to_thread(world.redis.kill)
    await asyncio.to_thread(world.redis.start)


def _forget_dump(url: str) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url, decode_responses=True) as client:
        Path(client.config_get("dir")["dir"], "dump.rdb").unlink(missing_ok=True)


def _save(url: str) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        client.save()


async def forbid_unlink(world: World) -> None:
    """An ACL that somebody got wrong, for a while: the same server refuses the same calls."""
    await asyncio.to_thread(_acl, world.redis.url, "-unlink")
    await asyncio.sleep(world._random.uniform(0.3, 4))
    await asyncio.to_thread(_acl, world.redis.url, "+unlink")


async def kill_daemon_while_unlink_is_forbidden(world: World) -> None:
    await asyncio.to_thread(_acl, world.redis.url, "-unlink")
    await asyncio.sleep(world._random.uniform(3, 4))  # longer than the redo window
    world.daemon.kill()
    await asyncio.to_thread(_acl, world.redis.url, "+unlink")
    world.daemon.close()
    world.daemon = world._start()


def _acl(url: str, change: str) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "default", change)


async def flush_redis(world: World) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(world.redis.url) as client:
        client.flushall()


async def drop_slot(world: World) -> None:
    await asyncio.to_thread(
        _sql,
        world,
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active",
        f"SELECT pg_drop_replication_slot('{SLOT}')",
    )


async def end_walsender(world: World) -> None:
    await asyncio.to_thread(
        _sql, world, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"
    )


async def unpublish(world: World) -> None:
    await asyncio.to_thread(_sql, world, f"ALTER PUBLICATION {SLOT} DROP TABLE item")
    await asyncio.sleep(world._random.uniform(0.1, 2))
    await asyncio.to_thread(_sql, world, f"ALTER PUBLICATION {SLOT} ADD TABLE item")


async def change_rules(world: World) -> None:
    world._write_rules(world._random.randrange(100))


async def break_rules(world: World) -> None:
    (world._folder / "rules.yaml").write_text("version: 1\nrules: [", encoding="utf-8")
    await asyncio.sleep(world._random.uniform(0.2, 1))
    world._write_rules(world._random.randrange(100))


def _sql(world: World, *statements: str) -> None:
    with (
        contextlib.suppress(psycopg.Error),
        psycopg.connect(world.postgres.dsn(), autocommit=True, connect_timeout=2) as connection,
    ):
        for statement in statements:
            with contextlib.suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                connection.execute(statement)


FAULTS: Final[dict[str, Fault]] = {
    each.__name__: each
    for each in (
        kill_daemon, stop_daemon, freeze_daemon, freeze_redis, crash_postgres, restart_postgres, restart_redis_empty,
        fail_over_redis, flush_redis, forbid_unlink, kill_daemon_while_unlink_is_forbidden, drop_slot,
        end_walsender, unpublish, change_rules, break_rules,
    )
}  # fmt: skip


def main() -> int:
    """Run with seeds one after the other, a minute each."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None, help="of the first minute  [default: the time]")
    parser.add_argument("--faults", default=",".join(FAULTS), help="only these, as a,b  [default: all]")
    arguments = parser.parse_args()
    first = arguments.seed if arguments.seed is not None else int(time.time())
    found = total = 0
    for number in range(max(1, round(arguments.minutes))):
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder), first + number)
            seconds = min(60.0, arguments.minutes * 60)
            outcome = asyncio.run(world.run(seconds, arguments.faults.split(",")))
        print(outcome, flush=True)
        found += len(outcome.stale)
        total += outcome.faults.total()
    print(f"{total} faults, {found} stale entries")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
