"""What many rules cost: reading them, and having them in force while only some of their tables change."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from invalidator.model import Invalidation
from invalidator.rules import document
from tests.bench import compiler_bench as micro
from tests.bench import conditions, throughput
from tests.bench import world as w
from tests.bench.report import Report

TABLES = 200
RULES_PER_TABLE = 5
_ROUNDS = 5


def rules(tables: int) -> dict[str, Any]:
    """Five rules for the table that changes, and five for each of the others."""
    names = ["article", *(f"quiet_{number}" for number in range(1, tables))]
    return {"version": 1, "rules": [_rule(table, number) for table in names for number in range(RULES_PER_TABLE)]}


def _rule(table: str, number: int) -> dict[str, Any]:
    prefix = f"{table}:{number}" if number else table  # the first names the keys that are there, the mark among them
    return {
        "name": f"{table}-{number}",
        "table": f"public.{table}",
        "invalidate": {"keys": [f"{prefix}:{{id}}", f"{prefix}:slug:{{new.slug}}"]},
    }


def as_block_yaml(rules: dict[str, Any]) -> str:
    """The rules as people write them: one thing a line."""
    lines = ["version: 1", "rules:"]
    for rule in rules["rules"]:
        lines += [f"  - name: {rule['name']}", f"    table: {rule['table']}", "    events:", "      - insert"]
        lines += ["      - update", "      - delete", "    invalidate:", "      keys:"]
        lines += [f'        - "{key}"' for key in rule["invalidate"]["keys"]]
    return "\n".join(lines) + "\n"


def measure(report: Report, world: w.World, *, rounds: int, rows: int) -> None:
    """All figures of rules."""
    _measure_templates(report)
    conditions.measure(report)
    _measure_loading(report)
    _measure_throughput(report, world, rounds=rounds, rows=rows)


def _measure_templates(report: Report) -> None:
    """One more template without a filter, per evaluation, beside what plain Python needs for the same name."""
    relation = micro.SLUG_IDENTITY
    messages = micro.stream(relation, 50_000)
    one = micro.drain(micro.bound(micro.Case("one", relation, micro.exact(("article:{new.id}",)))))
    nine = [f"article:{number}:{{new.id}}" for number in range(8)]
    many = micro.drain(micro.bound(micro.Case("nine", relation, micro.exact(("article:{new.id}", *nine)))))
    ours, ratios = [], []
    for _ in range(_ROUNDS):
        more, less = (statistics.median(micro.measure(run, messages)) for run in (many, one))
        # Deletes carry no new row: four of five messages render the template.
        ours.append((more - less) / 8 / 0.8)
        ratios.append(ours[-1] / statistics.median(_plain_template() for _ in range(_ROUNDS)))
    report.add("template", ours, "us/evaluation", at_most=0.3)
    report.add("template_vs_python", ratios, "x_python", at_most=1.5)


def _plain_template() -> float:
    """Microseconds of a plain function that adds the same name."""

    def add(value: bytes, invalidation: Invalidation) -> None:
        if value:
            invalidation.keys.add(b"article:1:" + value)

    values = [b"%d" % number for number in range(50_000)]
    return _microseconds(add, values)


def _microseconds(function: Callable[[bytes, Invalidation], None], values: Sequence[bytes]) -> float:
    begun = time.process_time()
    for start in range(0, len(values), 2_000):
        invalidation = Invalidation()
        for value in values[start : start + 2_000]:
            function(value, invalidation)
    return (time.process_time() - begun) / len(values) * 1e6


MISTAKES: Mapping[str, tuple[str, str]] = {
    "a field without a meaning": ("    table:", "    tabel:"),
    "a value of a wrong type": ("    invalidate:\n      keys:", "    soft: 5\n    invalidate:\n      keys:"),
    "an unquoted template": ('slug}"\n', 'slug}"\n        - {id}\n'),
    "an unknown filter": ("{id}", "{id|lowr}"),
    "a pattern among keys": ("{id}", "*{id}"),
    "a condition that breaks off": ("    events:", "    when: id =\n    events:"),
    "a key given twice": ("    events:", "    name: x\n    events:"),
}
"""What is replaced in every rule, and by what."""


def _measure_loading(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        text = as_block_yaml(rules(TABLES))
        path.write_text(text)
        lines = text.count("\n")
        report.add(
            "load_1000_rules", [_seconds(lambda: document.load([path])) for _ in range(_ROUNDS)], "s", at_most=1,
            note=f"{TABLES * RULES_PER_TABLE} rules over {TABLES} tables, {lines} lines",
        )  # fmt: skip
        slowest: dict[str, list[float]] = {}
        for mistake, (right, wrong) in MISTAKES.items():
            path.write_text(text.replace(right, wrong))
            slowest[mistake] = [_seconds(lambda: _refused(path)) for _ in range(_ROUNDS)]
        mistake = max(slowest, key=lambda each: statistics.median(slowest[each]))
        note = f"{lines} lines, a mistake in each rule; of {len(MISTAKES)} kinds the slowest is {mistake}"
        report.add("check_10000_lines", slowest[mistake], "s", at_most=1, note=note)


def _refused(path: Path) -> None:
    """Every rule is complained of, each at its own place."""
    try:
        document.load([path])
    except Exception as error:
        found = {(each.line, each.column) for each in getattr(error, "diagnostics", ())}
        if len(found) < TABLES * RULES_PER_TABLE:
            raise
    else:
        msg = "the broken file was taken"
        raise RuntimeError(msg)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def _measure_throughput(report: Report, world: w.World, *, rounds: int, rows: int) -> None:
    """The same backlog with 10 rules and with 1,000: by the clock, and by the CPU time of the daemon."""
    _make_tables(world)
    with w.base_slot(world, "many") as slot:
        with world.connect() as connection:
            connection.execute(f"CALL ten_row_transactions({rows // 10})")
        few, many = throughput.Contender("ten", _ours(2)), throughput.Contender("thousand", _ours(TABLES))
        throughput.race(world, slot, [few, many], rounds)
    pairs = list(zip(few.runs, many.runs, strict=True))
    report.add("throughput_1000_rules", [a.seconds / b.seconds for a, b in pairs], "x_10_rules", at_least=0.95)
    note = "looking at 200 tables instead of 2 after connecting is in it, 0.1 s"
    report.add("cpu_1000_rules", [b.cpu_seconds / a.cpu_seconds for a, b in pairs], "x_10_rules", note=note)


def _make_tables(world: w.World) -> None:
    with world.connect() as connection:
        for number in range(1, TABLES):
            connection.execute(f"CREATE TABLE IF NOT EXISTS quiet_{number} (id int PRIMARY KEY, slug text)")
        quiet = ", ".join(f"quiet_{number}" for number in range(1, TABLES))
        connection.execute("DROP PUBLICATION IF EXISTS bench_many")
        connection.execute(f"CREATE PUBLICATION bench_many FOR TABLE article (id, slug), {quiet}")


def _ours(tables: int) -> Callable[[w.World, str, str], throughput.Run]:
    def drain(world: w.World, slot: str, end: str) -> throughput.Run:
        with w.daemon(world, slot=slot, publication="bench_many", rules=rules(tables)) as daemon:
            w.wait_until_applied(world, w.MARKS[0])
            seconds = time.perf_counter() - daemon.connected_at
            return throughput.Run(seconds, w.cpu_seconds(daemon.pid) - daemon.connect_cpu)

    return drain


if __name__ == "__main__":
    print(json.dumps(rules(int(sys.argv[1]) if len(sys.argv) > 1 else TABLES)))
