"""Whether the application can write: what of a publication does not fit an identity, and SQL that never breaks it.

Every UPDATE and DELETE on a table fails while a publication of them has a column list that leaves out a column of its
replica identity (any list with FULL), a row filter over other columns than these, or, from Postgres 18 on, generated
columns in the identity that it does not send (CheckCmdReplicaIdentity, src/backend/executor/execReplication.c). A
filter counts in its own direction: its columns must be in the identity, which FULL always fulfils.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from invalidator.postgres.catalog import Publication, PublishedTable, Table
from invalidator.postgres.provision.words import GENERATED_COLUMNS, Facts, identifier, published_name

_WRITES = frozenset({"update", "delete"})


@dataclass(frozen=True, slots=True)
class Misfit:
    """A publication because of which UPDATE and DELETE on a table fail."""

    publication: Publication
    entry: PublishedTable | None
    """What names the table there; None: it is published with all tables or with its schema."""
    reason: str
    """As in ``its column list leaves out 'slug'``."""
    unsent: frozenset[str] = frozenset()
    """Generated columns of the identity that it does not send: that, and no list, is what does not fit."""


def misfits(table: Table, tables: Mapping[int, Table], facts: Facts) -> Iterator[Misfit]:
    """The publications whose list or filter does not fit the identity that the table has.

    Args:
        table: an ordinary table or a partition.
        tables: by OID; where the tables over a partition are found.
        facts: the database.
    """
    if table.identity is None:
        return  # that no publication of updates could fit is another matter
    over = _ancestors(table, tables)
    for publication in facts.publications.values():
        if not publication.operations & _WRITES:
            continue
        entry = _entry(table, over, publication)
        reason = _reason(table, entry)
        unsent = _unsent(table, entry, publication, facts)
        if reason is not None:
            yield Misfit(publication, entry, reason)
        elif unsent:
            reason = f"it does not send the generated {_quoted(unsent)}, a part of the identity"
            yield Misfit(publication, entry, reason, unsent)


def publishers(table: Table, tables: Mapping[int, Table], facts: Facts) -> list[Publication]:
    """The publications that send updates or deletes of a table, by its own name or by one over it."""
    over = [table, *_ancestors(table, tables)]
    return [
        publication
        for publication in facts.publications.values()
        if publication.operations & _WRITES
        and (
            publication.is_for_all_tables
            or any(publication.table(each.oid) is not None or each.schema in publication.schemas for each in over)
        )
    ]


def _ancestors(table: Table, tables: Mapping[int, Table]) -> list[Table]:
    found: list[Table] = []
    at = tables.get(table.parent_oid or table.root_oid or 0)
    while at is not None:
        found.append(at)
        at = tables.get(at.parent_oid or 0)
    return found


def _entry(table: Table, over: list[Table], publication: Publication) -> PublishedTable | None:
    """By which entry Postgres judges: the topmost one with publish_via_partition_root, else the table's own."""
    if publication.is_via_root:
        for each in reversed(over):
            if (entry := publication.table(each.oid)) is not None:
                return entry
    return publication.table(table.oid)


def _reason(table: Table, entry: PublishedTable | None) -> str | None:
    identity = table.identity or frozenset[str]()
    is_full = table.replica_identity == "f"
    if entry is not None and entry.columns is not None:
        if is_full:
            return "it has a column list, which REPLICA IDENTITY FULL does not allow"
        if identity - entry.columns:
            return f"its column list leaves out {_quoted(identity - entry.columns)}, a part of the identity"
    if entry is not None and not is_full and entry.filter_columns - identity:
        return f"its row filter reads {_quoted(entry.filter_columns - identity)}, no part of the identity"
    return None


def _unsent(table: Table, entry: PublishedTable | None, publication: Publication, facts: Facts) -> frozenset[str]:
    """Generated columns of the identity that the publication does not send; older servers do not mind."""
    is_published = entry is not None or publication.is_for_all_tables or table.schema in publication.schemas
    if (
        facts.server.version < GENERATED_COLUMNS
        or not is_published
        or (entry is not None and entry.columns is not None)
    ):
        return frozenset()
    unsent = {"v"} if publication.sends_generated else {"v", "s"}
    generated = frozenset(column.name for column in table.columns if column.generated in unsent)
    return generated & (table.identity or frozenset())


def republished(table: Table, publication: str, between: Iterable[str], target: sql.Composable | None = None) -> str:
    """SQL that runs statements while the table is in no list: as one transaction no change is missed and nobody fails.

    Args:
        table: named one by one in that publication.
        publication: its name.
        between: what to run, each with its semicolon.
        target: the table as it is to be published then; None: whole.
    """
    target = published_name(table) if target is None else target
    add = sql.SQL("ALTER PUBLICATION {} ADD TABLE {};").format(sql.Identifier(publication), target).as_string(None)
    return " ".join(("BEGIN;", removed(table, publication), *between, add, "COMMIT;"))


def mended(table: Table, misfit: Misfit) -> str | None:
    """SQL after which that publication fits the table's identity, and sends no less; None: no SQL of ours does it."""
    entry, publication = misfit.entry, misfit.publication
    if misfit.unsent:
        is_sendable = all(column.generated == "s" for column in table.columns if column.name in misfit.unsent)
        alter = sql.SQL("ALTER PUBLICATION {} SET (publish_generated_columns = stored);")
        return alter.format(sql.Identifier(publication.name)).as_string(None) if is_sendable else None
    if entry is None or entry.oid != table.oid:
        return None
    is_full = table.replica_identity == "f"
    target = fitted(table, entry, table.identity or frozenset(), is_full=is_full)
    return republished(table, publication.name, (), target)


def fitted(table: Table, entry: PublishedTable, identity: frozenset[str], *, is_full: bool) -> sql.Composable:
    """The table as FOR TABLE names it, with as much of its list and filter as fits an identity."""
    target: sql.Composable = published_name(table)
    if entry.columns is not None and not is_full:
        names = [sql.Identifier(column.name) for column in table.columns if column.name in entry.columns | identity]
        target = sql.SQL("{} ({})").format(target, sql.SQL(", ").join(names))
    if entry.row_filter is not None and (is_full or entry.filter_columns <= identity):
        target = sql.SQL("{} WHERE ({})").format(target, sql.SQL(entry.row_filter))
    return target


def removed(table: Table, publication: str) -> str:
    """The table leaves a publication that names it."""
    drop = sql.SQL("ALTER PUBLICATION {} DROP TABLE {};")
    return drop.format(sql.Identifier(publication), published_name(table)).as_string(None)


def altered(table: Table, clause: sql.Composable) -> str:
    """ALTER TABLE … REPLICA IDENTITY with its semicolon."""
    return sql.SQL("ALTER TABLE {} REPLICA IDENTITY {};").format(identifier(table), clause).as_string(None)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
