"""The five steps as one loop: source, rules, batch, targets, confirm."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from invalidator.checkpoint.tracker import Ticket, Tracker
from invalidator.continuity.repairs import Repairs
from invalidator.errors import SlotInUse, SourceDisconnected
from invalidator.model import WidenReason
from invalidator.rules.lookup import widen_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from invalidator.continuity import Continuity
    from invalidator.delivery import Delivery
    from invalidator.model import Gap, Invalidation, Lsn
    from invalidator.ports import Clock, RulesInForce, Source
    from invalidator.postgres.lookups import Lookups
    from invalidator.telemetry.events import Events

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 2.0
"""A server that is away may be back at any moment, and one attempt to connect costs it little."""
MAX_OPERATOR_RETRY_SECONDS = 15.0
"""While only an operator can mend it. Refused passwords, for one, may lock an account."""
_FOR_THE_OPERATOR = frozenset({"configuration", "slot_lost", "unheard"})
STANDBY_SECONDS = 1.0
"""Between two looks whether the slot is free; jittered, so that several standbys do not knock together."""


class Pipeline:
    """Runs the source's connections one after the other until cancelled; what it cannot mend, it raises."""

    def __init__(
        self,
        source: Source,
        rules: RulesInForce,
        delivery: Delivery,
        *,
        events: Events,
        clock: Clock,
        continuity: Continuity,
        lookups: Lookups | None = None,
    ) -> None:
        self._source = source
        self._rules = rules
        self._delivery = delivery
        self._events = events
        self._clock = clock
        self._lookups = lookups
        self._tracker = Tracker()
        self._continuity = continuity
        continuity.attach(self, delivery)
        delivery.on_return = continuity.returned
        self._repairs = Repairs(delivery, events, clock, pause_seconds=continuity.settings.pause_seconds)
        self._failures = 0
        self._has_greeted = False

    def swap(self, rules: RulesInForce) -> None:
        """Put other rules in force between two transactions, on this connection and on all later ones."""
        self._rules = rules
        self._source.swap(rules)

    def tasks(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """What must run beside ``run`` in the daemon's task group."""
        return [self._repairs.run, self._continuity.run]

    def repair(self, gap: Gap, on_repaired: Callable[[], None] | None = None) -> None:
        """Drop the coarse form of every rule that it concerns, at all targets or at the one that lost something.

        Args:
            gap: what is missing.
            on_repaired: called when every required target has applied the last of them.
        """
        self._repairs.add(gap, self._rules.coarse(gap.tables), self._hold, on_repaired)

    def restart(self, why: str) -> None:
        """Connect again: what is not confirmed is read and applied once more."""
        self._source.restart(why)

    def confirm(self, position: Lsn) -> None:
        """Tell the source that everything up to the position is applied, and recorded where it has to be."""
        self._source.confirm(position)

    async def run(self) -> None:
        """Stream; after a lost connection stream again, while another process streams stand by.

        Raises:
            ConfigError, SlotLost, ProtocolError: see ``ports.Source``; only an operator can help.
        """
        while True:
            try:
                await self._stream()
            except SourceDisconnected as error:
                longest = MAX_OPERATOR_RETRY_SECONDS if error.reason in _FOR_THE_OPERATOR else MAX_RETRY_SECONDS
                wait = random.uniform(0, min(longest, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 30)))  # noqa: S311
                self._failures += 1
                self._events.stream_lost(error=str(error), reason=error.reason, retry_in_seconds=round(wait, 3))
                if error.reason == "record_taken":
                    self._greet()
                await self._clock.sleep(wait)
            except SlotInUse as error:
                self._continuity.stand_by(error.system)
                self._events.stream_standby(holder_pid=error.holder_pid)
                self._greet()
                await self._clock.sleep(random.uniform(0.5, 1.0) * STANDBY_SECONDS)  # noqa: S311

    async def _stream(self) -> None:
        self._tracker = tracker = Tracker()
        self._continuity.lost()
        self._repairs.hold_again(self._hold)
        async for batch in self._source.batches(self._rules):
            if batch.start is not None:
                self._continuity.begin(batch.start)
                continue
            self._failures = 0  # connecting alone says nothing: the server may fail to decode what comes
            ticket = tracker.start(batch.end)
            if batch.invalidation.lookups:
                await self._answer(batch.invalidation)
                # crash point: looked-up
            # crash point: batch-read
            await self._delivery.deliver(batch, partial(self._confirm, tracker, ticket, batch.heartbeat))

    def _greet(self) -> None:
        """One that waits for another daemon delivers nothing, and must know all the same whether it could."""
        if not self._has_greeted:
            self._has_greeted = True
            self._delivery.greet()

    def _hold(self) -> Callable[[], None]:
        """Let nothing be confirmed on this connection until what is returned is called."""
        tracker = self._tracker
        return partial(self._confirm, tracker, tracker.start(None), None)

    async def _answer(self, invalidation: Invalidation) -> None:
        """Put names in the place of what has to be looked up."""
        if self._lookups is None:  # a source without a database
            widen_all(invalidation, WidenReason.LOOKUP_ERROR)
        else:
            await self._lookups.answer(invalidation)

    def _confirm(self, tracker: Tracker, ticket: Ticket, heartbeat: float | None) -> None:
        if heartbeat is not None:
            self._events.heartbeat_delivered(sent_at=heartbeat)
        position = tracker.finish(ticket)
        # A tracker of an earlier connection has nothing to say: what it held comes again on this one.
        if position is not None and tracker is self._tracker:
            self._continuity.applied(position)
