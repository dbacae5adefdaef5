"""The demo on a terminal: one block per case, a summary table, and a live table of commits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from invalidator.demo.play import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from invalidator.demo.play import Result

MEASURED: Final = (
    "fresh after = COMMIT answered → no stale value given any more; looked at about every millisecond, so these are "
    "upper bounds"
)
_TITLES: Final = {"redis": "Redis", "l1": "L1", "edge": "edge"}
_VERBS: Final = (("redis", "unlinked"), ("l1", "published"), ("edge", "purged"))
_PLAIN_WIDTH: Final = 140
_NONE: Final = "\N{EN DASH}"


def console(*, to_stderr: bool = False) -> Console:
    """A console that does not fold lines at 80 columns where there is no terminal."""
    made = Console(stderr=to_stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=to_stderr, highlight=False, width=_PLAIN_WIDTH)


def block(result: Result) -> Group:
    """One case: what was committed, what that dropped, and how fast."""
    verdict = Text("✓ ", "green") if result.is_good else Text("✗ ", "bold red")
    lines = [verdict + Text(result.case.name, "bold") + Text(f"  {result.case.what}")]
    end = "ROLLBACK" if result.case.is_rolled_back else "COMMIT"
    lines += [Text(f"    {'; '.join(result.case.statements)}; {end}", "dim", no_wrap=True, overflow="ellipsis")]
    for layer, verb in _VERBS:
        names = getattr(result.effects, verb)
        if names or layer in result.fresh_after_ms:
            line = Text(f"    {verb:<10}", "cyan") + Text(f"{_names(names, 72):<74}")
            lines.append(line + _freshness(result, layer))
    if not result.case.drops and result.is_good:
        lines.append(Text("    nothing was dropped, and a later change proves that everything has arrived", "dim"))
    lines += [Text(f"    {problem}", "red") for problem in result.problems]
    return Group(*lines)


def summary(results: Sequence[Result]) -> Table:
    """The table at the end of ``--once``."""
    table = Table(title="fresh after, in milliseconds", title_justify="left")
    for title in ("case", "unlinked", "published", "purged"):
        table.add_column(title, justify="left" if title == "case" else "right")
    for layer in LAYERS:
        table.add_column(_TITLES[layer], justify="right")
    table.add_column("")
    for result in results:
        counts = (str(len(getattr(result.effects, verb)) or _NONE) for _, verb in _VERBS)
        fresh = (_cell(result, layer) for layer in LAYERS)
        table.add_row(result.case.name, *counts, *fresh, _verdict(result))
    return table


def _verdict(result: Result) -> Text:
    if result.is_good:
        return Text("ok", "green")
    return Text("STALE" if None in result.fresh_after_ms.values() else "WRONG", "bold red")


def line(result: Result) -> str:
    """One commit on one line, for output that is no terminal."""
    fresh = "  ".join(f"{_TITLES[layer]} {_cell(result, layer)}" for layer in LAYERS)
    dropped = "  ".join(f"{verb} {_names(names, 60)}" for _, verb in _VERBS if (names := getattr(result.effects, verb)))
    return f"{result.case.what}  |  {dropped}  |  fresh after ms: {fresh}"


class LiveView:
    """The table of the newest commits, with what all of them amount to."""

    def __init__(self, heading: str, height: int) -> None:
        self._heading = heading
        self._results: deque[Result] = deque(maxlen=max(4, height - 14))
        self._samples: dict[str, deque[float]] = {layer: deque(maxlen=2000) for layer in LAYERS}
        self._commits = 0
        self._stale = 0
        self.ignored = 0
        """Commits that no rule has to do with."""

    def add(self, result: Result) -> None:
        """One more commit was played."""
        self._results.append(result)
        self._commits += 1
        self._stale += not result.is_good
        for layer, after in result.fresh_after_ms.items():
            if after is not None:
                self._samples[layer].append(after)

    def __rich__(self) -> Panel:
        """The panel as it is now."""
        parts: list[RenderableType] = [
            Text(self._heading, "dim"),
            self._table(),
            self._percentiles(),
            Text(MEASURED, "dim"),
        ]
        return Panel(Group(*parts), title="invalidator demo", subtitle="q: quit", border_style="blue")

    def _table(self) -> Table:
        table = Table(expand=True, box=None, pad_edge=False)
        table.add_column("commit", ratio=3, no_wrap=True, overflow="ellipsis")
        for _, verb in _VERBS:
            table.add_column(verb, ratio=3, no_wrap=True, overflow="ellipsis", style="cyan")
        for layer in LAYERS:
            table.add_column(f"{_TITLES[layer]} ms", justify="right", width=8)
        for result in self._results:
            names = (_names(getattr(result.effects, verb), 60) for _, verb in _VERBS)
            style = "" if result.is_good else "bold red"
            table.add_row(result.case.what, *names, *(_cell(result, layer) for layer in LAYERS), style=style)
        return table

    def _percentiles(self) -> Text:
        text = Text(f"\n{self._commits} commits that change pages, {self.ignored} that do not", "bold")
        text.append(
            f", {self._stale} went wrong" if self._stale else ", nothing stale", "red" if self._stale else "green"
        )
        for layer in LAYERS:
            ordered = sorted(self._samples[layer])
            if ordered:
                text.append(f"   {_TITLES[layer]} p50 {_at(ordered, 0.5):.1f} p99 {_at(ordered, 0.99):.1f} ms", "bold")
        return text


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _cell(result: Result, layer: str) -> str:
    if layer not in result.fresh_after_ms:
        return _NONE
    after = result.fresh_after_ms[layer]
    return "STALE" if after is None else f"{after:.1f}"


def _freshness(result: Result, layer: str) -> Text:
    if layer not in result.fresh_after_ms:
        return Text()
    after = result.fresh_after_ms[layer]
    if after is None:
        return Text(f"{_TITLES[layer]} stays STALE", "bold red")
    return Text(f"{_TITLES[layer]} fresh after {after:.1f} ms", "green")


def _names(names: Iterable[str], width: int) -> str:
    """As many names as fit, and how many more there are."""
    every = list(names)
    shown: list[str] = []
    for name in every:
        if shown and len(" ".join((*shown, name))) > width - 6:
            return f"{' '.join(shown)} +{len(every) - len(shown)}"
        shown.append(name)
    return " ".join(shown)
