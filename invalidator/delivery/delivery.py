"""All lanes, the order of their layers, and what is applied again later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from invalidator.batching import coalesce
from invalidator.batching.schedule import Schedule
from invalidator.delivery.lane import Entry, Item, Lane
from invalidator.delivery.waiting import wait
from invalidator.model import Batch, Invalidation, Layer
from invalidator.ports import Options, RetryOptions

if TYPE_CHECKING:
    from invalidator.ports import Clock, Target
    from invalidator.telemetry.events import Events
    from invalidator.telemetry.state import TargetState


class Settings(Options):
    """Settings of ``delivery:``."""

    max_pending_items: int = Field(default=100_000, ge=1000)
    """Names that wait for targets or for their repeat, over all targets. At this bound reading pauses (nothing is
    dropped); a best-effort target alone gives up what it has too much of. Repeats may take half of it; beyond that the
    earliest are applied before their time."""


@dataclass(frozen=True, slots=True)
class _Repeat:
    """What is applied again, whose positions it holds, and for which lane (None: all)."""

    invalidation: Invalidation
    entries: tuple[Entry, ...]
    lane: Lane | None

    def release(self) -> None:
        """Let the positions go."""
        for entry in self.entries:
            entry.release()


class Delivery:
    """All lanes, the order of their layers, and the repeats."""

    def __init__(
        self,
        targets: Sequence[tuple[Target, bool, RetryOptions]],
        *,
        settings: Settings,
        events: Events,
        states: Mapping[str, TargetState],
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.events = events
        self.progress = asyncio.Event()
        self._settings = settings
        self._lanes = [
            Lane(target, required=required, retry=retry, state=states[target.name], order=self)
            for target, required, retry in targets
        ]
        order = list(Layer)
        self._gates = {
            layer: [lane for lane in self._lanes if order.index(lane.target.layer) < order.index(layer)]
            for layer in order
        }
        innermost = min((order.index(lane.target.layer) for lane in self._lanes), default=0)
        self._first = [lane for lane in self._lanes if order.index(lane.target.layer) == innermost]
        self.on_return: Callable[[str], None] = _ignored
        """Told the name of an excused target that works again; positions wait for it from then on."""
        self._sequence = 0
        self._entries: deque[Entry] = deque()
        # Fresh invalidations matter more than repeats, which therefore take no more than half of the room.
        self._repeats: Schedule[_Repeat] = Schedule(settings.max_pending_items // 2)
        self._repeat_added = asyncio.Event()
        for lane in self._lanes:
            lane.state.pending_limit = settings.max_pending_items

    def __repr__(self) -> str:
        return f"<Delivery open={len(self._entries)} repeats={len(self._repeats)} lanes={self._lanes}>"

    @property
    def _required(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.required]

    @property
    def pending_items(self) -> int:
        """Names that wait for a required target or for their repeat."""
        return self._repeats.items + max((lane.pending_items for lane in self._required), default=0)

    def tasks(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """What must run in the daemon's task group: coroutine functions, one per lane and one for the repeats."""
        return [*(lane.run for lane in self._lanes), self._run_repeats]

    async def deliver(self, batch: Batch, on_finished: Callable[[], None], *, only: str | None = None) -> None:
        """Accept a batch, and return when the next one is welcome.

        That is when the targets of the innermost layer have applied this one (so the source's next batch grows
        meanwhile) or are failing (so that they do not delay the others), and less than ``max_pending_items`` wait.

        Args:
            batch: the next batch, in the source's order.
            on_finished: called once, when every required target has applied it and its repeats.
            only: the name of a target that has lost something: it is for that one, and for those of outer layers, which
                may have been filled from what is stale there; None: all.
        """
        if only is not None:
            self._submit(batch, on_finished, self._from_outwards(only))
        elif self._entries and not batch.invalidation and batch.heartbeat is None:
            self._entries[-1].followers.append(on_finished)  # one a second while a target fails: no lane need know
        else:
            self._submit(batch, on_finished)
        while (
            any(lane.pending_items and lane.state.failing_since is None for lane in self._first)
            or self.pending_items >= self._settings.max_pending_items
        ):
            self.progress.clear()
            await self.progress.wait()

    def stuck(self) -> list[str]:
        """The targets that fail, and that positions wait for."""
        return [lane.target.name for lane in self._lanes if lane.is_stuck]

    def excuse(self, name: str) -> None:
        """Let positions go on without a target, until it works again; what waits for it is left out."""
        lane = next(lane for lane in self._lanes if lane.target.name == name)
        lane.is_excused = True
        lane.forget()
        self._moved()

    def greet(self) -> None:
        """Ask the L2 targets for an answer; L1 subscribers must not hear of a process that stands by."""
        hello = Batch(Invalidation(), heartbeat=self.clock.time(), is_repeat=True)
        for lane in self._lanes:
            if lane.target.layer is Layer.L2:
                self._submit(hello, _nothing, [lane])

    async def drain(self) -> None:
        """Return when every lane has applied what it was given, but for best-effort ones that fail.

        Repeats are not waited for: they hold their position, and come again.
        """
        while not all(lane.is_idle for lane in self._lanes if lane.required or lane.state.failing_since is None):
            self.progress.clear()
            await self.progress.wait()

    async def close(self) -> None:
        """Close all targets; what a best-effort one has not applied is given up."""
        for lane in self._lanes:
            if not lane.required:
                lane.abandon_excess(0)
            await lane.target.close()

    def gate(self, layer: Layer) -> int:
        """Up to which batch the inner layers have come: all their required lanes, and the others while they work."""
        holding = (lane.applied for lane in self._gates[layer] if lane.required or lane.state.failing_since is None)
        return min(holding, default=self._sequence)

    def passed(self, lane: Lane, fresh: Sequence[Item]) -> None:
        """Take note that a lane has come up to its number; ``fresh`` is what it applied for the first time."""
        if fresh and lane.repeat_after_seconds:
            self._repeat_purge(lane, fresh)
        if lane.is_excused:
            lane.is_excused = False
            self.on_return(lane.target.name)
        self._moved()

    def _moved(self) -> None:
        self._advance()
        for lane in self._lanes:
            lane.wake()
        self.progress.set()

    def _advance(self) -> None:
        """Finish the entries that every required lane has passed."""
        floor = min((lane.applied for lane in self._required), default=self._sequence)
        while self._entries and self._entries[0].sequence <= floor:
            entry = self._entries.popleft()
            self._repeat_rules(entry)
            entry.batch = Batch(Invalidation())  # a repeat may hold the entry for long: not its names
            entry.release()
        state = self.events.state
        state.oldest_unfinished_commit = next(
            (e.batch.oldest_commit_time for e in self._entries if e.batch.oldest_commit_time is not None), None
        )

    def _submit(self, batch: Batch, on_finished: Callable[[], None], lanes: Collection[Lane] | None = None) -> None:
        self._sequence += 1
        entry = Entry(self._sequence, batch, on_finished)
        self._entries.append(entry)
        if self.events.state.oldest_unfinished_commit is None:
            self.events.state.oldest_unfinished_commit = batch.oldest_commit_time
        empty = Batch(Invalidation(), batch.end, is_repeat=batch.is_repeat)
        for each in self._lanes:
            # A repeat of one lane passes the others as an empty batch, so that the numbers stay one sequence.
            each.put(self._sequence, batch if lanes is None or each in lanes else empty, entry)
            if each.is_excused:
                each.forget()
            elif not each.required:
                each.abandon_excess(self._settings.max_pending_items)
        if not self._required:
            self._advance()

    def _from_outwards(self, name: str) -> list[Lane]:
        """A target's lane, and those of outer layers."""
        lane, order = next(lane for lane in self._lanes if lane.target.name == name), list(Layer)
        inside = order.index(lane.target.layer)
        return [lane, *(other for other in self._lanes if order.index(other.target.layer) > inside)]

    def _repeat_rules(self, entry: Entry) -> None:
        for delays, part in entry.batch.invalidation.repeats.items():
            for delay in delays:
                self._schedule(delay, part, (entry,), None)
                # crash point: repeat-scheduled

    def _repeat_purge(self, lane: Lane, fresh: Sequence[Item]) -> None:
        """Purge again later: a response that was being rendered during the purge is stored stale."""
        invalidation = coalesce.merge([item.batch for item in fresh]).invalidation
        entries = tuple(item.entry for item in fresh) if lane.required else ()
        part = Invalidation(cdn=invalidation.cdn, cdn_soft=invalidation.cdn_soft, cdn_all=invalidation.cdn_all)
        has_room = lane.required or self._repeats.items < self._settings.max_pending_items
        if part and has_room:
            for delay in lane.repeat_after_seconds:
                self._schedule(delay, part, entries, lane)

    def _schedule(self, delay: float, part: Invalidation, entries: tuple[Entry, ...], lane: Lane | None) -> None:
        for entry in entries:
            entry.holds += 1
        self._repeats.add(self.clock.monotonic() + delay, len(part), _Repeat(part, entries, lane))
        self._count_repeats()
        self._repeat_added.set()

    async def _run_repeats(self) -> None:
        while True:
            now = self.clock.monotonic()
            while (popped := self._repeats.pop(now)) is not None:
                repeat, early_seconds = popped
                if early_seconds:
                    self.events.repeat_hurried(items=len(repeat.invalidation), early_seconds=early_seconds)
                self._count_repeats()
                batch = Batch(repeat.invalidation, is_repeat=True)
                self._submit(batch, repeat.release, None if repeat.lane is None else [repeat.lane])
            self.progress.set()
            self._repeat_added.clear()
            due = self._repeats.next_due
            await wait(self._repeat_added, self.clock, None if due is None else due - now)

    def _count_repeats(self) -> None:
        for lane in self._lanes:
            lane.state.repeats_pending = len(self._repeats)


def _ignored(_: str) -> None:
    """Nobody excuses a target."""


def _nothing() -> None:
    """The end of a batch that holds no position."""
