"""When to look again, and for how many rows. No I/O.

With ``wake: notify`` the daemon is awake or asleep. Asleep it holds the advisory lock ``SLEEP_KEY``, and writers that
cannot share that lock notify. A writer that can shares it until its transaction has ended, and does not notify: the
daemon cannot fall asleep before, and having done so it looks once more. So no commit waits for the longest pause, and
under load nobody notifies, which makes commits wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, LiteralString

from invalidator.postgres.catalog.outbox import SLEEP_KEY

if TYPE_CHECKING:
    from invalidator.postgres.outbox.options import OutboxOptions

SLEEP_SQL: Final[LiteralString] = f"SELECT pg_try_advisory_lock({SLEEP_KEY})"
ROUSE_SQL: Final[LiteralString] = f"SELECT pg_advisory_unlock({SLEEP_KEY})"

_FIRST_ROWS: Final = 64
_MOST_ROWS: Final = 4096
_PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page that was larger makes the next one have half as many rows."""
_CROWD: Final = 8
"""So many rows in one look: more of them gather until the next one, which costs the same."""
_AWAKE_FACTOR: Final = 4
"""The longest wait for a writer that did not notify, in shortest ones."""


class Pace:
    """Learns what each look found.

    Args:
        options: shortest and longest wait, and whether writers notify.
    """

    def __init__(self, options: OutboxOptions) -> None:
        self._options = options
        self._has_wakes = options.wake == "notify"
        self._pause = options.poll_min_seconds
        self._has_found = self._is_crowded = False
        self.limit = _FIRST_ROWS
        """How many rows to ask for: pages are of many small rows or of few large ones."""
        self.is_asleep = False
        """The lock is held: writers notify."""

    def looked(self, count: int, size: int, *, is_full: bool) -> None:
        """Learn what a look found.

        Args:
            count: rows.
            size: bytes of their values.
            is_full: there may be more of them already.
        """
        if size > _PAGE_BYTES:
            self.limit = max(1, self.limit // 2)
        elif is_full and size < _PAGE_BYTES // 4:
            self.limit = min(_MOST_ROWS, self.limit * 2)
        self._has_found = count > 0
        self._is_crowded = count >= _CROWD and not is_full
        shortest, longest = self._options.poll_min_seconds, self._options.poll_max_seconds
        self._pause = shortest if count else min(longest, self._pause * 2)

    @property
    def gathering_seconds(self) -> float:
        """How long to let rows gather before the next look, although the last one found some."""
        return self._options.poll_min_seconds if self._is_crowded else 0.0

    @property
    def must_rouse(self) -> bool:
        """The lock is to be given back at once: whoever applies what was found may take long."""
        return self.is_asleep and self._has_found

    @property
    def may_sleep(self) -> bool:
        """The lock is to be tried for, since the last look found nothing."""
        return self._has_wakes and not self.is_asleep and not self._has_found

    @property
    def waiting_seconds(self) -> float:
        """How long to wait at most when the last look found nothing."""
        if self.is_asleep:
            return self._options.poll_max_seconds
        return min(self._pause, _AWAKE_FACTOR * self._options.poll_min_seconds) if self._has_wakes else self._pause
