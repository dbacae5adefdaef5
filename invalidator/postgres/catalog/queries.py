"""The questions to the catalog. Pages: https://www.postgresql.org/docs/current/catalogs.html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from invalidator.model import Lsn
from invalidator.postgres.asking import fetch
from invalidator.postgres.catalog.facts import (
    PROVIDER_ROLES,
    Column,
    Index,
    Publication,
    PublishedTable,
    Role,
    Server,
    Slot,
    Table,
)
from invalidator.postgres.catalog.types import base_types


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


async def tables(
    connection: psycopg.AsyncConnection[Any], patterns: Sequence[tuple[str, str]], *, oids: Sequence[int] = ()
) -> tuple[Table, ...]:
    """The relations that match one of the patterns, in order of name, and all partitions below them.

    Args:
        connection: an open connection.
        patterns: schema and table, each a raw name in which ``*`` stands for any text.
        oids: of other relations that are wanted.
    """
    rows = await fetch(
        connection,
        """
        WITH RECURSIVE wanted (oid) AS ((
            SELECT unnest(%s::oid[])
             UNION
            SELECT c.oid
              FROM pg_class c
              JOIN pg_namespace n ON n.oid = c.relnamespace
              JOIN unnest(%s::text[], %s::text[]) AS p (schema, name)
                ON n.nspname LIKE p.schema ESCAPE '!' AND c.relname LIKE p.name ESCAPE '!'
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
               AND n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND n.nspname NOT LIKE 'pg!_toast%%' ESCAPE '!' AND n.nspname NOT LIKE 'pg!_temp%%' ESCAPE '!'
             ) UNION
            SELECT i.inhrelid
              FROM wanted w
              JOIN pg_class parent ON parent.oid = w.oid AND parent.relkind = 'p'
              JOIN pg_inherits i ON i.inhparent = w.oid
        )
        SELECT c.oid::bigint, n.nspname, c.relname, c.relkind, c.relpersistence = 'p',
               CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid::bigint END, c.relreplident,
               c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid),
               CASE WHEN c.relispartition THEN (
                   SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid) END
          FROM wanted
          JOIN pg_class c USING (oid)
          JOIN pg_namespace n ON n.oid = c.relnamespace
         ORDER BY n.nspname, c.relname
        """,
        [list(oids), [like(schema) for schema, _ in patterns], [like(name) for _, name in patterns]],
    )
    found = [row[0] for row in rows]
    columns = await _columns(connection, found)
    indexes = await _indexes(connection, found)
    return tuple(
        Table(
            oid,
            schema,
            name,
            kind,
            is_permanent=is_permanent,
            root_oid=root,
            replica_identity=identity,
            has_children=has_children,
            columns=columns.get(oid, ()),
            indexes=indexes.get(oid, ()),
            parent_oid=parent,
        )
        for oid, schema, name, kind, is_permanent, root, identity, has_children, parent in rows
    )


async def table_names(connection: psycopg.AsyncConnection[Any], *, limit: int = 5000) -> tuple[str, ...]:
    """``schema.table`` of what the database holds, for suggestions."""
    rows = await fetch(
        connection,
        """
        SELECT n.nspname || '.' || c.relname
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           AND n.nspname NOT LIKE 'pg!_toast%%' ESCAPE '!' AND n.nspname NOT LIKE 'pg!_temp%%' ESCAPE '!'
         ORDER BY 1
         LIMIT %s
        """,
        [limit],
    )
    return tuple(name for (name,) in rows)


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


async def without_identity(connection: psycopg.AsyncConnection[Any], publication: str, *, limit: int = 50) -> list[int]:
    """The tables, by OID, that the publication sends updates of and that have nothing to name their rows by."""
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
         LIMIT %s
        """,
        [publication, limit],
    )
    return [oid for (oid,) in rows]


async def partition_root(connection: psycopg.AsyncConnection[Any], oid: int) -> tuple[str, str] | None:
    """Schema and name of the topmost partitioned table over this one; None when it is no partition."""
    rows = await fetch(
        connection,
        """
        SELECT n.nspname, c.relname
          FROM pg_class leaf
          JOIN pg_class c ON c.oid = pg_partition_root(leaf.oid)
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE leaf.oid = %s::oid AND leaf.relispartition
        """,
        [oid],
    )
    return (rows[0][0], rows[0][1]) if rows else None


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


async def _columns(connection: psycopg.AsyncConnection[Any], oids: list[int]) -> dict[int, tuple[Column, ...]]:
    rows = await fetch(
        connection,
        """
        SELECT attrelid::bigint, attname, atttypid::bigint, format_type(atttypid, atttypmod), attnotnull,
               attgenerated,
               -- A partitioned table has no TOAST table of its own; a short varchar(n) is never moved there.
               (c.reltoastrelid <> 0 OR c.relkind = 'p') AND attlen = -1 AND attstorage IN ('x', 'e')
               AND NOT (atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod BETWEEN 4 AND 504),
               attcollation::bigint
          FROM pg_attribute
          JOIN pg_class c ON c.oid = attrelid
         WHERE attrelid = ANY (%s::oid[]) AND attnum > 0 AND NOT attisdropped
         ORDER BY attrelid, attnum
        """,
        [oids],
    )
    bases = await base_types(connection, oids)
    found: dict[int, tuple[Column, ...]] = {}
    for oid, *column in rows:
        base = bases.get((oid, column[0]))
        more = (None, ()) if base is None else (base.base_oid, base.enum_labels)
        found[oid] = (*found.get(oid, ()), Column(*column, *more))
    return found


async def _indexes(connection: psycopg.AsyncConnection[Any], oids: list[int]) -> dict[int, tuple[Index, ...]]:
    # The conditions of ALTER TABLE ... REPLICA IDENTITY USING INDEX; only key columns count, not INCLUDE ones.
    rows = await fetch(
        connection,
        """
        SELECT i.indrelid::bigint, c.relname, array_agg(a.attname::text ORDER BY k.place), i.indisprimary,
               i.indisreplident
          FROM pg_index i
          JOIN pg_class c ON c.oid = i.indexrelid
          CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
          LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnum > 0
         WHERE i.indrelid = ANY (%s::oid[]) AND i.indisunique AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
         GROUP BY i.indrelid, c.relname, i.indisprimary, i.indisreplident
        HAVING bool_and(coalesce(a.attnotnull, false))
         ORDER BY i.indisprimary DESC, c.relname
        """,
        [oids],
    )
    found: dict[int, tuple[Index, ...]] = {}
    for oid, name, names, is_primary, is_identity in rows:
        found[oid] = (*found.get(oid, ()), Index(name, tuple(names), is_primary, is_identity))
    return found


def like(name: str) -> str:
    """A name in which ``*`` stands for any text, as a pattern for LIKE … ESCAPE '!'."""
    escaped = name.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return escaped.replace("*", "%")


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)
