"""Applies the coarse forms of rules after a gap, one rule at a time, while the stream goes on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from invalidator.model import Batch

if TYPE_CHECKING:
    from invalidator.delivery import Delivery
    from invalidator.model import Gap, Invalidation
    from invalidator.ports import Clock
    from invalidator.telemetry.events import Events

Hold = Callable[[], Callable[[], None]]
"""Keeps the source's position back on the connection that there is, and returns what lets it go."""


@dataclass(slots=True, eq=False)
class _Form:
    """One coarse form on its way."""

    gap: Gap
    rule: str
    invalidation: Invalidation
    release_position: Callable[[], None]
    """On the connection that there is: what earlier ones held comes again on it."""
    then: list[Callable[[], None]] = field(default_factory=list)

    def release(self) -> None:
        """It is applied: let go of the position, and tell whoever waits for it, once.

        One that is being delivered when another gap takes its place is released twice: by itself, and with those.
        """
        then, self.then = self.then, []
        for each in (self.release_position, *then):
            each()


class Repairs:
    """A gap costs cache misses, and all of them at once could cost the database: so each rule waits for its turn.

    Nothing is confirmed until all of them are applied: a daemon that ends in the middle finds the same gap again.

    Args:
        delivery: applies them.
        events: what is told.
        clock: its seconds count.
        pause_seconds: between two rules.
    """

    def __init__(self, delivery: Delivery, events: Events, clock: Clock, *, pause_seconds: float) -> None:
        self._delivery = delivery
        self._events = events
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._waiting: deque[_Form] = deque()
        self._added = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Repairs waiting={len(self._waiting)}>"

    def add(
        self,
        gap: Gap,
        forms: Iterable[tuple[str, Invalidation]],
        hold: Hold,
        on_repaired: Callable[[], None] | None = None,
    ) -> None:
        """Take in the coarse forms that make up for a gap.

        Args:
            gap: what is missing.
            forms: rule and its coarse form.
            hold: called for each of them.
            on_repaired: called when the last of them is applied; now, if there is none.
        """
        made = [_Form(gap, rule, invalidation, hold()) for rule, invalidation in forms]
        replaced = [form for form in self._waiting if gap.target in (None, form.gap.target) and gap.tables is None]
        if made:
            # What waits already is among the new forms, which are of the rules in force. Its positions are let go
            # with the last of those: earlier, and a crash would find nothing left to repair.
            made[-1].then += [form.release for form in replaced]
            self._waiting = deque(form for form in self._waiting if form not in replaced)
        if on_repaired is not None and made:
            made[-1].then.append(on_repaired)
        elif on_repaired is not None:
            on_repaired()
        self._waiting.extend(made)
        self._events.gap_found(gap, rules=len(made), waiting=len(self._waiting))
        self._added.set()

    def hold_again(self, hold: Hold) -> None:
        """Another connection begins: what waits holds its position instead."""
        for form in self._waiting:
            form.release_position = hold()

    async def run(self) -> None:
        """Apply what waits, until cancelled."""
        while True:
            if not self._waiting:
                self._added.clear()
                await self._added.wait()
            form = self._waiting[0]
            await self._delivery.deliver(Batch(form.invalidation), form.release, only=form.gap.target)
            # crash point: coarse-form-delivered
            if self._waiting and self._waiting[0] is form:
                self._waiting.popleft()
            self._events.gap_repairing(form.gap, rule=form.rule, waiting=len(self._waiting))
            if self._waiting:
                await self._clock.sleep(self._pause_seconds)
