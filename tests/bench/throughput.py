"""Draining a backlog: the whole daemon against pg_recvlogical to /dev/null, and against what users write today.

Every contender drains its own copy of the same slot; contenders take turns round by round, and each figure is the
median of the per-round ratios, because the machine's speed changes from minute to minute but not within a round.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import rivals
from tests.bench import world as w
from tests.bench.report import Report

KEYS = 50_000


@dataclass(frozen=True, slots=True)
class Run:
    """One drain."""

    seconds: float
    cpu_seconds: float = 0.0


@dataclass(slots=True)
class Contender:
    """Somebody who drains a slot."""

    name: str
    drain: Callable[[w.World, str, str], Run]
    plugin: str = "pgoutput"
    runs: list[Run] = field(default_factory=list)

    def seconds(self) -> float:
        """Median duration."""
        return statistics.median(run.seconds for run in self.runs)


def recvlogical(publication: str) -> Callable[[w.World, str, str], Run]:
    """pg_recvlogical of a publication to /dev/null: what Postgres' own client makes of the stream."""

    def drain(world: w.World, slot: str, end: str) -> Run:
        options = ["-f", "/dev/null", f"--endpos={end}", "-o", f"publication_names={publication}"]
        options += ["-o", "proto_version=1", "-o", "messages=true"]
        started = time.perf_counter()
        subprocess.run(
            [w.binary("pg_recvlogical"), "-d", world.dsn, "-S", slot, "--start", "--no-loop", *options],
            check=True,
            timeout=w.DEADLINE_SECONDS,
        )
        return Run(time.perf_counter() - started)

    return drain


NOTHING_WATCHED: Mapping[str, Mapping[str, object]] = {
    "continuity": {"redo_window_seconds": 0, "catalog_seconds": 3600},
    "preflight": {"interval_seconds": 3600, "targets_interval_seconds": 3600},
}
"""Settings that leave out what protects against faults, as far as that can be switched off."""


def ours(
    publication: str,
    rule: str = "keys",
    table: str = "article",
    *,
    options: Mapping[str, object] | None = None,
    sections: Mapping[str, object] | None = None,
) -> Callable[[w.World, str, str], Run]:
    """The whole daemon: decode, keys, dedupe, UNLINK at a real Valkey.

    Timed from the first message that may come until the key of the last change is unlinked.
    """

    def drain(world: w.World, slot: str, end: str) -> Run:
        with w.daemon(
            world,
            slot=slot,
            publication=publication,
            table=f"public.{table}",
            invalidate=w.RULES[rule],
            options=options,
            sections=sections,
        ) as daemon:
            w.wait_until_applied(world, f"{table}:0")
            seconds = time.perf_counter() - daemon.connected_at
            return Run(seconds, w.cpu_seconds(daemon.pid) - daemon.connect_cpu)

    return drain


def raw(publication: str) -> Callable[[w.World, str, str], Run]:
    """Reading the stream with psycopg as fast as we know how, and throwing it away."""

    def drain(world: w.World, slot: str, end: str) -> Run:
        command = [sys.executable, "-m", "tests.bench.raw_reader", world.dsn, slot, publication, end]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=w.DEADLINE_SECONDS)
        return Run(float(done.stdout))

    return drain


