"""Peak memory above idle: one huge transaction, and a Redis that hangs while writes go on."""

from __future__ import annotations

import os
import signal
import time

from tests.bench import world as w
from tests.bench.report import Report

_SUBTRANSACTIONS = """
DO $$
BEGIN
  FOR n IN 1..{count} LOOP
    BEGIN
      INSERT INTO big VALUES (n);
      IF n % 3 = 0 THEN RAISE EXCEPTION 'rolled back'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$
"""
_STALL_OPTIONS = {"max_batch_items": 5000}


def measure_transaction(report: Report, world: w.World, *, rows: int) -> None:
    """One transaction of that many rows, distinct keys all of them."""
    with w.base_slot(world, "huge") as slot:
        with w.daemon(
            world, slot=slot, publication="bench_big", table="public.big", invalidate={"keys": ["big:{id}"]}
        ) as daemon:
            idle = w.memory_mb(daemon.pid)
            with world.connect() as connection:
                connection.execute(f"INSERT INTO big SELECT generate_series(1, {rows})")
            w.wait_until_confirmed(world, slot, w.end_of_wal(world))
            peak = w.memory_mb(daemon.pid, "VmHWM")
            assert daemon.connections == 1, "the server lost patience with us"
        with world.connect() as connection:
            connection.execute("TRUNCATE big")
    report.add(f"memory_transaction_{rows // 1_000_000}m_rows", peak - idle, "MB_above_idle", at_most=40)


def measure_subtransactions(report: Report, world: w.World, *, count: int) -> None:
    """One transaction of that many subtransactions, a third of them rolled back."""
    with w.base_slot(world, "subtransactions") as slot:
        with w.daemon(
            world, slot=slot, publication="bench_big", table="public.big", invalidate={"keys": ["big:{id}"]}
        ) as daemon:
            idle = w.memory_mb(daemon.pid)
            client = world.redis()
            client.mset({"big:1": "stale", "big:3": "rolled back"})
            with world.connect() as connection:
                connection.execute(_SUBTRANSACTIONS.format(count=count))
                committed = time.monotonic()
            w.wait_until_confirmed(world, slot, w.end_of_wal(world))
            took = time.monotonic() - committed
            peak = w.memory_mb(daemon.pid, "VmHWM")
            assert daemon.connections == 1, "the server lost patience with us"
            assert client.mget("big:1", "big:3") == [None, b"rolled back"]
        with world.connect() as connection:
            connection.execute("TRUNCATE big")
    report.add(f"memory_{count}_subtransactions", peak - idle, "MB_above_idle", at_most=40)
    report.add(f"confirmed_after_{count}_subtransactions", took, "s", note="of that 5 s are the redo window")


def measure_stall(report: Report, world: w.World, *, seconds: float) -> None:
    """Redis is stopped (SIGSTOP) for a while under load, then goes on: memory stays bounded, nothing is lost."""
    with (
        w.base_slot(world, "stall") as slot,
        w.daemon(world, slot=slot, publication="bench_columns", options=_STALL_OPTIONS) as daemon,
    ):
        idle = w.memory_mb(daemon.pid)
        client = world.redis()
        client.set("article:1", "stale")
        os.kill(world.valkey.pid, signal.SIGSTOP)
        ends = time.monotonic() + seconds
        with world.connect() as connection:
            while time.monotonic() < ends:
                connection.execute("CALL ten_row_transactions(1000)")
        os.kill(world.valkey.pid, signal.SIGCONT)
        w.wait_until_confirmed(world, slot, w.end_of_wal(world))
        assert client.get("article:1") is None, "the stall lost an invalidation"
        peak = w.memory_mb(daemon.pid, "VmHWM")
    report.add(f"memory_stalled_redis_{seconds:.0f}s", peak - idle, "MB_above_idle", at_most=40)
