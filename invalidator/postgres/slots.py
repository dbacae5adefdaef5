"""What must stand before streaming starts, and the slot's figures while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from invalidator.errors import ConfigError, SlotInUse, SourceDisconnected
from invalidator.model import Gap, GapReason, Lsn, StreamStart
from invalidator.telemetry.state import OldestTransaction

if TYPE_CHECKING:
    from typing import LiteralString

    from invalidator.postgres.side import SideConnection

OLDEST_SERVER = 140000
REASON_SERVER = 170000
"""From here on a slot says why it was lost."""
FAILOVER_SERVER = 170000
"""From here on a slot can be copied to standbys."""

_LOST: Final = {reason.value: reason for reason in (GapReason.IDLE_TIMEOUT, GapReason.ROWS_REMOVED)}


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """How much WAL the slot keeps, in bytes."""

    is_active: bool
    wal_status: str | None
    retained_wal_bytes: int | None
    unconfirmed_wal_bytes: int | None
    safe_wal_bytes: int | None
    server_position: int


@dataclass(frozen=True, slots=True)
class Process:
    """A server process: after a restart of the server another one may have its number."""

    pid: int
    started: datetime | None


async def verify_primary(side: SideConnection) -> None:
    """See that we did not land at a standby, such as one that is about to be promoted.

    Raises:
        SourceDisconnected: we did; ask again.
    """
    if (await side.fetch("SELECT pg_is_in_recovery()"))[0][0]:
        msg = (
            "the server is a standby: waiting until it is promoted. If it never will be, name the primary in"
            " source.dsn, or all servers (host=a,b), of which the primary is taken"
        )
        raise SourceDisconnected(msg, reason="standby")


def verify_version(side: SideConnection) -> None:
    """See that the server is not too old.

    Raises:
        ConfigError: it is.
    """
    if side.server_version < OLDEST_SERVER:
        msg = f"Postgres {side.server_version // 10000} is too old: 14 or newer is needed"
        raise ConfigError(msg)


async def verify(side: SideConnection, *, slot: str, publication: str, is_missed: bool) -> Gap | None:
    """Check server, publication and slot, because START_REPLICATION itself finds out late or never.

    A missing publication, for one, is reported only when the first change is decoded, and Postgres 18 skips it in
    silence.

    Args:
        side: where to ask.
        slot: what is to be streamed.
        publication: of which tables.
        is_missed: the slot was there before, so that a missing one is a hole.

    Returns:
        What is missing: the slot stands but its WAL is gone, or it went while we were away.

    Raises:
        ConfigError: something is missing or cannot work; says what to run.
    """
    verify_version(side)
    level = (await side.fetch("SHOW wal_level"))[0][0]
    if level != "logical":
        msg = f"wal_level is '{level}': logical replication is switched off on this server"
        raise ConfigError(msg, fix="ALTER SYSTEM SET wal_level = 'logical';   -- then restart Postgres")
    await _verify_publication(side, publication)
    return await _verify_slot(side, slot, is_missed=is_missed)


async def exists(side: SideConnection, slot: str) -> bool:
    """Whether there is a slot of this name, of whatever kind."""
    return bool(await side.fetch("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [slot]))


async def refuse_if_in_use(side: SideConnection, slot: str, *, before: Process | None = None) -> None:
    """Ask what a standby asks again and again: one small question.

    Args:
        side: where to ask.
        slot: what is to be streamed.
        before: what has streamed it to us.

    Raises:
        SlotInUse: somebody else streams from the slot.
        SourceDisconnected: the server has not noticed yet that our own connection of before is gone.
    """
    statement: LiteralString = """
        SELECT s.active_pid, a.backend_start, c.system_identifier::text
          FROM pg_control_system() c, pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
         WHERE s.slot_name = %s AND s.active
    """
    for pid, started, system in await side.fetch(statement, [slot]):
        if before == Process(pid, started):
            msg = f"the server has not noticed yet that our own last connection to slot '{slot}' (PID {pid}) is gone"
            raise SourceDisconnected(msg, reason="own_connection")
        msg = f"replication slot '{slot}' is active for PID {pid}"
        raise SlotInUse(msg, holder_pid=pid, system=system)


async def process(side: SideConnection, pid: int) -> Process | None:
    """The server process of that number; None: the server does not say when it began."""
    rows = await side.fetch("SELECT backend_start FROM pg_stat_activity WHERE pid = %s", [pid])
    return Process(pid, rows[0][0]) if rows and rows[0][0] is not None else None


async def start(side: SideConnection, slot: str, gap: Gap | None) -> StreamStart:
    """Where a connection to the slot begins, in which history."""
    # pg_control_checkpoint() tells the old timeline until the first checkpoint after a promotion; the name of the WAL
    # segment that is written now begins with the one in force.
    rows = await side.fetch(
        """
        SELECT c.system_identifier::text, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
               s.confirmed_flush_lsn::text, pg_current_wal_flush_lsn()::text
          FROM pg_control_system() c LEFT JOIN pg_replication_slots s ON s.slot_name = %s
        """,
        [slot],
    )
    system, timeline, position, end = rows[0]
    return StreamStart(system, timeline, Lsn.parse(position) if position else Lsn(0), gap, end=Lsn.parse(end))


async def make_anew(side: SideConnection, slot: str) -> None:
    """Drop what is left of the slot and make it again; it knows nothing of changes before now.

    Raises:
        SlotInUse: somebody streams from it.
        ConfigError: we may not.
    """
    if await exists(side, slot):
        await side.fetch("SELECT pg_drop_replication_slot(%s)", [slot])
        # crash point: lost-slot-dropped
    if side.server_version >= FAILOVER_SERVER:  # copied to standbys that are set up for it; else it changes nothing
        await side.fetch("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)", [slot])
    else:
        await side.fetch("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    # crash point: slot-made-anew


async def figures(side: SideConnection, slot: str) -> SlotFigures | None:
    """The slot's figures now; None when there is no such slot."""
    rows = await side.fetch(
        """
        SELECT s.active, s.wal_status,
               pg_wal_lsn_diff(w.lsn, s.restart_lsn)::bigint,
               pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn)::bigint,
               s.safe_wal_size,
               pg_wal_lsn_diff(w.lsn, '0/0')::numeric
          FROM pg_replication_slots s, (SELECT pg_current_wal_flush_lsn() AS lsn) w
         WHERE s.slot_name = %s
        """,
        [slot],
    )
    if not rows:
        return None
    active, status, retained, unconfirmed, safe, position = rows[0]
    return SlotFigures(active, status, retained, unconfirmed, safe, int(position))


