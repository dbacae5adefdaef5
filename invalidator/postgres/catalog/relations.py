"""The relations of a database: which there are, with their columns, indexes and partitions.

Pages: https://www.postgresql.org/docs/current/catalog-pg-class.html and those beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import psycopg

from invalidator.postgres.asking import fetch
from invalidator.postgres.catalog.facts import Column, Index, Table
from invalidator.postgres.catalog.types import base_types

_TABLES: Final[LiteralString] = """
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
"""


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
        _TABLES,
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


async def table_names(connection: psycopg.AsyncConnection[Any]) -> tuple[str, ...]:
    """``schema.table`` of what the database holds, for suggestions."""
    rows = await fetch(
        connection,
        """
        SELECT n.nspname || '.' || c.relname
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           AND n.nspname NOT LIKE 'pg!_toast%' ESCAPE '!' AND n.nspname NOT LIKE 'pg!_temp%' ESCAPE '!'
         ORDER BY 1
         LIMIT 5000
        """,
    )
    return tuple(name for (name,) in rows)


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
