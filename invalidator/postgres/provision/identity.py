"""Which replica identity a table should have so that the rules see old values and the application can still write.

What Postgres refuses, found in CheckCmdReplicaIdentity (src/backend/executor/execReplication.c): UPDATE and DELETE on a
published table without identity; with a column list or row filter that does not fit the identity, in *any* publication;
and, from 18 on, with generated columns in the identity that are not published (virtual ones never are).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from invalidator.postgres.catalog import Publication, PublishedTable, Table
from invalidator.postgres.provision import filters, fitness
from invalidator.postgres.provision.words import GENERATED_COLUMNS, Facts, Finding, Mark, Request, Step, identifier
from invalidator.postgres.provision.words import Purpose as For


@dataclass(frozen=True, slots=True)
class Identity:
    """A replica identity that a table has or could have."""

    columns: frozenset[str]
    clause: sql.Composable
    """What stands behind REPLICA IDENTITY."""
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of one table's identity."""

    identity: Identity | None
    """None: it has none and gets none, so it must not be published."""
    change: Step | None = None
    findings: tuple[Finding, ...] = ()
    offer: Identity | None = None
    """One that would serve, if tables might be altered: what mends the findings."""


def choose(table: Table, old_columns: frozenset[str], rules: str, facts: Facts, request: Request) -> Choice:
    """Keep the identity if it serves, else take the smallest one that does.

    Args:
        table: an ordinary table or a partition.
        old_columns: whose old values the rules need.
        rules: the names of those rules, for messages.
        facts: the database.
        request: what is wanted.
    """
    current = identity_of(table)
    if current is not None and old_columns <= current.columns:
        return Choice(current)
    blockers = sorted({name for option in _options(table) for name in _blockers(table, option, facts, request)})
    usable = [option for option in _options(table) if fits(table, option, facts, request)]
    better = next((option for option in usable if old_columns <= option.columns), None)
    if better is None and current is None:
        better = next(iter(usable), None)
    if better is None or not request.may_alter_tables:
        return _left(table, current, old_columns, rules, better, blockers)
    missing = f"old {_listed(old_columns - current.columns)}" if current is not None else "a way to name its rows"
    why = f"{rules} needs {missing}" if current is not None else f"{table.full_name} needs {missing} to be published"
    change = Step(
        For.IDENTITY,
        (alteration(table, better),),
        why,
        note=_undoing(table, better, facts, request),
        marks=(_mark(table, better),),
    )
    findings: tuple[Finding, ...] = ()
    if not old_columns <= better.columns:
        findings = (_widening(table, old_columns - better.columns, rules),)
    return Choice(better, change, findings)


def alteration(table: Table, identity: Identity) -> sql.Composed:
    """ALTER TABLE for that identity."""
    return sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(identifier(table), identity.clause)


def _mark(table: Table, identity: Identity) -> Mark:
    now = {"d": "DEFAULT", "n": "NOTHING", "f": "FULL", "i": "USING INDEX"}.get(table.replica_identity, "?")
    chosen = next((index.name for index in table.indexes if index.is_replica_identity), None)
    if table.replica_identity == "i":
        now += f' "{chosen}"' if chosen else " (dropped)"
    return Mark("~", f"replica identity of {table.full_name}", f"{now}, wanted {identity.clause.as_string(None)}")


def _undoing(table: Table, identity: Identity, facts: Facts, request: Request) -> str:
    """What a later change of the table must not do, and the way back, in which no UPDATE fails."""
    before = "DEFAULT" if table.replica_identity in {"d", "i"} else {"n": "NOTHING"}.get(table.replica_identity, "FULL")
    back = fitness.altered(table, sql.SQL(before))
    published = next((other for other in facts.tables if other.oid == table.root_oid), table)
    existing = facts.publications.get(request.publication)
    is_named = existing is None or not (existing.is_for_all_tables or table.schema in existing.schemas)
    if before == "NOTHING" or (before == "DEFAULT" and not table.primary_key):
        leave = f"{fitness.removed(published, request.publication)} " if is_named else ""
        way = f"only after it has left every publication of updates, or else UPDATE and DELETE fail: {leave}{back}"
    elif published is table and is_named:
        way = fitness.republished(table, request.publication, [back])
    else:
        way = back
    if identity.is_full or not identity.clause.as_string(None).startswith("USING"):
        return f"undo: {way}"
    return (
        f"while it is so, DROP {identity.clause.as_string(None).removeprefix('USING ')} would leave the table without"
        f" replica identity, and every UPDATE and DELETE on it would fail; first: {way}"
    )


