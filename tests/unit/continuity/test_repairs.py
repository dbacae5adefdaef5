"""Coarse forms go out one by one, and whoever waits for them is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from invalidator.continuity.repairs import Repairs
from invalidator.model import Batch, Gap, GapReason, Invalidation
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.clock import ManualClock, settle

pytestmark = pytest.mark.usefixtures("quiet_logs")

GAP = Gap(GapReason.SLOT_MISSING, "gone")
FORMS = [("user", Invalidation(tags={b"users"}))]


class Busy:
    """Takes a batch, and says that the next one is not welcome yet."""

    def __init__(self) -> None:
        self.finish: list[Callable[[], None]] = []
        self.has_room = asyncio.Event()

    async def deliver(self, batch: Batch, on_finished: Callable[[], None], *, only: str | None = None) -> None:
        self.finish.append(on_finished)
        await self.has_room.wait()


class World:
    """Repairs on their way, and positions that they hold."""

    def __init__(self) -> None:
        self.delivery, self.clock = Busy(), ManualClock()
        events = Events(State(), self.clock.time)
        self.repairs = Repairs(self.delivery, events, self.clock, pause_seconds=1)  # type: ignore[arg-type]
        self.told: list[str] = []
        self.task = asyncio.ensure_future(self.repairs.run())

    def hold(self, name: str) -> Callable[[], Callable[[], None]]:
        return lambda: lambda: self.told.append(name)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_gap_that_is_found_while_another_one_is_being_delivered_tells_everybody_once() -> None:
    world = World()
    world.repairs.add(GAP, FORMS, world.hold("first"), lambda: world.told.append("first is made good"))
    await settle()
    world.repairs.add(GAP, FORMS, world.hold("second"), lambda: world.told.append("second is made good"))

    world.delivery.finish[0]()
    assert world.told == ["first", "first is made good"]
    world.delivery.has_room.set()
    await world.clock.advance(2)
    world.delivery.finish[1]()

    assert world.told.count("first is made good") == world.told.count("second is made good") == 1
    assert world.told[-1] == "second is made good"
    await world.stop()


async def test_what_waits_holds_the_position_of_the_newest_connection_alone() -> None:
    world = World()
    world.repairs.add(GAP, FORMS * 2, world.hold("old"))
    await settle()
    for _ in range(1000):
        world.repairs.hold_again(world.hold("new"))

    world.delivery.has_room.set()
    await world.clock.advance(2)
    for finish in world.delivery.finish:
        finish()

    assert world.told == ["new", "new"]
    await world.stop()
