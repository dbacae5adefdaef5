"""What the publication leaves out: rules that would see nothing, or less than they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from psycopg import sql

from invalidator.model import Operation
from invalidator.postgres import provision
from invalidator.postgres.catalog import PARTITIONED, Publication, PublishedTable, Table
from invalidator.postgres.provision import Purpose, filters, fitness
from invalidator.preflight.case import Case, Subject, rule_names
from invalidator.preflight.finding import Finding, finding, listed
from invalidator.rules.rule import Rule

_ORDER: Final = ("insert", "update", "delete", "truncate")


def missing_publication(case: Case) -> Iterator[Finding]:
    """There is none of that name."""
    if case.facts.publication is not None:
        return
    name = case.facts.request.publication
    made = provision.plan(case.needs, case.facts.database, case.facts.request)
    wanted = {Purpose.IDENTITY, Purpose.PUBLICATION}
    fix = "\n".join(text for step in made.to_run if step.purpose in wanted for text in step.texts)
    yield finding(
        name,
        case.at_setting("publication"),
        "publication-missing",
        f"there is no publication '{name}' in this database",
        why="Postgres sends nothing without one; the daemon does not start",
        help="or: invalidator setup --apply, which makes the role and the slot too",
        fix=fix or "invalidator setup   (says what keeps each table from being published)",
    )


def unpublished_tables(case: Case) -> Iterator[Finding]:
    """Tables, and partitions of them, whose rows are not sent at all."""
    publication = case.facts.publication
    if publication is None:
        return
    for table, subjects in case.tables.values():
        silent = [part for part in case.facts.parts(table) if not case.facts.is_published(part, publication)]
        if table.kind == PARTITIONED and not case.facts.parts(table):
            silent = [] if case.facts.is_published(table, publication) else [table]
        if not silent:
            continue
        names = table.full_name if silent == [table] else listed([part.full_name for part in silent])
        part_of = "" if silent == [table] else f" (partition of {table.full_name})"
        yield finding(
            table.full_name,
            subjects[0].at_table,
            "not-published",
            f"{names}{part_of} is not in publication '{publication.name}'",
            why=f"{rule_names(subjects)} would never see a change of it, and what they name would stay stale",
            help=_left_out(case, table),
            fix=case.mending(table),
        )


def _left_out(case: Case, table: Table) -> str | None:
    """Why no SQL of ours would publish it."""
    if case.mending(table) is not None:
        return None
    made = provision.plan([need for need in case.needs if need.wants(table)], case.facts.database, case.facts.request)
    texts = [problem.text for problem in made.problems if table.full_name in problem.text]
    return texts[0] if texts else None


def unpublished_operations(case: Case) -> Iterator[Finding]:
    """Events of rules that the publication does not send."""
    publication = case.facts.publication
    if publication is None:
        return
    subjects = [subject for subject in case.subjects if case.facts.wanted(subject.need)]
    needed = publication.operations.union(*(subject.need.operations for subject in subjects))
    published = ", ".join(operation for operation in _ORDER if operation in needed)
    for missing in _ORDER:
        waiting = [subject for subject in subjects if missing in subject.need.operations - publication.operations]
        if not waiting:
            continue
        yield finding(
            f"{publication.name} {missing}",
            case.places.at(waiting[0].rule, "events"),
            "operation-not-published",
            f"publication '{publication.name}' does not publish {missing}",
            why=f"{rule_names(waiting)} would never see one, and what they name would stay stale",
            help="first see to it that each table of the publication has a replica identity: UPDATE fails without one",
            fix=f"{_alter(publication)} SET (publish = '{published}');",
        )


def hidden_columns(case: Case) -> Iterator[Finding]:
    """Columns that a rule reads and a column list leaves out."""
    publication = case.facts.publication
    for subject, table in case.pairs:
        listed_columns = _column_list(case, table, publication)
        known = {column.name for column in table.columns if not column.generated}
        for use in subject.uses:
            if listed_columns is not None and use.column in known and use.column not in listed_columns:
                yield finding(
                    f"{table.full_name} {use.column}",
                    use.at,
                    "column-not-published",
                    f"the column list of {table.full_name} in the publication leaves '{use.column}' out",
                    why="the rule never sees its value and applies its coarse form instead",
                    fix=case.mending(table),
                )


def _column_list(case: Case, table: Table, publication: Publication | None) -> frozenset[str] | None:
    """What all relations of the table send; None: everything."""
    if publication is None:
        return None
    lists = [
        entry.columns
        for relation in {each.oid: each for each in (table, *case.facts.parts(table))}.values()
        if (entry := publication.table(relation.oid)) is not None and entry.columns is not None
    ]
    return frozenset.intersection(*lists) if lists else None


def filtered_rows(case: Case) -> Iterator[Finding]:
    """Tables of which the publication sends only some rows, unless these are all that the rules can fire for."""
    publication = case.facts.publication
    if publication is None:
        return
    for table, subjects in case.tables.values():
        entries = [publication.table(each.oid) for each in (table, *case.facts.parts(table))]
        filtered = [entry for entry in entries if entry is not None and entry.has_row_filter]
        if not filtered:
            continue
        made_of = filters.recorded(publication).get(table.full_name)
        if not filters.is_managed(publication):
            yield _foreign_filter(case, publication, table, subjects, filtered[0])
        elif not filters.passes(made_of, case.facts.wanted_filter(case.needs, table)):
            yield _outdated_filter(case, publication, table, subjects, made_of)


def _foreign_filter(
    case: Case, publication: Publication, table: Table, subjects: list[Subject], entry: PublishedTable
) -> Finding:
    """Somebody's decision: it may leave out what no cache holds."""
    whole = replace(entry, row_filter=None)
    target = fitness.fitted(table, whole, table.identity or frozenset(), is_full=table.replica_identity == "f")
    return finding(
        table.full_name,
        subjects[0].at_table,
        "row-filter",
        f"publication '{publication.name}' sends only those rows of {table.full_name} that its WHERE lets pass",
        severity="warning",
        why=f"{rule_names(subjects)} see nothing of the others",
        help="fine if no cache holds such rows",
        fix=fitness.republished(table, publication.name, (), target) if entry.oid == table.oid else None,
    )


