"""One line per figure: ``name value unit target verdict``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure and what it must reach."""

    name: str
    value: float
    unit: str
    target: str = "-"
    verdict: Literal["ok", "MISSED", "-"] = "-"
    samples: tuple[float, ...] = ()
    note: str = ""


@dataclass(slots=True)
class Report:
    """Prints figures as they come."""

    as_json: bool
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        note: str = "",
    ) -> None:
        """Add a figure; of several samples the median counts."""
        samples = tuple(value) if isinstance(value, Sequence) else (value,)
        median = statistics.median(samples)
        verdict: Literal["ok", "MISSED", "-"] = "-"
        target = "-"
        if at_least is not None:
            target, verdict = f">={at_least:g}", "ok" if median >= at_least else "MISSED"
        if at_most is not None:
            target, verdict = f"<={at_most:g}", "ok" if median <= at_most else "MISSED"
        figure = Figure(name, round(median, 3), unit, target, verdict, tuple(round(s, 3) for s in samples), note)
        self.figures.append(figure)
        if self.as_json:
            print(json.dumps(asdict(figure)), flush=True)
        else:
            spread = f"  [{' '.join(f'{s:g}' for s in figure.samples)}]" if len(samples) > 1 else ""
            print(
                f"{name} {figure.value:g} {unit} {target} {verdict}{spread}{f'  ({note})' if note else ''}", flush=True
            )

    def skip(self, name: str, reason: str) -> None:
        """Say that a figure could not be measured, and why."""
        print(json.dumps({"name": name, "skipped": reason}) if self.as_json else f"{name} - - - skipped  ({reason})")

    @property
    def is_met(self) -> bool:
        """Whether no figure missed its target."""
        return all(figure.verdict != "MISSED" for figure in self.figures)