def measure(report: Report, world: w.World, *, rounds: int, rows: int) -> None:
    """All throughput figures."""
    transactions = rows // 10
    with w.base_slot(world, "ten") as slot:
        with world.connect() as connection:
            connection.execute(f"CALL ten_row_transactions({transactions})")
        contenders = [
            Contender("recvlogical_columns", recvlogical("bench_columns")),
            Contender("recvlogical_full", recvlogical("bench_full")),
            Contender("ours_columns", ours("bench_columns")),
            Contender("ours_full", ours("bench_full")),
            Contender("ours_columns_tag", ours("bench_columns", "keys+tag")),
            Contender("raw_columns", raw("bench_columns")),
            Contender("ours_no_rule", ours("bench_columns", "unwatched", "unwatched")),
            Contender(
                "ours_columns_bare",
                ours("bench_columns", options={"heartbeat_seconds": 3600}, sections=NOTHING_WATCHED),
            ),
        ]
        contenders += [Contender(r.name, r.drain, r.plugin) for r in rivals.available(report, world)]
        race(world, slot, contenders, rounds)
    by_name = {contender.name: contender for contender in contenders}

    def ratio(ours: str, theirs: str) -> list[float]:
        pairs = zip(by_name[ours].runs, by_name[theirs].runs, strict=True)
        return [b.seconds / a.seconds for a, b in pairs]

    report.add("throughput_columns", ratio("ours_columns", "recvlogical_columns"), "x_recvlogical", at_least=1.5)
    report.add("throughput_full", ratio("ours_full", "recvlogical_full"), "x_recvlogical", at_least=1.3)
    report.add("throughput_columns_vs_full", ratio("ours_columns", "recvlogical_full"), "x_recvlogical", at_least=2)
    report.add("throughput_columns_tag", ratio("ours_columns_tag", "recvlogical_columns"), "x_recvlogical")
    cost = [
        (tagged.cpu_seconds - plain.cpu_seconds) / rows * 1e6
        for tagged, plain in zip(by_name["ours_columns_tag"].runs, by_name["ours_columns"].runs, strict=True)
    ]
    report.add("tag_cpu", cost, "us/row", note="consumer CPU that one tag per row adds")
    report.add("consumer_cpu", [r.cpu_seconds / rows * 1e6 for r in by_name["ours_columns"].runs], "us/row", at_most=6)
    report.add("no_rule_vs_raw", ratio("ours_no_rule", "raw_columns"), "x_raw", at_least=0.9)
    note = "with redo window, record, catalog watch, preflight and heartbeat, against without"
    report.add("throughput_guarded", ratio("ours_columns", "ours_columns_bare"), "x_bare", at_least=0.95, note=note)
    for name, contender in by_name.items():
        report.add(f"rows_per_second_{name}", [rows / run.seconds for run in contender.runs], "rows/s")
    for rival in (c for c in contenders if c.name.startswith("rival_")):
        report.add(f"{rival.name}_speed", ratio(rival.name, "recvlogical_full"), "x_recvlogical_full")


def measure_one_row(report: Report, world: w.World, *, rounds: int, rows: int) -> None:
    """Transactions of one row: three messages a row."""
    with w.base_slot(world, "one") as slot:
        with world.connect() as connection:
            connection.execute(f"CALL one_row_transactions({rows})")
        contenders = [
            Contender("recvlogical_columns", recvlogical("bench_columns")),
            Contender("ours_columns", ours("bench_columns")),
        ]
        race(world, slot, contenders, rounds)
    theirs, mine = contenders
    ratios = [b.seconds / a.seconds for a, b in zip(mine.runs, theirs.runs, strict=True)]
    report.add("throughput_one_row", ratios, "x_recvlogical", at_least=1.0)
    report.add("consumer_cpu_one_row", [r.cpu_seconds / rows * 1e6 for r in mine.runs], "us/row")


def race(world: w.World, slot: str, contenders: list[Contender], rounds: int) -> None:
    end = w.end_of_wal(world)
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):  # nobody always comes after the same
            _fill_cache(world)
            with w.slot_copy(world, slot, contender.plugin) as copy:
                contender.runs.append(contender.drain(world, copy, end))


def _fill_cache(world: w.World) -> None:
    """Put values under the keys that will be unlinked: missing keys are cheaper to unlink than existing ones."""
    client = world.redis()
    client.flushdb()
    pipeline = client.pipeline(transaction=False)
    for number in range(1, KEYS):
        pipeline.set(f"article:{number}", b"x" * 200)
    for mark in w.MARKS:
        pipeline.set(mark, b"x")
    pipeline.execute()


REPOSITORY = Path(__file__).parent.parent.parent
