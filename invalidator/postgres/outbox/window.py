"""Which rows of the outbox are new. No I/O.

Numbers do not tell: they are given when a row is written, and rows appear when their transaction commits, so a row with
a lower number may appear after one with a higher number was read. Snapshots tell: what is new is what the snapshot
of now sees and that of the last time did not. Each row carries the number of its transaction for that.

A window is what came between two snapshots. It is read page by page, each in a statement of its own, so that no
transaction stays open: the newer snapshot, named by the first page, keeps out what commits meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, LiteralString

_END: Final = 2**64 - 1
"""A number that no transaction reaches."""


def fresh_sql(columns: LiteralString) -> LiteralString:
    """The rows of a window behind the last page of it, in the order of their numbers; at most ``limit``.

    What the snapshot before did not see had not begun, or was open; asked for in two parts, so that what was read and
    waits for its confirmation is not looked at again while an old transaction stays open. One lower bound each: with
    two the index scan may begin at the lower one.

    Args:
        columns: of the outbox, which is called ``o``; ``xid`` and ``id`` among them.
    """
    return f"""
           SELECT * FROM (
               (SELECT {columns} FROM invalidator.outbox AS o
                 WHERE o.xid = ANY (%(open)s::xid8[]) AND (o.xid, o.id) > (%(xid)s::xid8, %(id)s::bigint)
                   AND (%(until)s::pg_snapshot IS NULL OR pg_visible_in_snapshot(o.xid, %(until)s::pg_snapshot))
                 ORDER BY o.xid, o.id LIMIT %(limit)s::int)
               UNION ALL
               (SELECT {columns} FROM invalidator.outbox AS o
                 WHERE (o.xid, o.id) > (%(begun_xid)s::xid8, %(begun_id)s::bigint) AND o.xid < %(end)s::xid8
                   AND (%(until)s::pg_snapshot IS NULL OR pg_visible_in_snapshot(o.xid, %(until)s::pg_snapshot))
                 ORDER BY o.xid, o.id LIMIT %(limit)s::int)
               ) AS fresh
            ORDER BY fresh.xid, fresh.id
            LIMIT %(limit)s::int
    """  # noqa: S608  (constants)


PAGE_SQL: Final[LiteralString] = f"""
    SELECT seen.snapshot::text, pg_current_wal_insert_lsn()::text,
           page.xid::text, page.id, extract(epoch FROM page.at)::float8, page.relation::bigint, page.schema_name,
           page.table_name, page.operation::text, page.columns, page.old_rows, page.new_rows
      FROM (SELECT pg_current_snapshot() AS snapshot) AS seen
      LEFT JOIN LATERAL ({fresh_sql("o.*")}) AS page ON true
"""  # noqa: S608  (constants)
"""One page. ``pg_current_snapshot`` is the snapshot of this very statement: it sees just what the page could hold."""

NOTHING: Final = "1:1:"
"""The snapshot that has seen no transaction (their numbers begin at 3)."""
LAST_ID: Final = 2**63 - 1


def xmin(snapshot: str) -> int:
    """Every transaction below this number had ended."""
    return int(snapshot.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Window:
    """What came between two snapshots, and how far it was read."""

    seen: str = NOTHING
    """What was read before."""
    until: str | None = None
    """What it ends with; None: the first page says."""
    xid: int = 0
    id: int = -1
    """Where the next page begins: behind this row."""

    def after(self, snapshot: str, last: tuple[int, int] | None, *, is_full: bool) -> Window:
        """The window to read next: the rest of this one, or the one that begins where this ends.

        Args:
            snapshot: that of the page.
            last: the last row of the page.
            is_full: as many rows came as were asked for.
        """
        until = self.until or snapshot
        if is_full and last is not None:
            return replace(self, until=until, xid=last[0], id=last[1])
        return Window(seen=until, xid=xmin(until) - 1, id=LAST_ID)


def page(window: Window, limit: int) -> dict[str, object]:
    """The parameters of :func:`fresh_sql`."""
    begun, running = _unseen(window.seen)
    here = window.xid, window.id
    fresh = max(here, (begun - 1, LAST_ID))
    return {
        "open": running,
        "xid": str(here[0]),
        "id": str(here[1]),
        "begun_xid": str(fresh[0]),
        "begun_id": str(fresh[1]),
        "end": str(_END if window.until is None else _unseen(window.until)[0]),
        "until": window.until,
        "limit": str(limit),
    }


def _unseen(snapshot: str) -> tuple[int, list[str]]:
    _, begun, running = snapshot.split(":")
    return int(begun), running.split(",") if running else []
