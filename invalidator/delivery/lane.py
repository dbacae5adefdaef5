"""One target with its inbox: applied in order, retried, and never ahead of the inner layers.

A lane's number says up to which batch it has applied everything. It takes from its inbox only what all required lanes
of the inner layers have applied, and what has piled up meanwhile is merged into one application.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from invalidator.batching import coalesce
from invalidator.delivery.waiting import retry_seconds
from invalidator.errors import TargetError, TargetThrottled
from invalidator.model import Applied, Batch, Layer
from invalidator.ports import Pacing, Repeating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.ports import Clock, RetryOptions, Target
    from invalidator.telemetry.events import Events
    from invalidator.telemetry.state import TargetState


_HICCUP_SECONDS: Final = 3.0
"""A target that has failed for less may be back with the next attempt."""
_MAX_ITEMS: Final = 20_000
"""Names that one application takes together."""


class Order(Protocol):
    """Keeps the order of the lanes; ``Delivery`` does."""

    clock: Clock
    events: Events
    progress: asyncio.Event
    """Set when a lane has come further, or fails."""

    def gate(self, layer: Layer) -> int:
        """Up to which batch the inner layers have come."""
        ...

    def passed(self, lane: Lane, fresh: Sequence[Item]) -> None:
        """Take note that a lane has come up to its number; ``fresh`` is what it applied for the first time."""
        ...


@dataclass(slots=True, eq=False)
class Entry:
    """A batch on its way: finished when every required lane has passed it and nothing holds it any more."""

    sequence: int
    batch: Batch
    on_finished: Callable[[], None]
    holds: int = 1
    """What it waits for: the lanes, which count as one, and each repeat."""
    followers: list[Callable[[], None]] = field(default_factory=list)
    """Empty batches behind it: they finish with it."""

    def release(self) -> None:
        """Let go of one hold; the last one finishes the batch."""
        self.holds -= 1
        if self.holds == 0:
            self.on_finished()
            for follower in self.followers:
                follower()


@dataclass(slots=True, eq=False)
class Item:
    """What one lane still has to apply."""

    sequence: int
    batch: Batch
    entry: Entry
    size: int


class Lane:
    """One target with its inbox. Applies in order, retries, and tells how far it has come.

    Args:
        target: applies the batches.
        required: positions wait for it; else a batch that fails is given up at the deadline of ``retry``.
        retry: how long to wait between two attempts.
        state: the target's figures, for metrics and problems.
        order: says how far the inner layers are, and hears how far this lane is.
    """

    def __init__(
        self,
        target: Target,
        *,
        required: bool,
        retry: RetryOptions,
        state: TargetState,
        order: Order,
    ) -> None:
        self.target = target
        self.repeat_after_seconds = target.repeat_after_seconds if isinstance(target, Repeating) else ()
        self._pacing = target if isinstance(target, Pacing) else None
        self.is_excused = False
        """Positions go on without it, although it is required: everything there is dropped when it is back."""
        self._is_required = required
        self._failing_since: float | None = None
        """Monotonic seconds at which the batch that is being applied failed first; None: it has not."""
        self.state = state
        self.applied = 0
        self.pending_items = 0
        self._throttled_seconds = 0.0
        self._retry = retry
        self._order = order
        self._inbox: deque[Item] = deque()
        self._wakeup = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Lane {self.target.name} applied={self.applied} inbox={len(self._inbox)} items={self.pending_items}>"

    @property
    def required(self) -> bool:
        """Whether positions wait for it."""
        return self._is_required and not self.is_excused

    @property
    def is_stuck(self) -> bool:
        """Whether positions wait for it, and what it has in hand has failed for longer than a hiccup takes."""
        since, now = self._failing_since, self._order.clock.monotonic()
        return self.required and since is not None and now - since >= _HICCUP_SECONDS

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to apply."""
        return not self._inbox and not self.state.in_flight

    def put(self, sequence: int, batch: Batch, entry: Entry) -> None:
        """Add one batch to the inbox."""
        size = len(batch.invalidation)
        self._inbox.append(Item(sequence, batch, entry, size))
        self._count(size)
        self._wakeup.set()

    def wake(self) -> None:
        """Look at the inbox again: an inner layer has come further."""
        if self._inbox:
            self._wakeup.set()

    async def run(self) -> None:
        """Apply whatever may be applied, until cancelled."""
        while True:
            items = self._take()
            if not items:
                self._wakeup.clear()
                await self._wakeup.wait()
                continue
            self.state.in_flight = 1
            try:
                batch = coalesce.merge([item.batch for item in items])
                is_applied = await self._apply(batch)
            finally:
                self.state.in_flight = 0
                waited = self._pacing.rate_limit_wait_seconds if self._pacing is not None else 0.0
                self.state.rate_limit_wait_seconds = self._throttled_seconds + waited
            # crash point: applied-not-noted
            self._failing_since = None
            self.applied = items[-1].sequence
            self._count(-sum(item.size for item in items))
            # A repeat is not repeated, also when it was applied together with something fresh.
            fresh = [item for item in items if not item.batch.is_repeat] if is_applied else []
            self._order.passed(self, fresh)

    def forget(self) -> None:
        """Leave out all that waits but the last, which carries the number on: everything is to be dropped anyway."""
        while len(self._inbox) > 1:
            self._count(-self._inbox.popleft().size)

    def abandon_excess(self, limit: int) -> None:
        """Best effort only: give the oldest batches up until the inbox is within the limit."""
        dropped = 0
        while self.pending_items > limit and len(self._inbox) > (limit > 0):  # the last one carries the number on
            item = self._inbox.popleft()
            dropped += item.size
            self._count(-item.size)
        if dropped:
            self._order.events.delivery_abandoned(self.target.name, items=dropped)

    def _count(self, items: int) -> None:
        self.pending_items += items
        self.state.pending_items = self.pending_items

    def _take(self) -> list[Item]:
        """Everything that the inner layers have passed, up to the size of one application."""
        gate = self._order.gate(self.target.layer)
        items: list[Item] = []
        size = 0
        while self._inbox and self._inbox[0].sequence <= gate and size < _MAX_ITEMS:
            item = self._inbox.popleft()
            size += item.size
            items.append(item)
        return items

    async def _apply(self, batch: Batch) -> bool:
        """Apply, and again, until done or, best effort only, given up at the deadline.

        True: this lane has applied it. A journal that has taken it sees to repeats by itself.
        """
        clock = self._order.clock
        started = clock.monotonic()
        for attempt in itertools.count(1):
            try:
                applied = await self.target.apply(batch)
            except TargetError as error:
                self._failing_since = clock.monotonic() if attempt == 1 else self._failing_since
                if error.remaining is not None:
                    batch = replace(batch, invalidation=error.remaining)
                if not self._is_required and clock.monotonic() - started >= self._retry.deadline_seconds:
                    self._order.events.delivery_abandoned(self.target.name, items=len(batch.invalidation))
                    return False
                await self._pause(error, attempt)
            else:
                self._report(batch, applied, clock.monotonic() - started)
                return not applied.is_deferred
        raise AssertionError  # pragma: no cover  (count() does not end)

    async def _pause(self, error: TargetError, attempt: int) -> None:
        wait = retry_seconds(error, attempt, self._retry)
        if isinstance(error, TargetThrottled):
            self._throttled_seconds += wait
        self._order.events.delivery_failed(
            self.target.name,
            error=str(error),
            result=error.result,
            attempt=attempt,
            retry_in_seconds=wait,
            now=self._order.clock.time(),
        )
        self._order.progress.set()  # nobody need wait for a failing lane
        await self._order.clock.sleep(wait)

    def _report(self, batch: Batch, applied: Applied, seconds: float) -> None:
        if not batch.invalidation and batch.heartbeat is None:
            return  # nobody was asked: that says nothing about the target
        if applied.is_deferred:
            return  # the journal tells what becomes of it
        if applied == Applied() and batch.heartbeat is None:
            return  # the batch named nothing for this target: no call was made
        age = None
        if batch.oldest_commit_time is not None:
            offset = self._order.events.state.source.clock_offset_seconds
            age = max(0.0, self._order.clock.time() + offset - batch.oldest_commit_time)
        happenings = self._order.events.state.happenings
        if happenings.watchers and batch.invalidation:
            times = {"at": self._order.clock.time(), "seconds": seconds}
            happenings.applied(self.target.name, self.target.layer, batch, applied, **times, age_seconds=age)
        self._order.events.batch_applied(self.target.name, applied, seconds=seconds, age_seconds=age)
