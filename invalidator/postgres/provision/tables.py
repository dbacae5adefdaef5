"""How each table of the rules is published, or why it is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from invalidator.postgres.catalog import KINDS, ORDINARY, PARTITIONED, Table
from invalidator.postgres.provision import filters, fitness
from invalidator.postgres.provision.identity import Choice, choose, fits, full, identity_of
from invalidator.postgres.provision.missing import missing_tables, similar
from invalidator.postgres.provision.words import (
    COLUMN_LISTS,
    GENERATED_COLUMNS,
    OPERATIONS,
    Facts,
    Finding,
    Need,
    Request,
    Step,
    identifier,
    published_name,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A table that is to be published."""

    table: Table
    required: frozenset[str]
    """What a column list must name: the rules' columns and the replica identity."""
    listed: frozenset[str] | None
    """The column list; None: no list is possible or none is worth it."""
    changes: tuple[Step, ...]
    """ALTER TABLE … REPLICA IDENTITY, of the table or of its partitions."""
    rows: str | None = None
    """The row filter; None: all rows."""

    @property
    def target(self) -> sql.Composable:
        """The table as FOR TABLE names it, with its column list in the table's order, and its row filter."""
        target = published_name(self.table)
        if self.listed is not None:
            names = [sql.Identifier(column.name) for column in self.table.columns if column.name in self.listed]
            target = sql.SQL("{} ({})").format(target, sql.SQL(", ").join(names))
        if self.rows is not None:
            target = sql.SQL("{} WHERE ({})").format(target, sql.SQL(self.rows))
        return target


def entries(
    needs: tuple[Need, ...], facts: Facts, request: Request, operations: frozenset[str] = OPERATIONS
) -> tuple[list[Entry], list[Finding]]:
    """Decide for each table that a rule is about.

    A need that fits no table is a finding, as is a table that must be left out.

    Args:
        needs: of all rules.
        facts: the database.
        request: what is wanted.
        operations: what the publication publishes, or will.
    """
    decided: list[Entry] = []
    findings = missing_tables(needs, facts.tables, facts.table_names)
    for table in facts.tables:
        wanted = tuple(need for need in needs if need.wants(table))
        if not wanted:
            continue
        refusal = _refusal(table, wanted, facts)
        if refusal is not None:
            findings.extend(refusal)
            continue
        entry, more = _entry(table, wanted, facts, request, operations)
        findings.extend(more)
        if entry is not None:
            decided.append(entry)
    return decided, findings


def _refusal(table: Table, needs: tuple[Need, ...], facts: Facts) -> list[Finding] | None:
    """Why a relation cannot be published; None when it can. Globs pass over such relations in silence."""
    rules = _rules(needs)
    root = next((other for other in facts.tables if other.oid == table.root_oid), None)
    if table.root_oid is not None:
        deaf = tuple(need for need in needs if need.is_exact or root is None or not need.wants(root))
        text = (
            f"{table.full_name} is a partition: its rows come under the partitioned table's name, not to {_rules(deaf)}"
        )
        return [Finding(text, "name the partitioned table in the rule")] if deaf else []
    if table.kind not in {ORDINARY, PARTITIONED}:
        text = (
            f"{table.full_name} is a {KINDS.get(table.kind, 'relation')}: it writes no changes that {rules} could see"
        )
        return [Finding(text, "name the tables behind it")] if any(need.is_exact for need in needs) else []
    if not table.is_permanent:
        text = f"{table.full_name} is unlogged: it writes no WAL, so {rules} sees nothing of it"
        name = identifier(table).as_string(None)
        return [Finding(text, f"ALTER TABLE {name} SET LOGGED;")] if any(need.is_exact for need in needs) else []
    return None


def _entry(
    table: Table, needs: tuple[Need, ...], facts: Facts, request: Request, operations: frozenset[str]
) -> tuple[Entry | None, list[Finding]]:
    columns: frozenset[str] = frozenset().union(*(need.columns for need in needs))
    known = frozenset(column.name for column in table.columns)
    findings = _column_findings(table, needs, facts)
    choices, more = _choices(table, needs, facts, request, operations)
    findings += more
    if choices is None:
        return None, findings
    changes = tuple(choice.change for choice in choices if choice.change is not None)
    identities = [choice.identity.columns for choice in choices if choice.identity is not None]
    if table.kind == PARTITIONED and table.identity is not None and not identities:
        identities = [table.identity]  # it has no partition yet
    identity = known.intersection(*identities) if identities else frozenset[str]()
    required = (columns & known) | identity
    listed = _list(table, required, choices, facts, request)
    if table.has_children:
        text = f"other tables inherit from {table.full_name}: their rows come under other names, not to {_rules(needs)}"
        findings.append(Finding(text, "name those tables in rules of their own", is_problem=False))
    rows = filters.settled(table, filters.lossless(table, needs, identity, operations, facts), facts, request)
    entry = Entry(table, required, listed, changes, rows)
    return entry, findings + _comparison_findings(entry, needs, identity, facts, request)


