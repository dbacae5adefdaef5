"""Faults happen in lanes: one after the other within a lane, at the same time as those of the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.chaos.world import World

Fault = Callable[["World", random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Lane:
    """Faults of which one happens at a time."""

    name: str
    faults: Sequence[Fault]

    async def play(self, world: World, seconds: float) -> None:
        """Choose by the seed, for so long."""
        choice = random.Random(f"{world.outcome.seed}/{self.name}")  # noqa: S311
        end = time.monotonic() + seconds
        while self.faults and time.monotonic() < end:
            await asyncio.sleep(choice.uniform(0.3, 1.5))
            fault = choice.choice(self.faults)
            world.outcome.faults[fault.__name__] += 1
            world.note(fault.__name__)
            await fault(world, choice)
            world.note(f"{fault.__name__} is over")
