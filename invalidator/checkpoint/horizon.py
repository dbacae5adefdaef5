"""How long an applied position is held back before the source hears of it: the redo window."""

from __future__ import annotations

from collections import deque

from invalidator.model import Lsn


class Horizon:
    """Positions on their way from recorded to confirmed.

    A Redis replica that takes over lacks what its primary had not sent it yet. What is not confirmed can be read again,
    so a window longer than the replication lag repairs that without dropping more than was lost.

    Args:
        window_seconds: how long a position waits.
    """

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._waiting: deque[tuple[float, Lsn]] = deque()
        self._newest: Lsn | None = None

    def __repr__(self) -> str:
        return f"<Horizon waiting={len(self._waiting)}>"

    def add(self, position: Lsn, now: float) -> None:
        """Take in a position that every required record holds; an earlier one, or the same again, says nothing."""
        if self._newest is None or position > self._newest:
            self._newest = position
            self._waiting.append((now, position))

    def release(self, now: float) -> Lsn | None:
        """The newest position that has waited long enough, once."""
        released = None
        while self._waiting and self._waiting[0][0] + self._window <= now:
            released = self._waiting.popleft()[1]
        return released

    def clear(self) -> None:
        """Forget everything: another connection begins."""
        self._waiting.clear()
        self._newest = None
