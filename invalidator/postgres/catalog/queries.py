"""The questions to the catalog. Pages: https://www.postgresql.org/docs/current/catalogs.html."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg

from invalidator.model import Lsn
from invalidator.postgres.asking import fetch
from invalidator.postgres.catalog.facts import (
    PROVIDER_ROLES,
    Publication,
    PublishedTable,
    Role,
    Server,
    Slot,
)


async def server(connection: psycopg.AsyncConnection[Any]) -> Server:
    """The server's settings that matter for logical decoding."""
    rows = await fetch(
        connection,
        """
        SELECT current_setting('server_version_num')::int, current_database(), current_user,
               coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false), pg_is_in_recovery(),
               current_setting('server_encoding'), current_setting('wal_level'),
               current_setting('max_slot_wal_keep_size'), current_setting('max_replication_slots')::int,
               current_setting('max_wal_senders')::int,
               EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication'),
               ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s::text[])),
               ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary),
               ARRAY(SELECT slot_name::text FROM pg_replication_slots
                      WHERE slot_type = 'physical' AND NOT temporary AND active),
               coalesce(string_to_array(replace(current_setting('synchronized_standby_slots', true), ' ', ''), ','),
                        '{}'),
               ARRAY(SELECT name FROM unnest('{sync_replication_slots,hot_standby_feedback,primary_slot_name}'::text[])
                       AS name WHERE coalesce(current_setting(name, true), '') IN ('off', ''))
        """,  # synchronized_standby_slots and sync_replication_slots are new in 17
        [list(PROVIDER_ROLES)],
    )
    settings: list[Any] = [frozenset(value) if isinstance(value, list) else value for value in rows[0]]
    return Server(*settings)


async def publications(connection: psycopg.AsyncConnection[Any]) -> dict[str, Publication]:
    """All publications of the database by name."""
    has_lists = connection.info.server_version >= 150000
    found = await fetch(
        connection,
        """
        SELECT oid::bigint, pubname, pg_get_userbyid(pubowner), puballtables, pubviaroot,
               coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's', obj_description(oid, 'pg_publication'),
               pubinsert, pubupdate, pubdelete, pubtruncate
          FROM pg_publication p
        """,  # pubgencols is new in 18: by way of jsonb one statement serves all versions
    )
    named = await fetch(connection, _PUBLISHED_TABLES if has_lists else _PUBLISHED_TABLES_14)
    schemas = await fetch(connection, _PUBLISHED_SCHEMAS) if has_lists else []
    result: dict[str, Publication] = {}
    for oid, name, owner, is_for_all, is_via_root, sends_generated, comment, *published in found:
        operations = zip(("insert", "update", "delete", "truncate"), published, strict=True)
        result[name] = Publication(
            name,
            owner,
            is_for_all,
            frozenset(operation for operation, is_on in operations if is_on),
            is_via_root,
            sends_generated,
            frozenset(schema for publication, schema in schemas if publication == oid),
            tuple(_published(*entry) for publication, *entry in named if publication == oid),
            comment,
        )
    return result


def _published(
    oid: int, listed: list[str] | None, where: str | None, full_name: str, read: list[str]
) -> PublishedTable:
    columns = None if listed is None else frozenset(listed)
    return PublishedTable(oid, columns, where is not None, where, full_name, frozenset(read))


async def slot(connection: psycopg.AsyncConnection[Any], name: str) -> Slot | None:
    """The replication slot of that name, of whatever kind and database; None when there is none."""
    rows = await fetch(
        connection,
        """
        SELECT slot_name, plugin, database, temporary, active_pid, restart_lsn::text, confirmed_flush_lsn::text,
               wal_status, safe_wal_size, coalesce((to_jsonb(s) ->> 'failover')::boolean, false),
               coalesce((to_jsonb(s) ->> 'synced')::boolean, false)
          FROM pg_replication_slots s WHERE slot_name = %s
        """,  # failover and synced are new in 17
        [name],
    )
    if not rows:
        return None
    slot_name, plugin, database, is_temporary, active_pid, restart, confirmed, *rest = rows[0]
    return Slot(slot_name, plugin, database, is_temporary, active_pid, _lsn(restart), _lsn(confirmed), *rest)


