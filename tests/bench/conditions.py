"""What a rule's condition costs per row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from invalidator.model import Operation
from invalidator.rules import condition
from invalidator.telemetry.state import RuleState
from tests.bench import compiler_bench as micro
from tests.bench.report import Report
from tests.support import pgoutput

_ROUNDS = 15
_STATUS: Final = b"published"
_PRICE: Final = Decimal(100)
_UPDATED: Final = b"2026-06-01 00:00:00+00"
CONDITIONS: Final[Mapping[str, tuple[str, Callable[[bytes | None], bool]]]] = {
    "condition": ("new.status = 'published'", lambda status: status == _STATUS),
    "condition_number": (
        "new.price > 100",
        lambda price: price is not None and Decimal(price.decode("ascii")) > _PRICE,
    ),
    "condition_time": ("new.updated > '2026-06-01'", lambda updated: updated is not None and updated > _UPDATED),
}
"""Conditions, and what a person would write for them who trusts in all years having four digits."""
_COPIES: Final = 16


def measure(report: Report) -> None:
    """One more rule whose condition does not hold, per row, beside a plain function that counts the same."""
    values = {"id": b"1", "status": b"draft", "price": b"99.50", "updated": b"2026-05-01 13:45:00.123456+00"}
    oids = {"price": 1700, "updated": 1184}
    columns = tuple(replace(column, type_oid=oids.get(column.name, 25)) for column in micro.WIDE.columns)
    relation = replace(micro.WIDE, columns=columns)
    messages = [pgoutput.insert(relation.oid, [values.get(column.name, b"x") for column in columns])] * 20_000
    for name, (text, holds) in CONDITIONS.items():
        case = micro.Case(name, relation, micro.exact(("article:{id}",)), when=text)
        one, many = (micro.drain(micro.bound(case, rules=rules)) for rules in (1, 1 + _COPIES))
        value = next(values[column] for column in condition.parse(text).columns)
        ours, ratios = [], []
        for _ in range(_ROUNDS):
            more, less = (min(micro.measure(run, messages)) for run in (many, one))
            ours.append((more - less) / _COPIES)
            ratios.append(ours[-1] / _plain_condition(holds, value, len(messages)))
        report.add(name, ours, "us/evaluation", at_most=0.15 if name == "condition" else None, note=text)
        report.add(f"{name}_vs_python", ratios, "x_python", at_most=1.5)


def _plain_condition(holds: Callable[[bytes | None], bool], value: bytes, rows: int) -> float:
    """Microseconds of a plain function that asks the same and counts the answer."""
    state = RuleState("plain")

    def fire(value: bytes | None) -> None:
        if holds(value):
            state.matches[Operation.INSERT] += 1
        else:
            state.condition_false += 1

    figures = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(rows):
            fire(value)
        figures.append((time.process_time() - begun) / rows * 1e6)
    return min(figures)