def _outdated_filter(
    case: Case, publication: Publication, table: Table, subjects: list[Subject], made_of: str | None
) -> Finding:
    """One that ``setup`` made for other rules."""
    sent = f"those rows of {table.full_name} where {made_of}" if made_of else f"some rows of {table.full_name}"
    return finding(
        table.full_name,
        subjects[0].at_table,
        "row-filter",
        f"publication '{publication.name}' sends only {sent}, which setup wrote for other rules",
        why=f"{rule_names(subjects)} would never see the others, and what they name would stay stale",
        fix=case.mending(table) or "invalidator setup --apply",
    )


def moved_rows(case: Case) -> Iterator[Finding]:
    """Rules that look at UPDATE alone, and miss the one that moves a row to another partition."""
    for subject, table in case.pairs:
        events = subject.rule.events
        missed = _halves(subject.rule) - events
        if table.kind != PARTITIONED or Operation.UPDATE not in events or not missed:
            continue
        names = " and ".join(operation.value for operation in sorted(missed))
        yield finding(
            table.full_name,
            case.places.at(subject.rule, "events"),
            "partition-move-unseen",
            f"an UPDATE that moves a row of {table.full_name} to another partition is sent as DELETE and INSERT, and"
            f" this rule does not look at {names}",
            severity="warning",
            why="what it names for such a row stays stale",
            help=f"add {names} to events:; fine if no UPDATE ever changes the partition key",
        )


def _halves(rule: Rule) -> set[Operation]:
    """What the names of the row before a move, and of that after it, come with."""
    used = [reference for template in rule.exact.templates for reference in template.references]
    scopes = {reference.scope for reference in used if reference.scope != "meta"}
    found = {Operation.INSERT} if scopes - {"old"} else set[Operation]()
    return found | ({Operation.DELETE} if scopes - {"new"} else set[Operation]())


def published_via_root(case: Case) -> Iterator[Finding]:
    """Partitions that would come under their root's name, as the daemon does not want them."""
    publication = case.facts.publication
    if publication is None or not publication.is_via_root:
        return
    yield finding(
        publication.name,
        case.at_setting("publication"),
        "publication-via-root",
        f"publication '{publication.name}' publishes partitions as their root",
        why="a TRUNCATE of one partition is not sent then, and old values come by an identity that nobody can see; the"
        " daemon refuses to start",
        help="rules name the root all the same: the daemon looks it up",
        fix=f"{_alter(publication)} SET (publish_via_partition_root = false);",
    )


def _alter(publication: Publication) -> str:
    return f"ALTER PUBLICATION {sql.Identifier(publication.name).as_string(None)}"
