"""Measures what the README claims; exit code 1 when a figure misses its target."""

from __future__ import annotations

import argparse
import sys

from tests.bench import faults, latency, memory, outbox, rules, startup, throughput
from tests.bench.report import Report
from tests.bench.world import world
from tests.support import bytecode


def main() -> int:
    """Run the chosen parts."""
    parts = ("throughput", "one_row", "latency", "memory", "startup", "outbox", "rules", "faults")
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help=f"of {', '.join(parts)}; default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, two rounds: for a first look")
    parser.add_argument("--rounds", type=int, help="rounds per contender; default 5, with --quick 2")
    parser.add_argument("--rows", type=int, help="row changes in the backlog; default 600,000, with --quick 80,000")
    arguments = parser.parse_args()
    chosen = arguments.parts or parts
    rounds, rows = (2, 80_000) if arguments.quick else (5, 600_000)
    rounds, rows = arguments.rounds or rounds, arguments.rows or rows
    bytecode.keep()
    report = Report(arguments.json)
    with world() as servers:
        if "startup" in chosen:
            startup.measure(report, servers, rounds=rounds)
        if "latency" in chosen:
            latency.measure(report, servers, commits=400 if arguments.quick else 2000)
        if "outbox" in chosen:
            quick = arguments.quick
            changes, commits = (20_000, 400) if quick else (100_000, 2000)
            outbox.measure(report, servers, changes=changes, commits=commits, rounds=rounds, seconds=5)
        if "throughput" in chosen:
            throughput.measure(report, servers, rounds=rounds, rows=rows)
        if "one_row" in chosen:
            throughput.measure_one_row(report, servers, rounds=rounds, rows=rows // 3)
        if "rules" in chosen:
            rules.measure(report, servers, rounds=rounds, rows=rows)
        if "faults" in chosen:
            faults.measure(report, servers, rounds=rounds)
        if "memory" in chosen:
            memory.measure_subtransactions(report, servers, count=20_000 if arguments.quick else 100_000)
            memory.measure_transaction(report, servers, rows=2_000_000)
            if not arguments.quick:
                memory.measure_transaction(report, servers, rows=10_000_000)
            memory.measure_stall(report, servers, seconds=10 if arguments.quick else 60)
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