def _choices(
    table: Table, needs: tuple[Need, ...], facts: Facts, request: Request, operations: frozenset[str]
) -> tuple[list[Choice] | None, list[Finding]]:
    """The replica identity of the table, or of each partition; None: it must be left out."""
    parts = [part for part in facts.tables if part.root_oid == table.oid and part.kind == ORDINARY]
    members = parts if table.kind == PARTITIONED else [table]
    if not operations & {"update", "delete"}:  # then Postgres asks for none
        return [Choice(current) for member in members if (current := identity_of(member)) is not None], []
    if table.kind == PARTITIONED and table.identity is None:
        return None, [_without_key(table, needs)]
    known = frozenset(column.name for column in table.columns)
    old = frozenset[str]().union(*(need.old_columns for need in needs)) & known
    choices = [choose(member, old, _rules(needs), facts, request) for member in members]
    offered = [finding for choice in choices if choice.offer is not None for finding in choice.findings]
    fix = _if_allowed(table, needs, facts, request, operations) if offered else None
    findings = [
        finding if choice.offer is None else replace(finding, fix=fix)
        for choice in choices
        for finding in choice.findings
    ]
    return (None if any(choice.identity is None for choice in choices) else choices), findings


def _if_allowed(
    table: Table, needs: tuple[Need, ...], facts: Facts, request: Request, operations: frozenset[str]
) -> str | None:
    """What ``setup`` would do with the table if it might alter it, as SQL that never makes an UPDATE fail."""
    entry, _ = _entry(table, needs, facts, replace(request, may_alter_tables=True), operations)
    if entry is None:
        return None
    alterations = [text for change in entry.changes for text in change.texts]
    return _altered(entry, alterations, facts, request)


def _altered(entry: Entry, alterations: list[str], facts: Facts, request: Request) -> str:
    """These ALTER TABLE, in one transaction with the table's entry if that may have a list or filter."""
    existing = facts.publications.get(request.publication)
    is_open = existing is not None and (existing.is_for_all_tables or entry.table.schema in existing.schemas)
    if entry.table.kind != ORDINARY or facts.server.version < COLUMN_LISTS or is_open:
        return "\n".join(alterations)
    return fitness.republished(entry.table, request.publication, alterations, entry.target)


def _list(
    table: Table, required: frozenset[str], choices: list[Choice], facts: Facts, request: Request
) -> frozenset[str] | None:
    """The shortest column list that is allowed; None when there is none or it would name everything."""
    version = facts.server.version
    publication = facts.publications.get(request.publication)
    if version < COLUMN_LISTS or table.kind == PARTITIONED:  # without via_root Postgres takes no list for these
        return None
    if publication is not None and (publication.schemas or publication.is_for_all_tables):
        return None
    if any(choice.identity is not None and choice.identity.is_full for choice in choices):
        return None  # any list with FULL makes UPDATE fail
    generated = frozenset(column.name for column in table.columns if column.generated)
    stored = frozenset(column.name for column in table.columns if column.generated == "s")
    identity = required.intersection(*(choice.identity.columns for choice in choices if choice.identity is not None))
    if version < GENERATED_COLUMNS and identity & generated:
        return None  # a list may not name it, and must
    listed = required - (generated if version < GENERATED_COLUMNS else generated - stored)
    sendable = frozenset(column.name for column in table.columns) - generated
    return None if not listed or sendable <= listed else listed


def _column_findings(table: Table, needs: tuple[Need, ...], facts: Facts) -> list[Finding]:
    known = {column.name: column for column in table.columns}
    findings = []
    for need in needs:
        for name in sorted(need.columns):
            column = known.get(name)
            where = f"rule '{need.rule}' ({need.place})"
            if column is None:
                text = f"{where}: {table.full_name} has no column '{name}'"
                findings.append(Finding(text, similar(name, known)))
            elif column.generated == "v" or (column.generated and facts.server.version < GENERATED_COLUMNS):
                text = f"{where}: '{name}' of {table.full_name} is a generated column, which Postgres does not send"
                findings.append(Finding(text, "use the columns that it is made of"))
    return findings


def _comparison_findings(
    entry: Entry, needs: tuple[Need, ...], identity: frozenset[str], facts: Facts, request: Request
) -> list[Finding]:
    table = entry.table
    lacking = [need for need in needs if need.compared - identity]
    fix = _made_full(entry, facts, request) if lacking else None
    return [
        Finding(
            f"rule '{need.rule}' ({need.place}) asks for old {', '.join(sorted(need.compared - identity))} of"
            f" {table.full_name}, which will not be sent: it fires for every UPDATE that could be meant",
            f"{fix}   -- if that is too often" if fix else None,
            is_problem=False,
        )
        for need in lacking
    ]


def _made_full(entry: Entry, facts: Facts, request: Request) -> str | None:
    """FULL for the table or each of its partitions; None where that is impossible or would break a writer."""
    table = entry.table
    members = [table]
    if table.kind == PARTITIONED:
        members = [part for part in facts.tables if part.root_oid == table.oid and part.kind == ORDINARY]
    for member in members:
        whole = full(member)
        if whole is None or not fits(member, whole, facts, request):
            return None
    alterations = [fitness.altered(member, sql.SQL("FULL")) for member in members]
    return _altered(replace(entry, listed=None), alterations, facts, request) if members else None


def _without_key(table: Table, needs: tuple[Need, ...]) -> Finding:
    text = (
        f"{table.full_name} is partitioned and has no primary key: a partition made later would have no replica"
        f" identity, and every UPDATE on it would fail (left out; {_rules(needs)} sees nothing of it)"
    )
    return Finding(text, f"ALTER TABLE {identifier(table).as_string(None)} ADD PRIMARY KEY (…);")


def _rules(needs: tuple[Need, ...]) -> str:
    names = sorted({need.rule for need in needs})
    return f"rule{'s' if len(names) > 1 else ''} " + ", ".join(f"'{name}'" for name in names)
