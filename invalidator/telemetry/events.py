"""What happens, in one call each: a log line and the figures change together, so they cannot disagree.

Called per batch or per state change, never per row. Event names are stable identifiers; facts are fields; no
row value is ever a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from invalidator.telemetry.state import Role, State

if TYPE_CHECKING:
    from invalidator.model import Applied, Lsn


class Events:
    """The daemon's events over one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._log = structlog.get_logger("invalidator")

    def stream_connected(self, *, position: Lsn, server_version: str) -> None:
        """The slot streams to us."""
        source = self.state.source
        source.role = Role.STREAMING
        source.server_version = server_version
        self._log.info("stream.connected", slot=source.slot, position=str(position), server=server_version)

    def stream_lost(self, *, error: str, reason: str, retry_in_seconds: float) -> None:
        """The stream ended; we connect again."""
        source = self.state.source
        source.role = Role.RECONNECTING
        source.reconnects[reason] += 1
        self._log.warning(
            "stream.lost", slot=source.slot, error=error, reason=reason, retry_in_seconds=retry_in_seconds
        )

    def stream_standby(self, *, holder_pid: int | None) -> None:
        """Another process streams from the slot; we wait for it to go."""
        source = self.state.source
        if source.role is not Role.STANDBY:
            self._log.info("stream.standby", slot=source.slot, holder_pid=holder_pid)
        source.role = Role.STANDBY

    def heartbeat_delivered(self, *, sent_at: float) -> None:
        """A heartbeat came back through Postgres and every required target."""
        source = self.state.source
        source.heartbeat_delivered = max(source.heartbeat_delivered, sent_at)

    def batch_applied(self, target: str, applied: Applied, *, seconds: float, age_seconds: float | None) -> None:
        """A target applied a batch; ``age_seconds`` is commit to now on the server's clock."""
        state = self.state.targets[target]
        if state.failing_since is not None:
            self._log.info("delivery.recovered", target=target)
            state.failing_since = None
            state.last_error = None
        state.deliveries["ok"] += 1
        items = state.delivered_items
        items["key"] += applied.keys
        items["tag"] += applied.tags
        items["pattern"] += applied.patterns
        items["cdn_tag"] += applied.cdn_tags
        state.removed_items += applied.removed
        if state.layer == "L1":
            state.receivers = applied.receivers
        state.delivery_duration.observe(seconds)
        if age_seconds is not None:
            state.duration.observe(age_seconds)

    def delivery_failed(
        self, target: str, *, error: str, result: str, attempt: int, retry_in_seconds: float, now: float
    ) -> None:
        """A target did not apply a batch; it is tried again."""
        state = self.state.targets[target]
        state.deliveries[result] += 1
        state.retries += 1
        state.last_error = error
        if state.failing_since is None:
            state.failing_since = now
        self._log.warning(
            "delivery.failed",
            target=target,
            error=error,
            result=result,
            attempt=attempt,
            retry_in_seconds=round(retry_in_seconds, 3),
        )

    def delivery_abandoned(self, target: str, *, items: int) -> None:
        """A best-effort target was given up on for these items."""
        self.state.targets[target].abandoned_items += items
        self._log.error("delivery.abandoned", target=target, items=items)
