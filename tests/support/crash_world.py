"""A daemon that is killed at crash points, three cache layers around it, and the check that nothing was lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import redis

from invalidator.demo.servers import KeyValueServer
from tests.support.chaos.layers import Edge, Mood, Processes
from tests.support.crashing import VARIABLE
from tests.support.daemon import write_whole
from tests.support.outbox import setup
from tests.support.postgres import CopiedServer
from tests.support.processes import DEADLINE_SECONDS, Program

ROWS: Final = 6
SLOT: Final = "crash"
RULES: Final[list[dict[str, Any]]] = [
    {
        "name": "item",
        "table": "public.item",
        "invalidate": {
            "keys": ["item:{id}", "slug:{slug}"],
            "tags": ["item:{id}"],
            "l1": ["item:{id}"],
            "cdn": ["item-{id}"],
        },
        "coarse": {"cdn": ["items"]},
        "repeat_after": ["200ms"],
    },
    {
        "name": "part",
        "table": "public.item",
        "lookup": {"part": {"sql": "SELECT part.id FROM part WHERE part.item = {id}"}},
        "invalidate": {"keys": ["part:{part.id}"]},
    },
]


class CrashWorld:
    """See the module. Everything in it is synchronous; the outer layers live in a thread with a loop of their own.

    Args:
        folder: for settings and rules.
        source: its type.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        self._source = source
        self._variant = 0
        self._version = 0
        self._armed = folder / "armed"
        self.journal = folder / "state.db"
        self.postgres = CopiedServer()
        self.redis = KeyValueServer()
        self.store = redis.Redis.from_url(self.redis.url, decode_responses=True)
        self.edge = Edge()
        self._processes = Processes(lambda: self.redis.url)
        self._loop = asyncio.new_event_loop()
        self._listening = self._loop.create_task(self._serve())
        self._is_serving = threading.Event()
        self._thread = threading.Thread(target=self._run_loop, daemon=True)
        self._thread.start()
        assert self._is_serving.wait(DEADLINE_SECONDS)
        self.connection = psycopg.connect(self.postgres.dsn(), autocommit=True)
        self._prepare()
        self.daemon = self._run()

    def close(self) -> None:
        """End everything."""
        self.daemon.close()
        self.connection.close()
        self.store.close()
        self._loop.call_soon_threadsafe(self._listening.cancel)
        self._thread.join(DEADLINE_SECONDS)
        self.redis.close()
        self.postgres.close()

    # ---------------------------------------------------------------- the servers around it

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listening)
        except asyncio.CancelledError:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with self.edge:
            self._is_serving.set()
            await self._processes.listen()

    def _prepare(self) -> None:
        self.connection.execute("CREATE TABLE item (id int PRIMARY KEY, slug text NOT NULL, version int NOT NULL)")
        self.connection.execute("ALTER TABLE item REPLICA IDENTITY FULL")
        self.connection.execute("INSERT INTO item SELECT g, 's' || g, 0 FROM generate_series(1, %s) g", [ROWS])
        self.connection.execute("CREATE TABLE part AS SELECT id, id AS item FROM item")
        self.write_rules()
        if self._source == "outbox":
            asyncio.run(setup(self.postgres.dsn(), RULES))
        retry = {"retry": {"max_delay_seconds": 0.2}}
        source = {"slot": SLOT, "publication": SLOT, "create": True} if self._source == "pgoutput" else {}
        settings = {
            "rules": "rules.yaml",
            "source": {"type": self._source, "dsn": self.postgres.dsn(), "heartbeat_seconds": 0.5, **source},
            "targets": {
                "redis": {"type": "redis_keys", "url": self.redis.url, **retry},
                "bus": {"type": "redis_bus", "url": self.redis.url, **retry},
                "edge": {"type": "varnish", "url": f"http://127.0.0.1:{self.edge.port}", **retry},
            },
            "continuity": {
                "on_first_start": "widen", "redo_window_seconds": 0, "pause_seconds": 0, "catalog_seconds": 0.2,
                "max_new_slots_per_hour": 1000, "wal": "widen_and_skip", "wal_bytes": 1000,
            },
            "state": {"path": str(self.journal)},
            "reload": {"interval_seconds": 0.2},
            "http": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
        }  # fmt: skip
        (self._folder / "invalidator.yaml").write_text(json.dumps(settings), encoding="utf-8")

    # ---------------------------------------------------------------- the daemon

    def _run(self) -> Program:
        call = ["run", "--settings", str(self._folder / "invalidator.yaml")]
        return Program(*call, module="tests.support.crashing", env={VARIABLE: str(self._armed)})

    def start(self) -> None:
        """Start a daemon in the place of the one that there was."""
        self.daemon.close()
        self.daemon = self._run()

    def until_streaming(self) -> None:
        """Return when the daemon streams."""
        self.daemon.wait_for_event("stream.connected")

    def arm(self, point: str) -> None:
        """From now on a daemon that comes to the point dies there."""
        write_whole(self._armed, point)

    def until_killed(self) -> None:
        """Return when the daemon has died at its crash point; later ones live."""
        assert self.daemon.wait() == -signal.SIGKILL, self.daemon.output
        self._armed.unlink()

    # ---------------------------------------------------------------- the application

    def write_rules(self) -> None:
        """Other rules than before that drop the same."""
        self._variant += 1
        more = {"name": f"more-{self._variant}", "table": "public.item", "invalidate": {"keys": ["more:{id}"]}}
        text = json.dumps({"version": 1, "rules": [*RULES, more]})
        write_whole(self._folder / "rules.yaml", text)

    def fill(self) -> None:
        """Put everything that is true into every layer."""
        for row, slug, version in self.connection.execute("SELECT id, slug, version FROM item").fetchall():
            values = {f"item:{row}": version, f"slug:{slug}": row, f"page:{row}": version, f"part:{row}": version}
            with self.store.pipeline(transaction=True) as pipeline:
                pipeline.sadd(f"tag:item:{row}", f"page:{row}")
                pipeline.mset(values)
                pipeline.execute()
            self._processes.cache[f"item:{row}"] = str(version)
            self.edge.store(f"item:{row}", str(version), f"item-{row}", "items")

    def change(self) -> None:
        """Make everything that is cached stale, in one transaction."""
        self._version += 1
        statement = "UPDATE item SET version = %s, slug = 's' || id || '-' || %s"
        self.connection.execute(statement, [self._version, self._version])

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Meanwhile the daemon stands still, and cannot see what happens."""
        os.kill(self.daemon.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.daemon.pid, signal.SIGCONT)

    def until_fresh(self) -> None:
        """Return when no layer holds what is not so; fail after a while."""
        self.until(lambda: not self.stale(), lambda: f"stale: {self.stale()}\n{self.daemon.output}")

    def until(self, condition: Callable[[], bool], what: Callable[[], str]) -> None:
        """Return when it holds; fail after a while."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(what())
            time.sleep(0.02)

    def stale(self) -> dict[str, str]:
        """Entries of any layer that are not what the database holds."""
        truth: dict[str, str] = {}
        for row, slug, version in self.connection.execute("SELECT id, slug, version FROM item").fetchall():
            truth |= {f"{name}:{row}": str(version) for name in ("item", "page", "part")} | {f"slug:{slug}": str(row)}
        names = [name for kind in ("item", "page", "part", "slug") for name in self.store.keys(f"{kind}:*")]
        inner = {str(name): str(self.store.get(name) or "") for name in names}
        edge = {name: value for name, (value, _) in list(self.edge.pages.items())}
        layers: dict[str, dict[str, str]] = {"L2": inner, "L1": dict(self._processes.cache), "L3": edge}
        return {
            f"{layer} {name}": value
            for layer, entries in layers.items()
            for name, value in entries.items()
            if value and truth.get(name) != value
        }

    def until_confirmed(self) -> None:
        """Return when the server has been told that everything up to now is done, and a record says so.

        A slot that was just made is told to have confirmed all that came before it: that says nothing of the daemon.
        """
        self.connection.execute("SELECT pg_logical_emit_message(true, 'test', 'one thing more')")
        ((now,),) = self.connection.execute("SELECT pg_current_wal_flush_lsn()").fetchall()
        if self._source == "pgoutput":
            query, parameters = "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots", [now]
        else:
            query, parameters = "SELECT NOT EXISTS (SELECT FROM invalidator.outbox WHERE operation = 'U')", []
        self.until(
            lambda: self.connection.execute(query, parameters).fetchall() == [(True,)],
            lambda: f"not confirmed\n{self.daemon.output}",
        )

    @contextlib.contextmanager
    def refusing_redis(self) -> Iterator[None]:
        """Meanwhile UNLINK is forbidden; everything else it takes."""
        self._change_permissions("-unlink")
        try:
            yield
        finally:
            self._change_permissions("+unlink")

    def _change_permissions(self, change: str) -> None:
        self.store.execute_command("ACL", "SETUSER", "default", change)  # type: ignore[no-untyped-call]

    def forget_state(self) -> None:
        """Remove the state file with what belongs to it."""
        for suffix in ("", "-wal", "-shm"):
            self.journal.with_name(self.journal.name + suffix).unlink(missing_ok=True)

    def let_edge_fail(self, *, failing: bool) -> None:
        """Refuse purges, or take them again."""
        self.edge.mood = Mood.FAILING if failing else Mood.GOOD
