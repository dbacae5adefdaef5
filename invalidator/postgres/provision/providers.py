"""What is different on managed Postgres: where settings are changed, and what else to know before and after.

Pages, as of 2026-11:
rds       https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/PostgreSQL.Concepts.General.FeatureSupport.LogicalReplication.html
          https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.Replication.Logical.Configure.html
cloudsql  https://cloud.google.com/sql/docs/postgres/replication/configure-logical-replication
azure     https://learn.microsoft.com/en-us/azure/postgresql/flexible-server/concepts-logical
          https://learn.microsoft.com/en-us/azure/postgresql/parameters/parameters-replication-sending-servers
neon      https://neon.com/docs/guides/logical-replication-neon
supabase  https://supabase.com/docs/guides/database/postgres/setup-replication-external
          https://supabase.com/docs/guides/database/replication/manual-replication-setup
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from invalidator.postgres.catalog import Server


class Provider(StrEnum):
    """Whose Postgres it is."""

    SELF = "self"
    RDS = "rds"
    CLOUDSQL = "cloudsql"
    AZURE = "azure"
    NEON = "neon"
    SUPABASE = "supabase"


@dataclass(frozen=True, slots=True)
class Ways:
    """How things are done there."""

    enable_decoding: str
    """How ``wal_level`` becomes ``logical``."""
    limit_wal: str | None
    """How ``max_slot_wal_keep_size`` is set; None: by SQL."""
    notes: tuple[str, ...] = ()
    """What is peculiar to it, true on every run."""


WAYS = {
    Provider.SELF: Ways(
        enable_decoding="ALTER SYSTEM SET wal_level = 'logical';"
        "   -- then restart Postgres and run setup again: it makes the slot",
        limit_wal=None,
    ),
    Provider.RDS: Ways(
        enable_decoding="set rds.logical_replication = 1 in the DB parameter group (Aurora: DB cluster parameter"
        " group), reboot the instance (Aurora: the writer), and run setup again: it makes the slot",
        limit_wal="set max_slot_wal_keep_size in the DB parameter group",
    ),
    Provider.CLOUDSQL: Ways(
        enable_decoding="set the flag cloudsql.logical_decoding = on (Edit, Flags), restart the instance, and run"
        " setup again: it makes the slot",
        limit_wal="set the flag max_slot_wal_keep_size, if your version of Cloud SQL offers it",
        notes=("Cloud SQL: the slot is made by a user with REPLICATION: ALTER USER <yours> WITH REPLICATION, once",),
    ),
    Provider.AZURE: Ways(
        enable_decoding="set the server parameter wal_level = logical, save, restart the server, and run setup again:"
        " it makes the slot",
        limit_wal="Azure does not let you: max_slot_wal_keep_size is read-only there; alert on the storage used, and"
        " on invalidator_slot_retained_wal_bytes",
        notes=("Azure: the slot is made by a user with REPLICATION: ALTER ROLE <admin> WITH REPLICATION, once",),
    ),
    Provider.NEON: Ways(
        enable_decoding="enable logical replication in the project's settings (it restarts all computes and cannot be"
        " turned off), and run setup again: it makes the slot",
        limit_wal="Neon bounds it by itself: it removes slots that were inactive for some 40 hours",
        notes=(
            "Neon: a slot that is inactive for some 40 hours is removed, and restoring a branch removes all; the daemon"
            " then sees a gap and applies the coarse forms",
            "Neon: connect to the compute itself, not to the host with '-pooler' in its name; the open stream keeps"
            " the compute from scaling to zero",
        ),
    ),
    Provider.SUPABASE: Ways(
        enable_decoding="ask Supabase's support: on its projects wal_level is logical from the beginning",
        limit_wal="set max_slot_wal_keep_size in the project's Postgres configuration",
        notes=(
            "Supabase: connect directly (db.<project>.supabase.co, IPv6 or with the IPv4 add-on), not by the pooler:"
            " it does not carry the replication protocol",
        ),
    ),
}
"""Words for people; nothing in it is run."""

_MARKS = {
    "neon_superuser": Provider.NEON,
    "supabase_admin": Provider.SUPABASE,
    "rds_replication": Provider.RDS,
    "cloudsqlsuperuser": Provider.CLOUDSQL,
    "azure_pg_admin": Provider.AZURE,
}
_SUPABASE_OWN_ROLES = 170000


def detect(server: Server) -> Provider:
    """Whose server it is, by the roles that only theirs have."""
    if server.has_rds_replication:
        return Provider.RDS
    return next((provider for role, provider in _MARKS.items() if role in server.provider_roles), Provider.SELF)


def notes(provider: Provider, server: Server) -> tuple[str, ...]:
    """What the operator should know there."""
    found = WAYS[provider].notes
    if provider is Provider.SUPABASE and server.version < _SUPABASE_OWN_ROLES:
        found += (
            "Supabase before Postgres 17: only the user 'postgres' can replicate; let the daemon connect as it"
            " (--role postgres)",
        )
    return found
