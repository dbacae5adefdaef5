"""What a session asks of others: who prepares the database, who looks at it again, who decides about a lost slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from invalidator.model import Gap
    from invalidator.postgres.side import SideConnection


class Preparation(Protocol):
    """Looks at the database before streaming, and makes what is missing when that was asked for."""

    async def __call__(self, side: SideConnection, *, is_first: bool) -> None:
        """Run on the side connection, before anything is checked; ``is_first``: nothing was streamed before."""
        ...


class Inspection(Protocol):
    """Looks at the database again and again while it streams."""

    interval_seconds: float

    async def look_again(self, side: SideConnection) -> None:
        """Look once.

        Raises:
            SourceError, ConfigError: it could not look this time.
        """
        ...


class RecordKeeper(Protocol):
    """Knows whether anybody was here before us."""

    @property
    def keeps_records(self) -> bool:
        """Whether any target can remember that."""
        ...

    async def has_record(self, system: str) -> bool:
        """Whether somebody has streamed before under this name, as far as anybody remembers.

        Args:
            system: names the cluster, so that it can be told whether another one uses the name; empty: not known yet.

        Raises:
            SourceDisconnected: that cannot be told now.
            ConfigError: that cannot be told as things are set up.
        """
        ...


class SlotKeeper(RecordKeeper, Protocol):
    """Knows whether a missing slot is missed, and whether it may be made anew."""

    def allow_new_slot(self, gap: Gap) -> None:
        """Return if the slot may be made anew.

        Raises:
            SlotLost, SourceDisconnected: it may not, ever or now.
        """
        ...
