"""The servers that are measured on, and the processes that are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
import yaml

from invalidator.demo.servers import KeyValueServer, PostgresServer, find_postgres, find_valkey

DEADLINE_SECONDS = 600
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class World:
    """One Postgres with the workload's tables, one Valkey."""

    postgres: PostgresServer
    valkey: KeyValueServer
    database: str = "bench"

    @property
    def dsn(self) -> str:
        """Superuser DSN of the bench database."""
        return self.postgres.dsn(self.database)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.dsn, autocommit=True)

    def redis(self) -> redis.Redis:
        """A client of the Valkey."""
        return redis.Redis.from_url(self.valkey.url)


@contextmanager
def world(settings: Mapping[str, str] | None = None) -> Iterator[World]:
    """Start the servers, make the tables."""
    tuned = {
        "shared_buffers": "256MB",
        "max_wal_size": "8GB",
        "wal_keep_size": "0",
        "logical_decoding_work_mem": "64MB",
        "max_replication_slots": "40",
        "autovacuum": "off",
        **(settings or {}),
    }
    with PostgresServer(settings=tuned) as postgres, KeyValueServer(find_valkey()) as valkey:
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE bench")
        made = World(postgres, valkey)
        with made.connect() as connection:
            connection.execute(Path(__file__).with_name("workload.sql").read_text())
            connection.execute("CHECKPOINT")
        yield made


@contextmanager
def base_slot(world: World, name: str) -> Iterator[str]:
    """A slot that holds the WAL from here on; contenders drain copies of it."""
    with world.connect() as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    try:
        yield name
    finally:
        with world.connect() as connection:  # another one: the server may have been restarted meanwhile
            drop_slot(connection, name)


@contextmanager
def slot_copy(world: World, base: str, plugin: str = "pgoutput") -> Iterator[str]:
    """A copy of the base slot for one run of one contender."""
    name = f"{base}_{time.monotonic_ns()}"
    with world.connect() as connection:
        connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false, %s)", [base, name, plugin])
        try:
            yield name
        finally:
            drop_slot(connection, name)


def drop_slot(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a slot whose walsender may still be on its way out."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def end_of_wal(world: World) -> str:
    """A position behind everything that is committed, with a published row behind it, so that all sides see it."""
    with world.connect() as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        connection.execute("UPDATE article SET price = price + 1 WHERE id = 0")
        connection.execute("UPDATE unwatched SET n = n + 1 WHERE id = 0")
        connection.execute("INSERT INTO big VALUES (0) ON CONFLICT (id) DO UPDATE SET n = big.n + 1")
        assert row is not None
        return str(row[0])


def cpu_seconds(pid: int) -> float:
    """User and system time of a living process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """Resident memory now (VmRSS) or its peak (VmHWM), in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(what)


class Daemon:
    """``invalidator run`` as a child; its log tells how it goes."""

    def __init__(self, settings: Path) -> None:
        self._log: list[str] = []
        self._grown = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "invalidator", "run", "--settings", str(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.connected_at = 0.0
        self.connect_cpu = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    def wait_for(self, event: str) -> None:
        """Return when the log names this event."""
        with self._grown:
            self._grown.wait_for(lambda: self._has_ended or self._tells(event), 120)
            if not self._tells(event):
                msg = f"no {event}:\n" + "".join(self._log[-20:])
                raise RuntimeError(msg)

    def _tells(self, event: str) -> bool:
        return any(event in line for line in self._log)

    @property
    def connections(self) -> int:
        """How often the slot began to stream."""
        return sum("stream.connected" in line for line in self._log)

    def stop(self) -> None:
        """SIGTERM, and wait; does nothing when it has ended."""
        self.process.send_signal(signal.SIGCONT)  # a stopped process would not see the next signal
        self.process.terminate()
        self.process.wait(30)
        self._reader.join(5)

    @property
    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "stream.connected" in line and not self.connected_at:
                self.connected_at = time.perf_counter()
                self.connect_cpu = cpu_seconds(self.process.pid)
            with self._grown:
                self._log.append(line)
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()


MARKS = ("article:0", "unwatched:0")
"""Keys that only the changes behind everything else unlink; see ``end_of_wal``."""
RULES = {
    "unwatched": {"keys": ["unwatched:{id}"]},
    "keys": {"keys": ["article:{id}", "article:slug:{new.slug}"]},
    "keys+tag": {"keys": ["article:{id}", "article:slug:{new.slug}"], "tags": ["article:{id}"]},
}


@contextmanager
def daemon(
    world: World,
    *,
    slot: str = "",
    publication: str = "",
    source: Mapping[str, object] | None = None,
    invalidate: Mapping[str, Sequence[str]] = RULES["keys"],
    table: str = "public.article",
    rules: Mapping[str, Any] | None = None,
    options: Mapping[str, object] | None = None,
    sections: Mapping[str, object] | None = None,
    event: str = "stream.connected",
) -> Iterator[Daemon]:
    """The daemon over one slot, or another source, with one rule or those given, and Redis as the only target.

    ``options`` go to the source, ``sections`` are others of the settings. It is handed out as soon as its log names
    the event.
    """
    with tempfile.TemporaryDirectory() as folder:
        one = {"version": 1, "rules": [{"name": "bench", "table": table, "invalidate": dict(invalidate)}]}
        Path(folder, "rules.yaml").write_text(json.dumps(one if rules is None else rules))
        settings = {
            "rules": "rules.yaml",
            "source": source
            or {
                "type": "pgoutput",
                "dsn": world.dsn,
                "slot": slot,
                "publication": publication,
                **(options or {}),
            },
            "targets": {"redis": {"type": "redis_keys", "url": world.valkey.url}},
            "http": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
            **(sections or {}),
        }
        path = Path(folder, "invalidator.yaml")
        path.write_text(yaml.safe_dump(settings))
        running = Daemon(path)
        try:
            running.wait_for(event)
            yield running
        finally:
            running.stop()


def wait_until_confirmed(world: World, slot: str, position: str) -> None:
    """Return when the slot's confirmed position has reached the given one."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    with world.connect() as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                [position, slot],
            ).fetchone()
            if row is not None and row[0]:
                return
            time.sleep(0.01)
    msg = f"slot {slot} has not reached {position} after {DEADLINE_SECONDS} s"
    raise TimeoutError(msg)


def wait_until_applied(world: World, mark: str) -> None:
    """Return when the last change of all was applied: its key is unlinked."""
    client = world.redis()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while client.exists(mark):
        if time.monotonic() > deadline:
            msg = f"{mark} is still there after {DEADLINE_SECONDS} s"
            raise TimeoutError(msg)
        time.sleep(0.002)


def binary(name: str) -> str:
    """A client program of the Postgres that is used."""
    return str(find_postgres() / name)
