"""Targets without which positions are confirmed, lest the server gives the slot up (``continuity.wal``).

    sought    positions wait for it, it fails, and the server is about to remove what the slot needs
    excused   a record says so, durably, and positions go on without it
    owed      until everything there is dropped: when it works again, in this life of the daemon or another

A slot that is lost costs the same and more: changes that no target has seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from invalidator.model import Gap, GapReason
from invalidator.ports import Options

if TYPE_CHECKING:
    from invalidator.telemetry.events import Events


class WalOptions(Options):
    """What to do when WAL runs out; settings of ``continuity:``."""

    wal: Literal["stall", "widen_and_skip"] = "stall"
    """When WAL runs out while a required target fails: hold the position, whatever comes of it (the slot is lost, or
    the disk full), or confirm without the target, remember that, and drop everything there when it works again."""
    wal_share: float = Field(default=0.8, gt=0, lt=1)
    """With `widen_and_skip`: WAL runs out when the slot keeps this share of what the server lets it keep
    (`max_slot_wal_keep_size`)."""
    wal_bytes: int = Field(default=0, ge=0)
    """With `widen_and_skip`: WAL also runs out when the slot keeps more than this. 0: the server's own limit alone, of
    which it has none by default."""


class Lanes(Protocol):
    """What can be done about a target that fails."""

    def stuck(self) -> list[str]:
        """The targets that fail, and that positions wait for."""
        ...

    def excuse(self, name: str) -> None:
        """Let positions go on without it until it works again."""
        ...


class Debts:
    """See the module.

    Args:
        settings: whether positions may be confirmed without a target, and when.
        targets: the names of all.
        events: what is told; holds the slot's figures.
    """

    def __init__(self, settings: WalOptions, targets: Collection[str], events: Events) -> None:
        self._settings = settings
        self._targets = frozenset(targets)
        self._events = events
        self._lanes: Lanes | None = None
        self._owed: dict[str, int] = {}
        """How often each was excused in this life: only a repair that began after the last time pays."""
        self._absent: frozenset[str] = frozenset()
        """Those that owe as well, and are not configured now: they may come back."""
        self.excused: set[str] = set()

    def __repr__(self) -> str:
        return f"<Debts owed={sorted(self._owed)} excused={sorted(self.excused)}>"

    @property
    def owed(self) -> frozenset[str]:
        """The targets where everything is still to be dropped."""
        return self._absent.union(self._owed)

    def attach(self, lanes: Lanes) -> None:
        """Name what delivers; before anything else is called."""
        self._lanes = lanes

    def sought(self) -> frozenset[str]:
        """The targets without which positions should go on, as soon as that is written down."""
        if self._lanes is None or not self._is_wal_short():
            return frozenset()
        return frozenset(self._lanes.stuck())

    def excuse(self, name: str) -> None:
        """It is written down: let positions go on without the target."""
        assert self._lanes is not None  # noqa: S101  (only what was sought is excused)
        self._owed[name] = self._owed.get(name, 0) + 1
        self.excused.add(name)
        self._lanes.excuse(name)
        self._events.debt_incurred(name, retained_bytes=self._events.state.source.slot_retained_wal_bytes)

    def learn(self, names: Collection[str]) -> list[str]:
        """Take over what records say from another life of the daemon; those that were not known."""
        self._absent = self._absent.union(names) - self._targets
        new = sorted(self._targets.intersection(names) - self._owed.keys())
        for name in new:
            self._owed[name] = 0
            self._events.debt_known(name)
        return new

    def repair(self, name: str) -> tuple[Gap, int]:
        """What is to be made good at a target that is to hold positions again, and what to hand to ``paid`` then."""
        self.excused.discard(name)
        return self._gap(name), self._owed[name]

    def paid(self, name: str, number: int) -> None:
        """Everything at the target was dropped; that counts unless it was excused again meanwhile."""
        if self._owed.get(name) == number and name not in self.excused:
            del self._owed[name]
            self._events.debt_paid(name)

    def _is_wal_short(self) -> bool:
        settings, source = self._settings, self._events.state.source
        if settings.wal == "stall":
            return False
        retained, safe = source.slot_retained_wal_bytes, source.slot_safe_wal_bytes
        if source.slot_wal_status == "unreserved":
            return True
        if retained is None:
            return False
        if settings.wal_bytes and retained > settings.wal_bytes:
            return True
        return safe is not None and safe < (1 - settings.wal_share) * (retained + safe)

    def _gap(self, name: str) -> Gap:
        detail = f"{name} failed while the server was about to give the slot up: positions were confirmed without it"
        return Gap(GapReason.WAL_SKIPPED, detail, name)
