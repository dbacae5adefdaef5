"""The daemon over a real Postgres and a real Redis, with rules from the test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml
from redis.client import PubSub

from invalidator.model import Lsn
from tests.support.postgres import Database
from tests.support.processes import DEADLINE_SECONDS, Program

ITEM_RULE: dict[str, Any] = {
    "name": "item",
    "table": "public.item",
    "invalidate": {"keys": ["item:{id}"], "tags": ["item:{id}"], "l1": ["item:{id}:*"]},
}


def write_whole(file: Path, text: str) -> None:
    """Put a text into a file that somebody may read at any moment: he finds the old one or the new one."""
    draft = file.with_name(f".{file.name}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


class Stack:
    """A database with a table ``item``, a Redis, and daemons between them."""

    def __init__(self, folder: Path, database: Database, url: str, run_program: Callable[..., Program]) -> None:
        self.database = database
        self.url = url
        self.folder = folder
        self.rules: list[Mapping[str, Any]] = [ITEM_RULE]
        self.source: dict[str, Any] = {"create": True, "heartbeat_seconds": 0.5, "status_seconds": 0.2}
        self.targets: dict[str, dict[str, Any]] = {
            "redis": {"type": "redis_keys", "url": url, "retry": {"max_delay_seconds": 0.2}},
            "bus": {"type": "redis_bus", "url": url, "retry": {"max_delay_seconds": 0.2}},
        }
        self.settings: dict[str, Any] = {
            "shutdown": {"grace_seconds": 5},
            "continuity": {"redo_window_seconds": 0, "pause_seconds": 0},
        }
        self._run = run_program
        self.client = redis.Redis.from_url(url, socket_timeout=5)

    def write(self) -> Path:
        """Write rules and settings; the path of the settings."""
        write_whole(self.folder / "rules.yaml", json.dumps({"version": 1, "rules": self.rules}))
        slot = {} if "type" in self.source else {"type": "pgoutput", "slot": self.database.name}
        settings = {
            "rules": "rules.yaml",
            "source": {"dsn": self.database.dsn, **slot, **self.source},
            "targets": self.targets,
            "http": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
            **self.settings,
        }
        path = self.folder / "invalidator.yaml"
        write_whole(path, yaml.safe_dump(settings))
        return path

    def run(self, env: dict[str, str] | None = None, module: str = "invalidator") -> Program:
        """Start a daemon; it need not stream yet."""
        return self._run("run", "--settings", self.write(), env=env, module=module)

    async def start(self, module: str = "invalidator") -> Program:
        """Start a daemon and return when it streams."""
        program = self.run(module=module)
        await program.event("stream.connected")
        return program

    async def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement in autocommit."""
        return await asyncio.to_thread(self.database.execute, statement, *parameters)

    def fill(self, *keys: str) -> None:
        """Put a stale value under each key."""
        for key in keys:
            self.client.set(key, "stale")

    def subscribed(self) -> PubSub:
        """A subscriber that hears everything from now on; the caller closes it."""
        listener: PubSub = self.client.pubsub()  # type: ignore[no-untyped-call]
        listener.subscribe("cache:invalidate")
        message = listener.get_message(timeout=DEADLINE_SECONDS)
        assert message is not None
        assert message["type"] == "subscribe"
        return listener

    async def gone(self, *keys: str, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Return when none of the keys is there; fail after a while."""
        await self.until(lambda: not self.client.exists(*keys), f"{keys} are gone", deadline_seconds)

    async def until(
        self, condition: Callable[[], object], what: str, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Return when the condition holds; fail after a while."""
        deadline = time.monotonic() + deadline_seconds
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {deadline_seconds:g} s: {what}")

    async def confirmed_everything(self) -> None:
        """Return when the slot has confirmed all that is committed now."""
        position = (await self.sql("SELECT pg_current_wal_flush_lsn()::text"))[0][0]
        statement = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        name = self.database.name
        await self.until(lambda: self.database.execute(statement, position, name)[0][0], f"{position} is confirmed")

    async def released(self) -> None:
        """Return when nobody has the slot any more: the server has heard what the daemon that ended said last."""
        statement = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s"
        await self.until(lambda: self.database.execute(statement, self.database.name)[0][0], "the slot is free")

    async def drop_slot(self) -> None:
        """As an operator does it who thinks that nobody needs it."""
        name = self.database.name

        def drop() -> bool:
            self.database.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
                name,
            )
            try:
                self.database.execute("SELECT pg_drop_replication_slot(%s)", name)
            except psycopg.errors.ObjectInUse:  # by a daemon that runs, or by the walsender of one that has just ended
                return False
            return True

        await self.until(drop, "the slot is dropped")

    def connect(self, url: str) -> None:
        """Look at another Redis from now on."""
        self.client = redis.Redis.from_url(url, socket_timeout=5)

    def record(self) -> str:
        """The daemon's record of what was applied, beside the cache; empty if there is none."""
        kept = self.client.get(f"invalidator:{self.database.name}")
        return str(kept, "ascii") if isinstance(kept, bytes) else ""

    async def recorded_everything(self) -> None:
        """Return when the record says that all that is committed now was applied."""
        position = Lsn.parse(await self.position())

        def is_recorded() -> bool:
            record = self.record()
            return bool(record) and Lsn.parse(json.loads(record)["applied"]) >= position

        await self.until(is_recorded, f"{position} is recorded")

    def has_confirmed(self, position: str) -> bool:
        """Whether the slot's confirmed position has reached this one."""
        statement = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        return bool(self.database.execute(statement, position, self.database.name)[0][0])

    async def position(self) -> str:
        """The end of the WAL now."""
        return str((await self.sql("SELECT pg_current_wal_flush_lsn()::text"))[0][0])


@pytest.fixture
async def stack(
    tmp_path: Path, database: Database, redis_url: str, run_program: Callable[..., Program]
) -> AsyncIterator[Stack]:
    """A stack over the session's servers."""
    database.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    made = Stack(tmp_path, database, redis_url, run_program)
    yield made
    made.client.close()
