"""From COMMIT returning to the client until Valkey acknowledged the UNLINK, seen as a keyspace notification."""

from __future__ import annotations

import time

from tests.bench import world as w
from tests.bench.report import Report
from tests.bench.throughput import NOTHING_WATCHED

PERIOD_SECONDS = 1 / 200
ROUNDS = 5


def measure(report: Report, world: w.World, *, commits: int) -> None:
    """The distribution at 200 single-row commits a second, with and without synchronous commit."""
    with w.base_slot(world, "latency") as slot, w.daemon(world, slot=slot, publication="bench_columns"):
        on = samples(world, commits, synchronous="on")
        off = samples(world, commits // 5, synchronous="off")
    _measure_guards(report, world, commits // 4)
    for name, q, bound in (("p50", 0.5, 1.0), ("p90", 0.9, None), ("p99", 0.99, 5.0), ("max", 1.0, None)):
        report.add(f"latency_{name}", quantile(on, q), "ms", at_most=bound)
    note = "the walsender sends only flushed WAL, and the WAL writer flushes every wal_writer_delay (200 ms)"
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        report.add(f"latency_async_commit_{name}", quantile(off, q), "ms", note=note)


def _measure_guards(report: Report, world: w.World, commits: int) -> None:
    """What redo window, record, catalog watch, preflight and heartbeat add to the median, by turns with and without."""
    bare = {"options": {"heartbeat_seconds": 3600}, "sections": NOTHING_WATCHED}
    ratios = []
    with w.base_slot(world, "guards") as slot:
        for _ in range(ROUNDS):
            medians = []
            for how in ({}, bare):
                with w.daemon(world, slot=slot, publication="bench_columns", **how):  # type: ignore[arg-type]
                    medians.append(quantile(samples(world, commits, synchronous="on"), 0.5))
            ratios.append(medians[0] / medians[1])
    report.add("latency_guarded", ratios, "x_bare", at_most=1.05)


def samples(world: w.World, commits: int, *, synchronous: str) -> list[float]:
    """Milliseconds from each COMMIT to its UNLINK, at 200 single-row commits a second."""
    client = world.redis()
    client.config_set("notify-keyspace-events", "Eg")
    notifications = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    notifications.subscribe("__keyevent@0__:del")
    notifications.get_message(timeout=1)
    found: list[float] = []
    with world.connect() as connection:
        connection.execute(f"SET synchronous_commit = {synchronous}")
        due = time.perf_counter()
        for number in range(1, commits + 1):
            key = b"article:%d" % number
            client.set(key, b"x")
            due += PERIOD_SECONDS
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.execute("UPDATE article SET price = price + 1 WHERE id = %s", [number], prepare=True)
            committed = time.perf_counter()
            while (message := notifications.get_message(timeout=5)) is not None and message["data"] != key:
                pass
            assert message is not None, f"{key!r} was never unlinked"
            found.append((time.perf_counter() - committed) * 1000)
    client.config_set("notify-keyspace-events", "")
    return found


def quantile(samples: list[float], q: float) -> float:
    """The sample below which this share of all lies."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]
