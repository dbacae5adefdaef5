"""What a rule's condition costs per row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
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
_UPDATED: Final = datetime(2026, 6, 1, tzinfo=UTC)
Plain = Callable[[bytes | None, RuleState], None]


def _text(status: bytes | None, state: RuleState) -> None:
    if status == _STATUS:
        state.matches[Operation.INSERT] += 1
    else:
        state.condition_false += 1


def _number(price: bytes | None, state: RuleState) -> None:
    if price is not None and Decimal(price.decode("ascii")) > _PRICE:
        state.matches[Operation.INSERT] += 1
    else:
        state.condition_false += 1


def _time(updated: bytes | None, state: RuleState) -> None:
    if updated is not None and datetime.fromisoformat(updated.decode("ascii")) > _UPDATED:
        state.matches[Operation.INSERT] += 1
    else:
        state.condition_false += 1


CONDITIONS: Final[Mapping[str, tuple[str, Plain]]] = {
    "condition": ("new.status = 'published'", _text),
    "condition_number": ("new.price > 100", _number),
    "condition_time": ("new.updated > '2026-06-01'", _time),
}
"""Conditions, and what a person would write for them."""
_COPIES: Final = 16


def measure(report: Report) -> None:
    """One more rule whose condition does not hold, per row, beside a plain function that asks and counts the same."""
    values = {"id": b"1", "status": b"draft", "price": b"99.50", "updated": b"2026-05-01 13:45:00.123456+00"}
    oids = {"price": 1700, "updated": 1184}
    columns = tuple(replace(column, type_oid=oids.get(column.name, 25)) for column in micro.WIDE.columns)
    relation = replace(micro.WIDE, columns=columns)
    messages = [pgoutput.insert(relation.oid, [values.get(column.name, b"x") for column in columns])] * 20_000
    for name, (text, plain) in CONDITIONS.items():
        case = micro.Case(name, relation, micro.exact(("article:{id}",)), when=text)
        one, many = (micro.drain(micro.bound(case, rules=rules)) for rules in (1, 1 + _COPIES))
        value = next(values[column] for column in condition.parse(text).columns)
        ours, ratios = [], []
        for _ in range(_ROUNDS):
            more, less = (min(micro.measure(run, messages)) for run in (many, one))
            ours.append((more - less) / _COPIES)
            ratios.append(ours[-1] / _microseconds(plain, value, len(messages)))
        report.add(name, ours, "us/evaluation", at_most=0.15 if name == "condition" else None, note=text)
        report.add(f"{name}_vs_python", ratios, "x_python", at_most=1.5)


def _microseconds(plain: Plain, value: bytes, rows: int) -> float:
    state = RuleState("plain")
    figures = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(rows):
            plain(value, state)
        figures.append((time.process_time() - begun) / rows * 1e6)
    return min(figures)
