"""An hour passes: changes come, heartbeats come back, a target fails now and then, and nothing grows with time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from invalidator.continuity import Continuity
from invalidator.continuity import Settings as ContinuitySettings
from invalidator.delivery import Delivery, Settings
from invalidator.errors import TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Layer, Lsn, StreamStart
from invalidator.pipeline import Pipeline
from invalidator.ports import Kept, RetryOptions, Rules
from invalidator.telemetry.events import Events
from invalidator.telemetry.problems import problems
from invalidator.telemetry.state import SourceState, State, TargetState
from tests.support.clock import ManualClock, settle

pytestmark = pytest.mark.usefixtures("quiet_logs")

STEP_SECONDS = 10.0
GIGABYTE = 10**9


class Steady:
    """A source that brings a change and a heartbeat at each step; somebody's transaction stays open all the time."""

    def __init__(self, clock: ManualClock, state: SourceState) -> None:
        self._clock = clock
        self._state = state
        self.handed_over = 0
        self.confirmed = Lsn(0)

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        yield Batch(start=StreamStart("7", 1, Lsn(0)))
        while True:
            await self._clock.sleep(STEP_SECONDS)
            self.handed_over += 1
            number, now = self.handed_over, self._clock.time()
            # What the heartbeat asks the server: all that is kept, and what of it is not confirmed.
            self._state.slot_retained_wal_bytes = number * GIGABYTE // 10
            self._state.slot_unconfirmed_wal_bytes = (number - self.confirmed.value) * GIGABYTE // 10
            yield Batch(Invalidation(keys={b"%d" % number}), Lsn(number), oldest_commit_time=now, heartbeat=now)

    def confirm(self, position: Lsn) -> None:
        self.confirmed = position

    def swap(self, rules: Rules) -> None: ...

    def restart(self, why: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(eq=False)
class Cache:
    """A target that keeps a record, repeats, and fails at every fifth call."""

    name: str = "redis"
    layer: Layer = Layer.L2
    repeat_after_seconds: tuple[float, ...] = (1.0, 15.0)
    lies_apart: bool = False
    content: bytes | None = None
    calls: int = 0

    async def apply(self, batch: Batch) -> Applied:
        self.calls += 1
        if self.calls % 5 == 0:
            raise TargetUnavailable("away for a moment")
        return Applied(keys=len(batch.invalidation.keys))

    async def load_record(self, name: str) -> Kept:
        return Kept(self.content, "one")

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        return owner

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        self.content = content
        return Kept(content, "one")

    async def close(self) -> None: ...


class NoRules:
    def coarse(self, tables: Collection[str] | None = None) -> list[tuple[str, Invalidation]]:
        return []


@dataclass
class Day:
    clock: ManualClock = field(default_factory=ManualClock)
    state: State = field(default_factory=lambda: State(targets={"redis": TargetState("redis", layer="L2")}))

    def __post_init__(self) -> None:
        events = Events(self.state, self.clock.time)
        cache = Cache()
        self.source = Steady(self.clock, self.state.source)
        self.delivery = Delivery(
            [(cache, True, RetryOptions())],
            settings=Settings(),
            events=events,
            states=self.state.targets,
            clock=self.clock,
        )
        self.continuity = Continuity(
            [("redis", cache, True)],
            slot="s",
            settings=ContinuitySettings(redo_window_seconds=5),
            events=events,
            clock=self.clock,
            targets=["redis"],
        )
        rules: Any = NoRules()
        self.pipeline = Pipeline(
            self.source, rules, self.delivery, events=events, clock=self.clock, continuity=self.continuity
        )

    async def pass_by(self, seconds: float) -> None:
        """Stop where a step is over, and what it brought is applied and repeated as usual."""
        for _ in range(int(seconds / STEP_SECONDS)):
            await self.clock.advance(STEP_SECONDS)

    def held(self) -> int:
        """How many things its parts hold, whatever they are."""
        return sum(map(len, containers([self.pipeline, self.delivery, self.continuity, self.state])))


def containers(parts: Collection[object]) -> Iterator[Collection[object]]:
    """Every container that the daemon's own objects hold, each once."""
    seen: set[int] = set()
    left = list(parts)
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            yield part
            left += part.values()
        elif isinstance(part, (list, tuple, set, frozenset, deque)):
            yield part
            left += part
        elif isinstance(part, partial):
            left += (part.func, *part.args)
        elif type(part).__module__.startswith("invalidator.") or hasattr(part, "__self__"):
            left += attributes(part)


def attributes(part: object) -> list[object]:
    names = [name for kind in type(part).__mro__ for name in kind.__dict__.get("__slots__", ())]
    named = [getattr(part, name, None) for name in (*names, "__self__")]
    return [*named, *getattr(part, "__dict__", {}).values()]


async def test_nothing_grows_in_an_hour_while_a_transaction_stays_open_and_both_lags_are_told_apart() -> None:
    day = Day()
    running = [asyncio.ensure_future(each()) for each in (*day.delivery.tasks(), *day.pipeline.tasks())]
    running.append(asyncio.ensure_future(day.pipeline.run()))
    await settle()

    held: list[int] = []
    for _ in range(6):
        await day.pass_by(600)
        held.append(day.held())

    assert day.source.handed_over == 360
    assert day.source.confirmed >= Lsn(355), "what others committed meanwhile is confirmed"
    # What is on its way differs from moment to moment; one thing a step that stays would be 240 more by now.
    assert held[-1] < held[1] + 100, f"what is held after each ten minutes: {held}"
    source = day.state.source
    assert source.slot_retained_wal_bytes == 36 * GIGABYTE
    assert source.slot_unconfirmed_wal_bytes is not None
    assert source.slot_unconfirmed_wal_bytes < GIGABYTE
    (problem,) = [each for each in problems(day.state, day.clock.time()) if each.code == "slot-wal-high"]
    assert "keeps 36.0 GB of WAL" in problem.text
    assert "GB is confirmed, the rest is kept for a transaction that is open for long" in problem.text
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