async def oldest_transaction(side: SideConnection) -> OldestTransaction | None:
    """The oldest transaction with a transaction id, of any database; None when we see none.

    The slot's ``restart_lsn`` cannot pass its beginning, whatever is confirmed. Sessions of others are hidden from a
    role without ``pg_read_all_stats``.
    """
    rows = await side.fetch(
        """
        SELECT pid, NULL, extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(state, ''),
               datname::text, age(backend_xid)
          FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL
         UNION ALL
        SELECT NULL, gid, extract(epoch FROM clock_timestamp() - prepared)::float8, 'prepared', database::text,
               age(transaction)
          FROM pg_prepared_xacts
         ORDER BY 6 DESC LIMIT 1
        """
    )
    return OldestTransaction(*rows[0][:5]) if rows else None


async def _verify_publication(side: SideConnection, publication: str) -> None:
    rows = await side.fetch("SELECT pubviaroot FROM pg_publication WHERE pubname = %s", [publication])
    if rows and rows[0][0]:
        msg = (
            f"the publication '{publication}' publishes partitions as their root: TRUNCATE of a partition is not sent "
            "then, and old values come by the partition's identity but look like the root's"
        )
        fix = f"ALTER PUBLICATION {publication} SET (publish_via_partition_root = false);   -- rules see the root"
        raise ConfigError(msg, fix=fix)
    if not rows:
        msg = f"there is no publication '{publication}' in this database"
        raise ConfigError(msg, fix="invalidator setup   (prints the CREATE PUBLICATION for your rules)")


async def _verify_slot(side: SideConnection, slot: str, *, is_missed: bool) -> Gap | None:
    reason: LiteralString = "s.invalidation_reason" if side.server_version >= REASON_SERVER else "NULL"
    rows = await side.fetch(
        "SELECT s.plugin, s.database, s.wal_status, " + reason + ", current_database() "
        "FROM pg_replication_slots s WHERE s.slot_name = %s",
        [slot],
    )
    if not rows and is_missed:
        detail = f"the replication slot '{slot}' is gone, and was there before (dropped, or this is another server)"
        return Gap(GapReason.SLOT_MISSING, detail)
    if not rows:
        msg = f"there is no replication slot '{slot}'"
        fix = f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');   -- after the publication"
        raise ConfigError(msg, fix=fix)
    plugin, database, status, why, here = rows[0]
    if plugin != "pgoutput":
        what = f"uses the plugin '{plugin}'" if plugin else "is a physical slot"
        msg = f"the replication slot '{slot}' {what}, not pgoutput"
        raise ConfigError(msg, fix="choose another slot name: source.slot in the settings")
    if database != here:
        msg = f"the replication slot '{slot}' belongs to database '{database}', we are connected to '{here}'"
        raise ConfigError(msg, fix="correct source.dsn, or choose another source.slot")
    if status == "lost" or why:
        detail = f"the replication slot '{slot}' lost its WAL ({why or 'size limit or idle timeout'})"
        return Gap(_LOST.get(why, GapReason.WAL_REMOVED), detail)
    return None
