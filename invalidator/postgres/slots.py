"""What must stand before streaming starts, and the slot's figures while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from invalidator.errors import ConfigError, SlotLost
from invalidator.model import Lsn

if TYPE_CHECKING:
    from invalidator.postgres.side import SideConnection

OLDEST_SERVER = 140000


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """How much WAL the slot keeps, in bytes."""

    is_active: bool
    wal_status: str | None
    retained_wal_bytes: int | None
    unconfirmed_wal_bytes: int | None
    safe_wal_bytes: int | None
    server_position: int


async def verify(side: SideConnection, *, slot: str, publication: str, has_streamed: bool) -> None:
    """Check server, publication and slot, because START_REPLICATION itself finds out late or never.

    A missing publication, for one, is reported only when the first change is decoded, and Postgres 18 skips it in
    silence.

    Args:
        side: where to ask.
        slot: what is to be streamed.
        publication: of which tables.
        has_streamed: this process has streamed from the slot before, so that a missing slot is a hole.

    Raises:
        ConfigError: something is missing or cannot work; says what to run.
        SlotLost: the slot stands but its WAL is gone, or it went while we were away.
    """
    if side.server_version < OLDEST_SERVER:
        msg = f"Postgres {side.server_version // 10000} is too old: 14 or newer is needed"
        raise ConfigError(msg)
    level = (await side.fetch("SHOW wal_level"))[0][0]
    if level != "logical":
        msg = f"wal_level is '{level}': logical replication is switched off on this server"
        raise ConfigError(msg, fix="ALTER SYSTEM SET wal_level = 'logical';   -- then restart Postgres")
    await _verify_publication(side, publication)
    if has_streamed and not await side.fetch("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [slot]):
        msg = (
            f"the replication slot '{slot}' is gone since we streamed from it (dropped, or this is another server): "
            "changes are missing. Drop what the rules can name from the caches, then start again"
        )
        raise SlotLost(msg)
    await _verify_slot(side, slot)


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


async def confirmed_position(side: SideConnection, slot: str) -> Lsn:
    """Where the slot goes on: what was confirmed last."""
    rows = await side.fetch("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", [slot])
    return Lsn.parse(rows[0][0]) if rows and rows[0][0] else Lsn(0)


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


async def _verify_slot(side: SideConnection, slot: str) -> None:
    rows = await side.fetch(
        "SELECT plugin, database, wal_status, current_database() FROM pg_replication_slots WHERE slot_name = %s", [slot]
    )
    if not rows:
        msg = f"there is no replication slot '{slot}'"
        fix = f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');   -- after the publication"
        raise ConfigError(msg, fix=fix)
    plugin, database, status, here = rows[0]
    if plugin != "pgoutput":
        what = f"uses the plugin '{plugin}'" if plugin else "is a physical slot"
        msg = f"the replication slot '{slot}' {what}, not pgoutput"
        raise ConfigError(msg, fix="choose another slot name: source.slot in the settings")
    if database != here:
        msg = f"the replication slot '{slot}' belongs to database '{database}', we are connected to '{here}'"
        raise ConfigError(msg, fix="correct source.dsn, or choose another source.slot")
    if status == "lost":
        msg = f"the replication slot '{slot}' lost its WAL (size limit or idle timeout): changes are missing"
        raise SlotLost(msg)
