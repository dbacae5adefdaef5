"""What happens to tables without a word in the stream: asked for again and again, and compared.

Postgres sends rows, and TRUNCATE, and triggers write no more. Nobody says when a table leaves or joins the publication,
when a publication is dropped or publishes less, when a trigger is dropped or disabled, when a partition with rows is
attached or detached, when a table is dropped, renamed or made anew, and when ALTER TABLE rewrites a column's values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from invalidator.postgres.asking import fetch
from invalidator.postgres.catalog.relations import like


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What one table was like at one look."""

    oid: int
    published: tuple[str, ...]
    """How it and its partitions are published: each entry changes with the publication's operations, and with the
    table's membership, column list and row filter. With an outbox: the triggers, each of which has another entry when
    it is made anew, altered, disabled or enabled."""
    partitions: Mapping[int, bool]
    """OID of each partition below it, and whether it holds anything."""
    columns: Mapping[int, str]
    """Number of each column, and what changes when it is altered."""


Looked = Mapping[str, TableFacts]
"""``schema.table``, as rules see it, → what it is like."""


async def look(
    connection: psycopg.AsyncConnection[Any], patterns: Sequence[tuple[str, str]], publication: str
) -> Looked:
    """The tables that match one of the patterns, as they are now; a partition counts as part of its root.

    Args:
        connection: an open connection.
        patterns: schema and table, each a raw name in which ``*`` stands for any text.
        publication: whose members count.
    """
    schemas = _SCHEMAS if connection.info.server_version >= 150000 else "'{}'::text[]"
    return await _look(connection, patterns, f"{_PUBLISHED} || {schemas}", publication)


async def look_at_triggers(connection: psycopg.AsyncConnection[Any], patterns: Sequence[tuple[str, str]]) -> Looked:
    """The same for an outbox: what counts are the triggers that write into it."""
    return await _look(connection, patterns, _TRIGGERS, "")


async def _look(
    connection: psycopg.AsyncConnection[Any], patterns: Sequence[tuple[str, str]], ways: str, publication: str
) -> Looked:
    parameters = {"schemas": [like(each) for each, _ in patterns], "tables": [like(each) for _, each in patterns]}
    rows = await fetch(connection, _LOOK.replace("WAYS", ways), parameters | {"name": publication})
    return {name: _facts(*each) for name, *each in rows}


_LOOK = """
        WITH root AS (
            SELECT c.oid, n.nspname, c.relname
              FROM pg_class c
              JOIN pg_namespace n ON n.oid = c.relnamespace
              JOIN unnest(%(schemas)s::text[], %(tables)s::text[]) AS p (schema, name)
                ON n.nspname LIKE p.schema ESCAPE '!' AND c.relname LIKE p.name ESCAPE '!'
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
             GROUP BY 1, 2, 3
        ), member AS (
            SELECT root.oid AS root, c.oid, c.relnamespace, c.relkind
              FROM root JOIN pg_class c ON c.oid = root.oid
            UNION ALL
            SELECT root.oid, c.oid, c.relnamespace, c.relkind
              FROM root, pg_partition_tree(root.oid) AS tree JOIN pg_class c ON c.oid = tree.relid
             WHERE tree.level > 0
        ), published AS (
            SELECT p.oid, p.xmin::text || p.puballtables AS version FROM pg_publication p WHERE pubname = %(name)s
        )
        SELECT root.nspname || '.' || root.relname, root.oid::bigint,
               WAYS,
               (SELECT coalesce(jsonb_object_agg(m.oid, pg_relation_size(m.oid) > 0), '{}')
                  FROM member m WHERE m.root = root.oid AND m.oid <> root.oid AND m.relkind = 'r'),
               (SELECT coalesce(jsonb_object_agg(a.attnum, a.attname || '/' || a.atttypid || '/' || a.xmin), '{}')
                  FROM pg_attribute a WHERE a.attrelid = root.oid AND a.attnum > 0 AND NOT a.attisdropped)
          FROM root
        """

_PUBLISHED = """ARRAY(SELECT p.oid || '/' || p.version || '/' || r.prrelid || '/' || r.oid || '/' || r.xmin
                       FROM published p JOIN pg_publication_rel r ON r.prpubid = p.oid
                       JOIN member m ON m.oid = r.prrelid WHERE m.root = root.oid ORDER BY 1)
               || ARRAY(SELECT 'all/' || p.oid || '/' || p.version FROM published p
                         WHERE p.version LIKE '%%true' ORDER BY 1)"""

_TRIGGER = "trigger"
_TRIGGERS = """ARRAY(SELECT 'trigger/' || m.oid || '/' || t.oid || '/' || t.xmin || '/' || t.tgenabled::text
                       FROM member m JOIN pg_trigger t ON t.tgrelid = m.oid AND NOT t.tgisinternal
                       JOIN pg_proc f ON f.oid = t.tgfoid AND f.pronamespace = 'invalidator'::regnamespace
                      WHERE m.root = root.oid ORDER BY 1)"""

_SCHEMAS = """ARRAY(SELECT 'schema/' || p.oid || '/' || p.version || '/' || s.oid
                       FROM published p JOIN pg_publication_namespace s ON s.pnpubid = p.oid
                      WHERE s.pnnspid IN (SELECT m.relnamespace FROM member m WHERE m.root = root.oid) ORDER BY 1)"""


def _facts(oid: int, published: list[str], partitions: dict[str, bool], columns: dict[str, str]) -> TableFacts:
    return TableFacts(
        oid,
        tuple(sorted(published)),
        {int(number): holds for number, holds in partitions.items()},
        {int(number): text for number, text in columns.items()},
    )


def changes(before: Looked, after: Looked) -> dict[str, str]:
    """The tables of which rows may have changed unseen between two looks, and what happened to each.

    What only came into being holds nothing that could be cached: a new table, a new column, an empty partition.
    """
    found: dict[str, str] = {}
    for name in before.keys() | after.keys():
        reasons = list(_reasons(before.get(name), after.get(name)))
        if reasons:
            found[name] = ", ".join(reasons)
    return dict(sorted(found.items()))


def _reasons(before: TableFacts | None, after: TableFacts | None) -> Iterator[str]:
    if before is None or after is None:
        if before is not None:
            yield "dropped or renamed"
        return
    if before.oid != after.oid:
        yield "made anew"
        return
    yield from _other_ways(before, after)
    gone = before.partitions.keys() - after.partitions.keys()
    come = [oid for oid in after.partitions.keys() - before.partitions.keys() if after.partitions[oid]]
    if gone:
        yield f"{len(gone)} partitions detached or dropped"
    if come:
        yield f"{len(come)} partitions with rows attached"
    if any(after.columns.get(number) != text for number, text in before.columns.items()):
        yield "columns altered"


def _other_ways(before: TableFacts, after: TableFacts) -> Iterator[str]:
    gone, come = set(before.published) - set(after.published), set(after.published) - set(before.published)
    # The triggers of a new partition come after it: as long as it is empty, nothing was written past them.
    new = {str(oid) for oid, holds in after.partitions.items() if oid not in before.partitions and not holds}
    is_of_outbox = any(each.startswith(_TRIGGER) for each in gone | come)
    if gone or any(not is_of_outbox or each.split("/")[1] not in new for each in come):
        is_unpublished = not after.published and not is_of_outbox
        other_way = "its triggers were made anew, altered or disabled" if is_of_outbox else "published in another way"
        yield "not published any more" if is_unpublished else other_way
