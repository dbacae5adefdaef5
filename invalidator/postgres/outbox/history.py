"""Which outbox a connection reads, in which history of the server, and from where on it holds everything.

The row of ``invalidator.confirmed`` moves in the same transaction that deletes what was confirmed. Whatever a target
holds less than that cannot be read again. The row also names the outbox that it belongs to, because a dump that is
restored brings both along into another database, where the numbers of transactions mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from invalidator.errors import ConfigError
from invalidator.model import Gap, GapReason, Lsn, StreamStart

START_SQL: Final[LiteralString] = """
    SELECT c.system_identifier::text || '/' || d.oid || '/' || 'invalidator.outbox'::regclass::oid,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
           pg_current_wal_insert_lsn()::text, f.is_only_row, f.outbox, f.position::text,
           EXISTS (SELECT FROM invalidator.outbox WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())),
           pg_current_snapshot()::text
      FROM pg_control_system() c
      JOIN pg_database d ON d.datname = current_database()
      LEFT JOIN invalidator.confirmed f ON true
"""
"""The name of a WAL segment begins with the timeline in force; pg_control_checkpoint() may tell the one before."""


def begun(row: Sequence[Any]) -> StreamStart:
    """Where a connection begins, from the answer to :data:`START_SQL`.

    Raises:
        ConfigError: somebody has removed the row.
    """
    outbox, timeline, end, is_there, confirmed_of, position, has_strangers, _ = row
    if not is_there:
        msg = "the table invalidator.confirmed has lost its only row"
        raise ConfigError(msg, fix="INSERT INTO invalidator.confirmed DEFAULT VALUES;")
    gap = None
    if confirmed_of not in (None, outbox):
        detail = f"the outbox is another one than the one that was read last ({outbox}, was {confirmed_of})"
        gap = Gap(GapReason.OTHER_HISTORY, f"{detail}: a restored dump, or it was made anew")
    elif has_strangers:
        gap = Gap(GapReason.OTHER_HISTORY, "the outbox holds rows of another cluster: a restored dump")
    return StreamStart(outbox, timeline, Lsn.parse(position), gap, end=Lsn.parse(end))