async def system(connection: psycopg.AsyncConnection[Any], *, with_database: bool = False) -> str:
    """What names the cluster over all of its life, and the database in it: ``cluster/database/``."""
    statement = """
        SELECT c.system_identifier::text, d.oid::text FROM pg_control_system() c, pg_database d
         WHERE d.datname = current_database()
    """
    cluster, database = (await fetch(connection, statement, []))[0]
    return f"{cluster}/{database}/" if with_database else str(cluster)


async def session(connection: psycopg.AsyncConnection[Any], pid: int) -> str:
    """Who is behind a server process, for people; empty when that is not ours to know."""
    statement = """
        SELECT concat_ws(' ', nullif(application_name, ''), 'as ' || usename, 'from ' || host(client_addr))
          FROM pg_stat_activity WHERE pid = %s
    """
    rows = await fetch(connection, statement, [pid])
    return str(rows[0][0]) if rows else ""


async def role(connection: psycopg.AsyncConnection[Any], name: str) -> Role | None:
    """The role of that name; None when there is none. Membership in ``rds_replication`` counts as REPLICATION."""
    rows = await fetch(
        connection,
        """
        SELECT r.rolname, r.rolcanlogin,
               r.rolreplication OR EXISTS (
                   SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                    WHERE m.member = r.oid AND g.rolname = 'rds_replication'),
               r.rolsuper, has_database_privilege(r.oid, current_database(), 'CONNECT')
          FROM pg_roles r WHERE r.rolname = %s
        """,
        [name],
    )
    return Role(*rows[0]) if rows else None


async def without_identity(connection: psycopg.AsyncConnection[Any], publication: str) -> list[int]:
    """The tables, by OID, that the publication sends updates of and have nothing to name rows by; 50 at most."""
    rows = await fetch(
        connection,
        """
        SELECT c.oid::bigint
          FROM pg_publication p
          CROSS JOIN LATERAL pg_get_publication_tables(p.pubname::text) AS published
          JOIN pg_class c ON c.oid = published.relid
         WHERE p.pubname = %s AND (p.pubupdate OR p.pubdelete) AND c.relkind = 'r' AND c.relreplident <> 'f'
           AND NOT EXISTS (
               SELECT FROM pg_index i
                WHERE i.indrelid = c.oid AND i.indimmediate
                  AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
         ORDER BY c.oid
         LIMIT 50
        """,
        [publication],
    )
    return [oid for (oid,) in rows]


_PUBLISHED_TABLES: LiteralString = """
    SELECT r.prpubid::bigint, r.prrelid::bigint,
           CASE WHEN r.prattrs IS NOT NULL THEN ARRAY(
               SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)
           ) END,
           pg_get_expr(r.prqual, r.prrelid), n.nspname || '.' || c.relname,
           -- A filter is a plain expression over one row; text constants are printed as bytes, so nothing else matches.
           ARRAY(
               SELECT DISTINCT a.attname::text
                 FROM regexp_matches(r.prqual::text, '[{]VAR :varno 1 :varattno ([0-9]+)', 'g') AS used (number)
                 JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = used.number[1]::int)
      FROM pg_publication_rel r
      JOIN pg_class c ON c.oid = r.prrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
"""
_PUBLISHED_TABLES_14: LiteralString = """
    SELECT r.prpubid::bigint, r.prrelid::bigint, NULL::text[], NULL::text, n.nspname || '.' || c.relname,
           '{}'::text[]
      FROM pg_publication_rel r
      JOIN pg_class c ON c.oid = r.prrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
"""
_PUBLISHED_SCHEMAS: LiteralString = """
    SELECT p.pnpubid::bigint, n.nspname FROM pg_publication_namespace p JOIN pg_namespace n ON n.oid = p.pnnspid
"""


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)
