"""What is owed to targets and what to type; a part of the one list in ``problems``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invalidator.telemetry.journal_problems import Found
    from invalidator.telemetry.state import TargetState


def found(target: TargetState) -> Iterator[Found]:
    """Whether positions were confirmed without the target."""
    if target.debt_since is not None:
        text = f"positions were confirmed without {target.name}, lest the server gave the slot up: it may hold stale"
        text += " entries until it works again and everything that rules can name is dropped there"
        yield "debt", text, f"mend {target.name}, and serve nothing from it until then", target.debt_since
