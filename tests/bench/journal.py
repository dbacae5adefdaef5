"""What the journal takes: tags a second into the file, and what stands in the way of a batch.

``python -m tests.bench.journal [FOLDER]``; the folder decides which disk is measured.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from invalidator.delivery.journal_file import JournalFile, Purge

ROUNDS = 20


def main() -> None:
    """Print one line for each size of batch and of backlog."""
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    print("waiting  batch    tags/s  median ms  worst ms  CPU us/tag   take + settle tags/s")
    for waiting in (0, 90_000):
        for size in (1, 100, 2000):
            with tempfile.TemporaryDirectory(dir=folder) as made:
                file = JournalFile(Path(made) / "state.db", dict, lambda _: None)
                _measure(file, waiting, size)
                file.close()


def _measure(file: JournalFile, waiting: int, size: int) -> None:
    if waiting:
        _ask(file, "waiting", waiting)
    times = []
    cpu = time.process_time()
    for number in range(ROUNDS):
        began = time.perf_counter()
        _ask(file, f"batch{number}", size)
        file.figures("edge")
        times.append(time.perf_counter() - began)
    cpu = (time.process_time() - cpu) / (ROUNDS * size) * 1e6
    began = time.perf_counter()
    worked = 0
    while worked < min(ROUNDS * size, 10_000):
        taken = file.take("edge", now=time.time(), limit=1000, max_repeats=50_000)
        file.settle("edge", taken)
        worked += len(taken)
    settled = worked / (time.perf_counter() - began)
    rate = size * ROUNDS / sum(times)
    median, worst = statistics.median(times) * 1000, max(times) * 1000
    print(f"{waiting:>7} {size:>6} {rate:>9,.0f} {median:>10.2f} {worst:>9.2f} {cpu:>11.1f} {settled:>22,.0f}")


def _ask(file: JournalFile, name: str, count: int) -> None:
    now = time.time()
    purges = [Purge(b"%s-%d" % (name.encode(), number), now) for number in range(count)]
    file.ask("edge", purges, limit=1_000_000, consents=False, shrink=lambda _: ((), {}))


if __name__ == "__main__":
    main()
