"""Ages that are computed when somebody looks, from state and the time of looking: none can stick at an old value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invalidator.telemetry.state import Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import State


def staleness_seconds(state: State, now: float) -> float:
    """Age of the oldest committed change that is not fully applied, on the server's clock; 0 when none is pending."""
    pending = (state.oldest_unfinished_commit, state.source.oldest_undelivered_commit)
    commits = [commit for commit in pending if commit is not None]
    # What a standby has seen before it lost the stream is the business of the process that streams now.
    if not commits or state.source.role is Role.STANDBY:
        return 0.0
    return max(0.0, now + state.source.clock_offset_seconds - min(commits))


def heartbeat_age_seconds(state: State, now: float) -> float | None:
    """Seconds since the newest heartbeat that came through was sent; None when none has yet."""
    delivered = state.source.heartbeat_delivered
    return max(0.0, now - delivered) if delivered else None
