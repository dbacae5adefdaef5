"""What the types of columns come down to: domains to their base type, enums to their labels.

A type whose equality is not that of its text (citext, ltree, composite types) and text under a nondeterministic
collation come down to ``OPAQUE_OID``: no comparison of texts can stand for what the database would say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import psycopg

from invalidator.model import Column, Relation
from invalidator.postgres.asking import fetch
from invalidator.postgres.failures import ours

_TEXT_OID = 25

_BASES: LiteralString = """
    WITH RECURSIVE found (relation, name, declared, type, collation_oid) AS (
        SELECT a.attrelid, a.attname, a.atttypid, a.atttypid, a.attcollation
          FROM pg_attribute a
         WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
         UNION ALL
        SELECT f.relation, f.name, f.declared, t.typbasetype, f.collation_oid
          FROM found f JOIN pg_type t ON t.oid = f.type
         WHERE t.typtype = 'd'
    ), bases AS (
        SELECT f.relation::bigint, f.name, f.declared::bigint,
               CASE WHEN t.typtype = 'e' THEN 3500
                    WHEN t.oid >= 16384 OR NOT coalesce(c.collisdeterministic, true) THEN 0
                    ELSE t.oid::bigint END AS base,
               t.oid AS type
          FROM found f JOIN pg_type t ON t.oid = f.type LEFT JOIN pg_collation c ON c.oid = f.collation_oid
         WHERE t.typtype <> 'd'
    )
"""  # 3500 is ENUM_OID, 0 is OPAQUE_OID


@dataclass(frozen=True, slots=True)
class BaseType:
    """What the type of one column comes down to."""

    base_oid: int
    enum_labels: tuple[str, ...]
    """In the order of the declaration; empty for what is no enum."""


async def base_types(
    connection: psycopg.AsyncConnection[Any], oids: Sequence[int]
) -> Mapping[tuple[int, str], BaseType]:
    """The base type of each column of these relations, by the relation's OID and the column's name."""
    rows = await fetch(
        connection,
        _BASES  # noqa: S608  (constants)
        + """
        SELECT relation, name, base,
               ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = type ORDER BY e.enumsortorder)
          FROM bases
        """,
        {"oids": list(oids)},
    )
    return {(oid, name): BaseType(base, tuple(labels)) for oid, name, base, labels in rows}


async def described(
    connection: psycopg.AsyncConnection[Any], oid: int, *, schema: str, table: str, names: Sequence[str]
) -> Relation:
    """The relation with this OID as if the stream had announced just these columns of it, with full identity.

    A column that is not there (any more) is a text. A relation that is not there has the names that are given.

    Args:
        connection: an open connection.
        oid: of the relation; of a partition, the result has the names of its root.
        schema: its name, should there be no such relation any more.
        table: likewise.
        names: of the columns, in the order in which their values come.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    rows = await fetch(
        connection,
        _BASES  # noqa: S608  (constants)
        + """
        SELECT n.nspname, top.relname, b.name, b.declared, b.base
          FROM pg_class c
          JOIN pg_class top ON top.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END
          JOIN pg_namespace n ON n.oid = top.relnamespace
          LEFT JOIN bases b ON true
         WHERE c.oid = ANY (%(oids)s::oid[])
        """,
        {"oids": [oid]},
    )
    if rows:
        schema, table = rows[0][0], rows[0][1]
    types = {name: (declared, base) for _, _, name, declared, base in rows}
    columns = (types.get(name, (_TEXT_OID, None)) for name in names)
    return Relation(
        oid,
        schema,
        table,
        "f",
        tuple(
            Column(name, declared, is_identity=True, base_oid=base)
            for name, (declared, base) in zip(names, columns, strict=True)
        ),
    )


async def completed(connection: psycopg.AsyncConnection[Any], relation: Relation) -> Relation:
    """The relation as the stream announced it, with what the stream does not say: partition root and base types.

    A column that was altered since the announcement keeps its unknown base type: the next announcement is under way.
    """
    rows = await fetch(
        connection,
        _BASES  # noqa: S608  (constants)
        + """
        SELECT n.nspname, root.relname, b.name, b.declared, b.base
          FROM pg_class c
          LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
          LEFT JOIN pg_namespace n ON n.oid = root.relnamespace
          LEFT JOIN bases b ON true
         WHERE c.oid = ANY (%(oids)s::oid[])
        """,
        {"oids": [relation.oid]},
    )
    if rows and rows[0][0] is not None:
        relation = replace(relation, schema=rows[0][0], table=rows[0][1])
    bases = {(name, declared): base for _, _, name, declared, base in rows}
    columns = (replace(column, base_oid=bases.get((column.name, column.type_oid))) for column in relation.columns)
    return replace(relation, columns=tuple(columns))


async def named(
    connection: psycopg.AsyncConnection[Any], names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Relation]:
    """The relations of these names (schema, table), with all columns and full identity; a partition is its root's."""
    try:
        cursor = await connection.execute(_NAMED, [[schema for schema, _ in names], [table for _, table in names]])
        rows = await cursor.fetchall()
    except psycopg.errors.UntranslatableCharacter:
        # The database's encoding cannot hold one of them, so it has no such table; the others are asked for in halves.
        middle = len(names) // 2
        return {**await named(connection, names[:middle]), **await named(connection, names[middle:])} if middle else {}
    except psycopg.Error as error:
        raise ours(error, doing="reading the catalog") from error
    columns: dict[int, list[Column]] = {}
    for oid, name, declared, base in await fetch(connection, _COLUMNS, {"oids": [row[2] for row in rows]}):
        columns.setdefault(oid, []).append(Column(name, declared, is_identity=True, base_oid=base))
    return {
        (schema, table): Relation(oid, top_schema, top, "f", tuple(columns.get(oid, ())))
        for schema, table, oid, top_schema, top in rows
    }


_COLUMNS: LiteralString = _BASES + "SELECT relation, name, declared, base FROM bases"  # noqa: S608  (constants)
_NAMED: LiteralString = """
    SELECT w.schema, w.name, c.oid::bigint, n.nspname, top.relname
      FROM unnest(%s::text[], %s::text[]) AS w (schema, name)
      JOIN pg_namespace own ON own.nspname = w.schema
      JOIN pg_class c ON c.relnamespace = own.oid AND c.relname = w.name
      JOIN pg_class top ON top.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END
      JOIN pg_namespace n ON n.oid = top.relnamespace
"""
