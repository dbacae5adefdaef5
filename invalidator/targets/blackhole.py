"""Drops nothing anywhere and remembers what it was told: for dry runs of rules, and for tests of the pipeline.

The layer is an option, so that it can stand in for any target.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from pydantic import Field

from invalidator.model import Applied, Batch, Layer
from invalidator.ports import TargetOptions


class Settings(TargetOptions):
    """A target that accepts everything."""

    type: Literal["blackhole"]
    layer: Layer = Layer.L2
    """``L2``, ``L1`` or ``L3``: when its turn is."""
    remember_names: int = Field(default=100_000, ge=0)
    """Bounds the memory: the newest batches are kept that name no more than this together."""


def build(name: str, settings: Settings) -> Blackhole:
    """Make the target."""
    return Blackhole(name, settings)


class Blackhole:
    """The target; see the module.

    Args:
        name: of the target in the settings.
        settings: its options.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.layer = settings.layer
        self.batches: deque[Batch] = deque()
        """The newest batches that named something or carried a heartbeat, oldest first."""
        self._most = settings.remember_names
        self._remembered = 0

    def __repr__(self) -> str:
        return f"<Blackhole {self.name} {self.layer.value}>"

    async def apply(self, batch: Batch) -> Applied:
        """Remember the batch; never fails. Counts the names of its layer, none of them as removed."""
        if batch.invalidation or batch.heartbeat is not None:
            self._remember(batch)
        told = batch.invalidation
        match self.layer:
            case Layer.L2:
                patterns = len(told.key_patterns) + len(told.tag_patterns)
                return Applied(keys=len(told.keys), tags=len(told.tags), patterns=patterns)
            case Layer.L1:
                return Applied(tags=len(told.tags), patterns=len(told.l1))
            case Layer.L3:
                return Applied(cdn_tags=len(told.cdn | told.cdn_soft))

    async def close(self) -> None:
        """Nothing is open."""

    def _remember(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._remembered += _size(batch)
        while self._remembered > self._most and self.batches:
            self._remembered -= _size(self.batches.popleft())


def _size(batch: Batch) -> int:
    return len(batch.invalidation) + 1  # a heartbeat takes room too
