"""Tables, publications, slots, roles and servers as the catalog describes them. Names are raw, without quotes."""

from __future__ import annotations

from dataclasses import dataclass

from invalidator.model import Lsn

ORDINARY = "r"
PARTITIONED = "p"
KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
}

PROVIDER_ROLES = ("rds_replication", "cloudsqlsuperuser", "azure_pg_admin", "neon_superuser", "supabase_admin")
"""Roles that only one provider's servers have."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type_oid: int
    type_name: str
    is_not_null: bool
    generated: str
    """``s`` stored, ``v`` virtual, empty for an ordinary column."""
    is_toastable: bool = False
    """Values can be so long that they are stored apart (TOAST); unchanged, they are then not sent by UPDATE."""
    collation_oid: int = 0
    """0 for types without one; 100 is the database's own."""
    base_oid: int | None = None
    """As in :class:`invalidator.model.Column`."""
    enum_labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Index:
    """A unique index that can be the replica identity: plain columns, all NOT NULL, neither partial nor deferrable."""

    name: str
    columns: tuple[str, ...]
    is_primary: bool
    is_replica_identity: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A relation as far as publishing it is concerned."""

    oid: int
    schema: str
    name: str
    kind: str
    """``r`` table, ``p`` partitioned table, and what cannot be published: see ``KINDS``."""
    is_permanent: bool
    """False for unlogged and temporary tables: they write no WAL."""
    root_oid: int | None
    """The topmost partitioned table over this partition; None when it is no partition."""
    replica_identity: str
    """d(efault), n(othing), f(ull), i(ndex)."""
    has_children: bool
    """Other tables inherit from it (INHERITS; partitions do not count)."""
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    parent_oid: int | None = None
    """The partitioned table right over this partition."""

    @property
    def full_name(self) -> str:
        """``schema.table``, without quotes: for people and for comparing."""
        return f"{self.schema}.{self.name}"

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns of the primary key; empty when there is none or it is deferrable."""
        return next((index.columns for index in self.indexes if index.is_primary), ())

    @property
    def identity(self) -> frozenset[str] | None:
        """The columns whose old values UPDATE and DELETE send; None when Postgres has no way to name a row.

        A table without identity in a publication of updates makes the application's own UPDATE fail.
        """
        match self.replica_identity:
            case "f":
                return frozenset(column.name for column in self.columns)
            case "i":
                chosen = next((index for index in self.indexes if index.is_replica_identity), None)
                return None if chosen is None else frozenset(chosen.columns)
            case "d":
                return frozenset(self.primary_key) or None
            case _:
                return None


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table that a publication names."""

    oid: int
    columns: frozenset[str] | None
    """The column list; None: all columns, also those added later."""
    has_row_filter: bool
    row_filter: str | None = None
    """The filter as Postgres prints it."""
    name: str = ""
    """``schema.table``, without quotes."""
    filter_columns: frozenset[str] = frozenset()
    """The columns that the filter reads."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication and the tables that it names one by one."""

    name: str
    owner: str
    is_for_all_tables: bool
    operations: frozenset[str]
    """Of insert, update, delete, truncate."""
    is_via_root: bool
    sends_generated: bool
    """Stored generated columns are sent (18 and newer: ``publish_generated_columns = stored``)."""
    schemas: frozenset[str]
    """Published with all their tables (FOR TABLES IN SCHEMA)."""
    tables: tuple[PublishedTable, ...]
    comment: str | None = None

    def table(self, oid: int) -> PublishedTable | None:
        """The entry of that table, if the publication names it."""
        return next((table for table in self.tables if table.oid == oid), None)


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot."""

    name: str
    plugin: str | None
    """None for a physical slot."""
    database: str | None
    is_temporary: bool
    active_pid: int | None
    restart_lsn: Lsn | None
    confirmed_flush_lsn: Lsn | None
    wal_status: str | None
    safe_wal_bytes: int | None
    is_failover: bool = False
    """Standbys that synchronize slots keep a copy of it (17 and newer)."""
    is_synced: bool = False
    """It is, or before a promotion was, such a copy; while it is temporary too, a promotion loses it."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role's attributes."""

    name: str
    can_login: bool
    can_replicate: bool
    is_superuser: bool
    can_connect: bool
    """To the current database."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server, and who we are on it."""

    version: int
    """As in ``180002``."""
    database: str
    user: str
    is_superuser: bool
    is_standby: bool
    encoding: str
    wal_level: str
    max_slot_wal_keep_size: str
    max_replication_slots: int
    max_wal_senders: int
    has_rds_replication: bool
    """Amazon RDS grants replication by membership in a role, not by an attribute."""
    provider_roles: frozenset[str] = frozenset()
    """Those of ``PROVIDER_ROLES`` that exist: they tell whose managed Postgres this is."""
    standby_slots: frozenset[str] = frozenset()
    """Physical slots, through which standbys follow."""
    connected_standby_slots: frozenset[str] = frozenset()
    """Those of them that are in use at this moment."""
    awaited_standby_slots: frozenset[str] = frozenset()
    """``synchronized_standby_slots``: failover slots send nothing that these do not have (17 and newer)."""
    unset_for_slot_sync: frozenset[str] = frozenset()
    """Settings without which a standby copies no slots, as far as they are off."""
