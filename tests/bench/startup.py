"""From nothing to streaming."""

from __future__ import annotations

from tests.bench import world as w
from tests.bench.report import Report


def measure(report: Report, world: w.World, *, rounds: int) -> None:
    """CPU seconds until the slot streams; of compiled modules, as an installation has them."""
    samples = []
    with w.base_slot(world, "startup") as slot:
        for _ in range(1 + rounds):
            with w.daemon(world, slot=slot, publication="bench_columns") as daemon:
                samples.append(daemon.connect_cpu)
    del samples[0]  # this one compiled
    report.add("start_to_streaming", samples, "s_cpu", at_most=1.5)
