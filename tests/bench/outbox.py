"""The outbox: how fast a backlog is drained, how late a change is applied, and what the triggers cost the writers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import psycopg

from tests.bench import latency
from tests.bench import world as w
from tests.bench.report import Report
from tests.support.outbox import setup

RULE = {"name": "bench", "table": "public.article", "invalidate": {"keys": ["article:{id}"]}}
CLIENTS = 8
_UPDATE = "\\set id random(1, 10000)\nUPDATE article SET price = price + 1 WHERE id = :id;\n"
_ROW_TRIGGER = """
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('cache', json_build_object('table', TG_TABLE_NAME, 'id', NEW.id)::text);
      RETURN NULL;
    END $$;
    CREATE TRIGGER tell AFTER UPDATE ON article FOR EACH ROW EXECUTE FUNCTION tell()
"""


def measure(report: Report, world: w.World, *, changes: int, commits: int, rounds: int, seconds: int) -> None:
    """All figures of the outbox."""
    _cost(report, world, rounds, seconds)
    _drain(report, world, changes)
    _latency(report, world, commits)
    asyncio.run(setup(world.dsn, [RULE], remove=True))


def _drain(report: Report, world: w.World, changes: int) -> None:
    """A backlog of statements of one row."""
    _provide(world)
    with world.connect() as connection:
        connection.execute(
            f"DO $$ BEGIN FOR n IN 1..{changes} LOOP UPDATE article SET price = price + 1 WHERE id = n % 10000 + 1;"
            " END LOOP; END $$"
        )
    # What is applied is deleted after the redo window: without one, the last deletion is the end of the work.
    at_once = {"continuity": {"redo_window_seconds": 0}}
    with w.daemon(world, source=_source(world), sections=at_once) as daemon:
        report.add("outbox_drain", changes / (_emptied(world) - daemon.connected_at), "changes/s", at_least=10_000)


def _latency(report: Report, world: w.World, commits: int) -> None:
    for wake, bound in (("never", 150.0), ("notify", 20.0)):
        _provide(world, wakes=wake == "notify")
        with w.daemon(world, source=_source(world, wake=wake)):
            samples = latency.samples(world, commits, synchronous="on")
        report.add(f"outbox_latency_{wake}_p50", latency.quantile(samples, 0.5), "ms")
        report.add(f"outbox_latency_{wake}_p99", latency.quantile(samples, 0.99), "ms", at_most=bound)


def _cost(report: Report, world: w.World, rounds: int, seconds: int) -> None:
    """Transactions of one UPDATE a second, by what hangs on the table; contenders take turns."""
    contenders: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
        "without_trigger": nullcontext,
        "row_trigger_notify": lambda: _row_trigger(world),
        "outbox_unread": lambda: _outbox(world, is_read=False),
        "outbox": lambda: _outbox(world),
        "outbox_wake": lambda: _outbox(world, wakes=True),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with contender():
                found[name].append(_pgbench(world, seconds))
    bare = found["without_trigger"]
    for name, samples in found.items():
        report.add(f"writers_{name}", samples, "tps")
        if samples is not bare:
            ratios = [with_it / without for with_it, without in zip(samples, bare, strict=True)]
            report.add(f"writers_{name}_ratio", ratios, "x", note="of the same round without a trigger")


@contextmanager
def _row_trigger(world: w.World) -> Iterator[None]:
    with world.connect() as connection:
        connection.execute(_ROW_TRIGGER)
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER tell ON article; DROP FUNCTION tell()")


@contextmanager
def _outbox(world: w.World, *, wakes: bool = False, is_read: bool = True) -> Iterator[None]:
    """Our triggers; the daemon reads, applies and deletes meanwhile, or nobody does."""
    _provide(world, wakes=wakes)
    try:
        if is_read:
            with w.daemon(world, source=_source(world, wake="notify" if wakes else "never")):
                yield
        else:
            yield
    finally:
        asyncio.run(setup(world.dsn, [RULE], remove=True))


def _provide(world: w.World, *, wakes: bool = False) -> None:
    asyncio.run(setup(world.dsn, [RULE], wakes=wakes))


def _source(world: w.World, **options: object) -> Mapping[str, object]:
    return {"type": "outbox", "dsn": world.dsn, **options}


def _emptied(world: w.World) -> float:
    """When no change was left in the outbox."""
    deadline = time.monotonic() + w.DEADLINE_SECONDS
    with world.connect() as connection:
        while time.monotonic() < deadline:
            row = connection.execute("SELECT 1 FROM invalidator.outbox WHERE operation <> 'H' LIMIT 1").fetchone()
            if row is None:
                return time.perf_counter()
            time.sleep(0.02)
    msg = "the outbox is never emptied"
    raise TimeoutError(msg)


def _pgbench(world: w.World, seconds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "update.sql")
        script.write_text(_UPDATE)
        options = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), "-f", str(script)]
        parameters = psycopg.conninfo.conninfo_to_dict(world.dsn)
        command = [w.binary("pgbench"), *options, "-h", str(parameters["host"]), "-p", str(parameters["port"])]
        command += ["-U", str(parameters["user"]), str(parameters["dbname"])]
        environment = {**os.environ, "PGPASSWORD": str(parameters.get("password") or "")}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = re.search(r"^tps = ([\d.]+)", ended.stdout, re.MULTILINE)
    assert found is not None, ended.stderr
    return float(found[1])
