"""What is confirmed is deleted part by part, each of which takes the server a moment. No I/O.

One statement for a backlog of millions would say nothing for longer than a server may be silent
(``silence_seconds``), and would be begun anew on the next connection, and so on. And nothing is read meanwhile.

The parts are the pages of a window, as it was read: what is deleted is what the snapshot sees with which the
confirmed window ended, and not what the one before saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, LiteralString

from invalidator.model import Lsn
from invalidator.postgres.outbox.window import Window, fresh_sql, page

_FIRST_ROWS: Final = 1024
_MOST_ROWS: Final = 4096
_SHORT_SECONDS: Final = 0.025
_LONG_SECONDS: Final = 0.1
"""Rows can be large, and disks slow: parts become larger and smaller until one takes between the two."""


def _delete_sql(rows: LiteralString, note: LiteralString) -> LiteralString:
    """Delete some rows, make a note in the same transaction, and say how many there were and which was the last."""
    return f"""
    WITH part AS ({rows}),
         gone AS (DELETE FROM invalidator.outbox WHERE ctid = ANY (ARRAY(SELECT part.ctid FROM part))),
         noted AS (UPDATE invalidator.confirmed SET {note})
    SELECT (SELECT count(*) FROM part), part.xid::text, part.id FROM part ORDER BY part.xid DESC, part.id DESC LIMIT 1
"""  # noqa: S608  (constants)


CONFIRM_SQL: Final = _delete_sql(
    fresh_sql("o.ctid, o.xid, o.id"), "position = %(position)s::pg_lsn, outbox = %(outbox)s"
)
"""Forget a part of what was confirmed, and note up to where that was: before any of it is gone, so that nobody takes
what is left for all that there was."""

EMPTY_SQL: Final = _delete_sql(
    """
        SELECT ctid, xid, id FROM invalidator.outbox
         WHERE (xid, id) > (%(begun_xid)s::xid8, %(begun_id)s::bigint)
           AND (pg_visible_in_snapshot(xid, %(until)s::pg_snapshot) OR xid >= pg_snapshot_xmax(pg_current_snapshot()))
         ORDER BY xid, id LIMIT %(limit)s::int
    """,
    "outbox = coalesce(nullif(outbox, %(outbox)s), 'unknown')",
)
"""Remove a part of the rows that nobody can place, and remember that there were some until something is confirmed. What
was committed since the connection began stays: the first coarse form may have been applied before it."""


class Deletion:
    """Knows what is to be deleted next.

    Args:
        statement: what deletes one part.
        outbox: which one it is.
    """

    def __init__(self, statement: LiteralString, outbox: str) -> None:
        self.statement: Final = statement
        self._outbox = outbox
        self._wanted: tuple[Lsn, str] | None = None
        self._position = Lsn(0)
        self._window = Window()
        self._limit = _FIRST_ROWS

    def want(self, position: Lsn, snapshot: str) -> None:
        """Delete what this snapshot sees; a newer one stands for those that have not been begun with.

        Args:
            position: up to where everything is confirmed then.
            snapshot: no older than the ones before.
        """
        self._wanted = position, snapshot

    @property
    def is_begun(self) -> bool:
        """Whether a part of what is to go has gone, and there may be more."""
        return self._window.until is not None

    @property
    def has_more(self) -> bool:
        """Whether there may be anything to delete."""
        return self.is_begun or self._wanted is not None

    def part(self) -> dict[str, object] | None:
        """The parameters of the statement for the next part; None: there is nothing to delete."""
        if self._window.until is None:
            if self._wanted is None:
                return None
            (self._position, until), self._wanted = self._wanted, None
            self._window = replace(self._window, until=until)
        return {**page(self._window, self._limit), "position": str(self._position), "outbox": self._outbox}

    def deleted(self, answer: Sequence[Sequence[Any]], *, seconds: float) -> None:
        """Learn that a part is gone.

        Args:
            answer: of the statement.
            seconds: how long that took.
        """
        count, xid, number = answer[0] if answer else (0, 0, 0)
        is_full = count == self._limit
        self._window = self._window.after("", (int(xid), number), is_full=is_full)
        if seconds > _LONG_SECONDS:
            self._limit = max(1, self._limit // 2)
        elif is_full and seconds < _SHORT_SECONDS:
            self._limit = min(_MOST_ROWS, self._limit * 2)
