"""A source that is a list: for tests and dry runs. It keeps what was not confirmed and yields it again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from invalidator.model import Batch, Lsn
from invalidator.ports import SourceOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from invalidator.ports import Rules
    from invalidator.telemetry.events import Events


class Settings(SourceOptions):
    """Options of ``type: memory``."""

    type: Literal["memory"]


def build(settings: Settings, events: Events) -> MemorySource:
    """Make an empty source."""
    return MemorySource()


class MemorySource:
    """Yields the given batches in order, then waits for more; see ``ports.Source``."""

    def __init__(self, batches: Iterable[Batch] = ()) -> None:
        self._batches = list(batches)
        self._grown = asyncio.Event()
        self.confirmed: Lsn | None = None

    def add(self, batch: Batch) -> None:
        """Append one more batch."""
        self._batches.append(batch)
        self._grown.set()

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        """Yield everything that is not confirmed, then wait for more."""
        confirmed = self.confirmed
        position = 0
        while True:
            while position < len(self._batches):
                batch = self._batches[position]
                position += 1
                if confirmed is None or batch.end is None or batch.end > confirmed:
                    yield batch
            self._grown.clear()
            await self._grown.wait()

    def swap(self, rules: Rules) -> None:
        """Its batches were made without rules: nothing changes."""

    def restart(self, why: str) -> None:
        """Nothing of it can be lost: nothing happens."""

    def confirm(self, position: Lsn) -> None:
        """Remember the newest confirmed position."""
        if self.confirmed is None or position > self.confirmed:
            self.confirmed = position

    async def close(self) -> None:
        """Nothing to close."""
