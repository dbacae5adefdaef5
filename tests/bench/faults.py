"""How long caches wait when something ends: the daemon that streams, or the database."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import psycopg

from tests.bench import world as w
from tests.bench.report import Report

WRITERS: Final = 4
DOWN_SECONDS: Final = 6.0
"""How long Postgres is away: long enough for retries to have become rare."""


def measure(report: Report, world: w.World, *, rounds: int) -> None:
    """Takeover by a daemon that stands by, shutdown of the server, recovery after its restart."""
    _takeovers(report, world, rounds)
    _shutdowns(report, world, rounds)
    _recovery(report, world, rounds)


# ---------------------------------------------------------------- takeover


def _takeovers(report: Report, world: w.World, rounds: int) -> None:
    """From the end of the first daemon until a change that it has not seen is applied by the second."""
    ends: tuple[tuple[str, Callable[[w.Daemon], None], float], ...] = (
        ("takeover_after_stop", w.Daemon.stop, 2.0),
        ("takeover_after_kill", lambda daemon: daemon.process.kill(), 12.0),
        ("takeover_after_partition", lambda daemon: os.kill(daemon.pid, signal.SIGSTOP), 12.0),
    )
    for name, end, bound in ends:
        report.add(name, [_takeover(world, end) for _ in range(rounds)], "s", at_most=bound)


def _takeover(world: w.World, end: Callable[[w.Daemon], None]) -> float:
    with w.base_slot(world, "takeover") as slot:
        daemon = partial(w.daemon, world, slot=slot, publication="bench_columns")
        with daemon() as first, daemon(event="stream.standby"):
            wait_until_applied(world, 1)
            began = time.perf_counter()
            end(first)
            wait_until_applied(world, 2)
            return time.perf_counter() - began


# ---------------------------------------------------------------- shutdown and restart


def _shutdowns(report: Report, world: w.World, rounds: int) -> None:
    """A fast shutdown with and without a daemon, taking turns."""
    idle: list[float] = []
    stalled: list[float] = []
    busy: list[float] = []
    idle_without: list[float] = []
    busy_without: list[float] = []
    for _ in range(rounds):
        idle_without.append(_shutdown(world))
        with _writers(world):
            busy_without.append(_shutdown(world))
        with w.base_slot(world, "shutdown") as slot:
            with w.daemon(world, slot=slot, publication="bench_columns"):
                wait_until_applied(world, 1)
                idle.append(_shutdown(world))
            with w.daemon(world, slot=slot, publication="bench_columns"):
                wait_until_applied(world, 1)
                with _writers(world):
                    busy.append(_shutdown(world))
            with w.daemon(world, slot=slot, publication="bench_columns"):
                wait_until_applied(world, 1)
                with _frozen(world), _writers(world):
                    stalled.append(_shutdown(world))
    report.add("shutdown_idle_without_daemon", idle_without, "s")
    report.add("shutdown_busy_without_daemon", busy_without, "s")
    for name, samples, without in (
        ("shutdown_idle", idle, idle_without),
        ("shutdown_busy", busy, busy_without),
        ("shutdown_stalled_redis", stalled, busy_without),
    ):
        more = [mine - theirs for mine, theirs in zip(samples, without, strict=True)]
        report.add(f"{name}_longer", more, "s", at_most=0.5)


def _shutdown(world: w.World) -> float:
    """Seconds that ``pg_ctl stop -m fast`` takes; the server runs again afterwards."""
    with world.connect() as connection:
        connection.execute("CHECKPOINT")
    began = time.perf_counter()
    world.postgres.stop("fast")
    took = time.perf_counter() - began
    world.postgres.start()
    return took


def _recovery(report: Report, world: w.World, rounds: int) -> None:
    """From the moment at which a restarted server takes connections until a change is applied."""
    samples = []
    with (
        w.base_slot(world, "recovery") as slot,
        w.daemon(world, slot=slot, publication="bench_columns"),
    ):
        wait_until_applied(world, 1)
        for _ in range(rounds):
            world.postgres.stop("fast")
            time.sleep(DOWN_SECONDS)
            world.postgres.start()
            began = time.perf_counter()
            wait_until_applied(world, 1)
            samples.append(time.perf_counter() - began)
    report.add("recovery_after_restart", samples, "s", at_most=3.0, note=f"the server was away for {DOWN_SECONDS:g} s")


# ---------------------------------------------------------------- what is measured with


def wait_until_applied(world: w.World, number: int) -> None:
    """Change a row, and return when its key is gone."""
    client = world.redis()
    key = f"article:{number}"
    client.set(key, "stale")
    with world.connect() as connection:
        connection.execute("UPDATE article SET price = price + 1 WHERE id = %s", [number])
    deadline = time.monotonic() + w.DEADLINE_SECONDS
    while client.exists(key):
        if time.monotonic() > deadline:
            msg = f"{key} was never unlinked"
            raise TimeoutError(msg)
        time.sleep(0.002)
    client.close()


@contextmanager
def _writers(world: w.World) -> Iterator[None]:
    """Clients that write as fast as they can until the server ends their sessions."""

    def write() -> None:
        try:
            with world.connect() as connection:
                while True:
                    connection.execute("CALL one_row_transactions(1000)")
        except psycopg.OperationalError:
            pass  # the server shuts down

    before = _transactions(world)
    threads = [threading.Thread(target=write) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    while _transactions(world) < before + 500:
        time.sleep(0.05)
    yield
    for thread in threads:
        thread.join()


def _transactions(world: w.World) -> int:
    with world.connect() as connection:
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def _frozen(world: w.World) -> Iterator[None]:
    """Redis answers nothing meanwhile."""
    os.kill(world.valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(world.valkey.pid, signal.SIGCONT)
