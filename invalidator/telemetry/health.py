"""Whether this process may be counted on: pure checks over the state, for /readyz.

A CDN that is down does not make the daemon unready: nobody else could purge it either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from invalidator.telemetry.ages import is_unheard
from invalidator.telemetry.problems import limits
from invalidator.telemetry.state import Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import State


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of being ready."""

    name: str
    is_ok: bool
    detail: str


def checks(state: State, now: float) -> list[Check]:
    """The conditions of being ready; all of them must hold."""
    loaded = state.rules_loaded
    return [
        Check("rules", bool(loaded.hash), f"{loaded.count} rules" if loaded.hash else "not loaded yet"),
        _stream(state, now),
        *(
            Check(f"target:{target.name}", target.answered, "answered" if target.answered else "no answer yet")
            for target in state.targets.values()
            if target.layer == "L2" and target.required
        ),
    ]


def is_ready(state: State, now: float) -> bool:
    """Whether every check holds."""
    return all(check.is_ok for check in checks(state, now))


def _stream(state: State, now: float) -> Check:
    source = state.source
    is_ok = source.role in (Role.STREAMING, Role.STANDBY)
    if source.role is Role.RECONNECTING:
        # One that never streamed is not ready. Else a short outage is our business, and unready pods would only add to
        # the noise of a server restart. One that waits for the record stands by in all but name: it may be that a
        # rollout ends the daemon which has it as soon as this one is ready.
        is_short = bool(source.server_version) and now - source.role_since <= limits.DISCONNECTED_SECONDS
        is_ok = is_short or source.last_reason == "record_taken"
    if is_unheard(state, now):
        silent = now - max(source.moved_at, source.role_since)
        return Check("stream", is_ok=False, detail=f"connected, but nothing has come for {silent:.0f} s")
    return Check("stream", is_ok, source.role)
