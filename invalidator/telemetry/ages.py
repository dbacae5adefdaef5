"""Ages that are computed when somebody looks, from state and the time of looking: none can stick at an old value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invalidator.telemetry.state import Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import State


PATIENCE_SECONDS = 30.0
"""A heartbeat may be so late; three intervals of it, if that is longer."""


def staleness_seconds(state: State, now: float) -> float:
    """How old a change may be that is not applied: the oldest that we know of, or what we cannot know of.

    Without a stream, or while heartbeats do not come through, changes may wait in Postgres that nobody here has heard
    of. All that is known then is that what was committed before the newest delivered heartbeat is applied.
    """
    source = state.source
    unknown = 0.0
    is_blind = source.role is Role.RECONNECTING or is_unheard(state, now)
    if source.heartbeat_delivered and is_blind:
        unknown = max(0.0, now - source.heartbeat_delivered)
    return max(unknown, pending_seconds(state, now))


def is_unheard(state: State, now: float) -> bool:
    """Whether heartbeats go into Postgres and nothing comes out, although we read."""
    source = state.source
    if source.role is not Role.STREAMING or source.is_paused or not source.moved_at:
        return False
    return now - max(source.moved_at, source.role_since) > patience_seconds(state)


def patience_seconds(state: State) -> float:
    """How late a heartbeat may be."""
    return max(PATIENCE_SECONDS, 3 * state.source.heartbeat_interval_seconds)


def pending_seconds(state: State, now: float) -> float:
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