def _left(
    table: Table,
    current: Identity | None,
    old_columns: frozenset[str],
    rules: str,
    better: Identity | None,
    blockers: list[str],
) -> Choice:
    if current is not None:
        return Choice(current, None, (_widening(table, old_columns - current.columns, rules, blockers),), better)
    text = (
        f"{table.full_name} has no usable replica identity: publishing it would make every UPDATE and DELETE on it fail"
    )
    if blockers:
        text += f"; none can be set, because of column lists or row filters in {_listed(blockers)}"
    elif better is None and _has_virtual(table):
        text += "; FULL is impossible, because Postgres never sends virtual generated columns"
    add_key = f"ALTER TABLE {identifier(table).as_string(None)} ADD PRIMARY KEY (…);"
    return Choice(None, None, (Finding(text + f" (left out; {rules} sees nothing of it)", add_key),), better)


def _widening(table: Table, missing: frozenset[str], rules: str, blockers: list[str] | None = None) -> Finding:
    text = (
        f"old {_listed(missing)} of {table.full_name} will not be sent: {rules} applies its coarse form"
        " whenever it needs them"
    )
    if blockers:
        text += f" (a wider identity does not fit the column lists or row filters in {_listed(blockers)})"
    return Finding(text)


def identity_of(table: Table) -> Identity | None:
    """What names the table's rows now; None: nothing that UPDATE and DELETE could be published with."""
    columns = table.identity
    if columns is None or (table.replica_identity == "f" and _has_virtual(table)):
        return None
    clause: sql.Composable = sql.SQL("FULL" if table.replica_identity == "f" else "DEFAULT")
    return Identity(columns, clause, is_full=table.replica_identity == "f")


def _options(table: Table) -> Iterator[Identity]:
    """All that the table could have, the cheapest first."""
    if table.primary_key:
        yield Identity(frozenset(table.primary_key), sql.SQL("DEFAULT"))
    for index in sorted(table.indexes, key=lambda index: (len(index.columns), index.name)):
        if not index.is_primary:
            clause = sql.SQL("USING INDEX {}").format(sql.Identifier(index.name))
            yield Identity(frozenset(index.columns), clause)
    if (whole := full(table)) is not None:
        yield whole


def full(table: Table) -> Identity | None:
    """The whole row; None where Postgres cannot send it."""
    if _has_virtual(table):
        return None
    return Identity(frozenset(column.name for column in table.columns), sql.SQL("FULL"), is_full=True)


def fits(table: Table, identity: Identity, facts: Facts, request: Request) -> bool:
    """Whether no publication, but for ours, which is set anew with it, would make UPDATE fail with that identity."""
    return not _blockers(table, identity, facts, request)


def _blockers(table: Table, identity: Identity, facts: Facts, request: Request) -> list[str]:
    """The publications that would not fit that identity, so that UPDATE fails."""
    return [
        publication.name
        for publication in facts.publications.values()
        if publication.operations & {"update", "delete"}
        and (
            _has_unfit_entry(table, identity, publication, is_ours=publication.name == request.publication)
            or (
                facts.server.version >= GENERATED_COLUMNS
                and publication.name != request.publication  # ours is told to send them
                and _hides_generated(table, identity, publication)
            )
        )
    ]


def _has_unfit_entry(table: Table, identity: Identity, publication: Publication, *, is_ours: bool) -> bool:
    for entry in _entries(table, publication):
        # Our own list and filter of an ordinary table are set anew in the same transaction.
        is_renewed = is_ours and table.root_oid is None
        if entry.has_row_filter and not (is_renewed and filters.is_managed(publication)):
            return True  # which columns it reads is not in the catalog in a form worth parsing
        if entry.columns is not None and not is_renewed and (identity.is_full or not identity.columns <= entry.columns):
            return True
    return False


def _hides_generated(table: Table, identity: Identity, publication: Publication) -> bool:
    generated = {column.name for column in table.columns if column.generated} & identity.columns
    entries = _entries(table, publication)
    is_published = bool(entries) or publication.is_for_all_tables or table.schema in publication.schemas
    has_list = any(entry.columns is not None for entry in entries)
    return bool(generated) and is_published and not publication.sends_generated and not has_list


def _entries(table: Table, publication: Publication) -> list[PublishedTable]:
    found = (publication.table(oid) for oid in (table.oid, table.root_oid) if oid is not None)
    return [entry for entry in found if entry is not None]


def _has_virtual(table: Table) -> bool:
    return any(column.generated == "v" for column in table.columns)


def _listed(names: frozenset[str] | list[str]) -> str:
    return ", ".join(sorted(names))
