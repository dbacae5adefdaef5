"""What can be set about missing changes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from invalidator.continuity.debts import WalOptions


class Settings(WalOptions):
    """Settings of ``continuity:``."""

    on_gap: Literal["widen", "stop"] = "widen"
    """When changes are missing: drop the coarse form of every rule everywhere and go on, or stop and say so."""
    on_first_start: Literal["nothing", "widen"] = "nothing"
    """What to drop when there is no slot and no record: nothing is known about the age of what is cached."""
    redo_window_seconds: float = Field(default=5, ge=0)
    """A position is confirmed to Postgres so long after it was applied. Longer than Redis' replication lag: what a
    fail-over of Redis has lost is then read from the WAL again."""
    pause_seconds: float = Field(default=0.2, ge=0)
    """Between the coarse forms of two rules after a gap, so that the database survives the misses."""
    catalog_seconds: float = Field(default=5, ge=0.1)
    """How often to look for what happens to tables without a word in the stream: publication, partitions, rewrites."""
    max_new_slots_per_hour: int = Field(default=3, ge=1)
    """A lost slot is made anew at most so often; more often, something is wrong that a new slot does not mend."""
