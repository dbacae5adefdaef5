"""The publication that the rules need: made, or altered so that no change is missed and no UPDATE fails meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from psycopg import sql

from invalidator.postgres.catalog import Publication, PublishedTable
from invalidator.postgres.provision import filters
from invalidator.postgres.provision.tables import Entry
from invalidator.postgres.provision.words import (
    GENERATED_COLUMNS,
    Facts,
    Finding,
    Mark,
    Need,
    Plan,
    Purpose,
    Request,
    Step,
    published_name,
)

_ORDER = ("insert", "update", "delete", "truncate")


def wanted_operations(needs: Iterable[Need]) -> frozenset[str]:
    """What the rules look at. TRUNCATE is always among it: it costs nothing until there is one."""
    return frozenset({"truncate"}).union(*(need.operations for need in needs))


def operations(needs: Iterable[Need], facts: Facts, request: Request) -> frozenset[str]:
    """What the publication will publish: never less than now."""
    existing = facts.publications.get(request.publication)
    wanted = wanted_operations(needs)
    return wanted if existing is None else wanted | existing.operations


def publish_clause(published: frozenset[str]) -> str:
    """The value of the parameter ``publish``."""
    return ", ".join(word for word in _ORDER if word in published)


def publication_plan(decided: list[Entry], needs: Sequence[Need], facts: Facts, request: Request) -> Plan:
    """The steps for identities and publication."""
    existing = facts.publications.get(request.publication)
    if existing is not None:
        return _Alteration(existing, decided, facts, wanted_operations(needs)).plan()
    changes = [change for entry in decided for change in entry.changes]
    if not decided:
        finding = Finding(f"there is no table to publish: publication '{request.publication}' is not made")
        return Plan(tuple(changes), (finding,))
    return Plan((*changes, _creation(decided, facts, request, wanted_operations(needs))))


def _creation(decided: list[Entry], facts: Facts, request: Request, wanted: frozenset[str]) -> Step:
    name = sql.Identifier(request.publication)
    statement = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(
        name, sql.SQL(", ").join(entry.target for entry in decided)
    )
    parameters: list[sql.Composable] = []
    if wanted != frozenset(_ORDER):
        parameters.append(sql.SQL("publish = {}").format(sql.Literal(publish_clause(wanted))))
    if facts.server.version >= GENERATED_COLUMNS:
        # An unpublished stored generated column in an identity would make the application's UPDATE fail.
        parameters.append(sql.SQL("publish_generated_columns = stored"))
    if parameters:
        statement += sql.SQL(" WITH ({})").format(sql.SQL(", ").join(parameters))
    conditions = {entry.table.full_name: entry.rows for entry in decided if entry.rows is not None}
    statements = (statement, made_comment(request.publication, conditions))
    return Step(
        Purpose.PUBLICATION,
        statements,
        "the rules' tables, with the columns that they need",
        note=_note(decided, request.publication),
        marks=(
            Mark("+", f"publication {request.publication}", publish_clause(wanted)),
            *(Mark("+", _what(entry, request.publication), _shape(entry)) for entry in decided),
        ),
    )


class _Alteration:
    """What becomes of a publication that is there."""

    def __init__(self, existing: Publication, decided: list[Entry], facts: Facts, wanted: frozenset[str]) -> None:
        self._existing = existing
        self._decided = decided
        self._facts = facts
        self._wanted = wanted
        self._conditions = filters.recorded(existing)
        """What the comment says; changed with each step that changes a filter."""
        self._kept: list[Mark] = []

    def plan(self) -> Plan:
        steps: list[Step] = []
        if self._needs_generated():
            alter = sql.SQL("ALTER PUBLICATION {} SET (publish_generated_columns = stored)").format(self._name)
            mark = Mark("~", self._title, "publish_generated_columns = none, wanted stored")
            steps.append(Step(Purpose.PUBLICATION, (alter,), "stored generated columns", marks=(mark,)))
        added: list[Entry] = []
        for entry in self._decided:
            steps += self._entry_steps(entry, added)
        if added:
            steps.append(self._addition(added))
        widening, findings = self._operations()
        return Plan((*steps, *widening), (*findings, *self._findings()), tuple(self._kept))

    @property
    def _name(self) -> sql.Identifier:
        return sql.Identifier(self._existing.name)

    @property
    def _title(self) -> str:
        return f"publication {self._existing.name}"

    def _entry_steps(self, entry: Entry, added: list[Entry]) -> list[Step]:
        existing = self._existing
        published = existing.table(entry.table.oid)
        if published is None and not (existing.is_for_all_tables or entry.table.schema in existing.schemas):
            added.append(entry)
            return list(entry.changes)
        if published is not None and self._must_renew(published, entry):
            return [self._renewal(published, entry)]
        self._kept.append(Mark("=", _what(entry, existing.name), _shape(entry)))
        return list(entry.changes)

    def _must_renew(self, published: PublishedTable, entry: Entry) -> bool:
        """Whether the table's entry hides something, would make UPDATE fail, or carries more than is needed.

        A list that is wider than needed was somebody's choice, and stays; so does a filter that is not ours.
        """
        if published.has_row_filter and not filters.is_managed(self._existing):
            return False
        if self._conditions.get(entry.table.full_name) != entry.rows or published.has_row_filter != bool(entry.rows):
            return True
        if published.columns is None or entry.listed is None:
            return published.columns != entry.listed
        return not entry.listed <= published.columns

    def _renewal(self, published: PublishedTable, entry: Entry) -> Step:
        """Take the table out and put it back in one transaction: no change is missed, no UPDATE meets a wrong list."""
        drop = sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(self._name, published_name(entry.table))
        add = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(self._name, entry.target)
        changes = tuple(statement for change in entry.changes for statement in change.statements)
        is_filter = published.has_row_filter or entry.rows is not None
        why = [f"another column list{' or row filter' if is_filter else ''}", *(change.why for change in entry.changes)]
        before = f"{_columns(published.columns)}{_where(published.row_filter)}, wanted {_shape(entry)}"
        return Step(
            Purpose.PUBLICATION,
            (drop, *changes, add, *self._recording([entry])),
            "; ".join(why),
            note=_note([entry], self._existing.name),
            marks=(
                Mark("~", _what(entry, self._existing.name), before),
                *(mark for change in entry.changes for mark in change.marks),
            ),
        )

    def _addition(self, added: list[Entry]) -> Step:
        add = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
            self._name, sql.SQL(", ").join(entry.target for entry in added)
        )
        marks = tuple(Mark("+", _what(entry, self._existing.name), _shape(entry)) for entry in added)
        why = "tables that it does not hold yet"
        note = _note(added, self._existing.name)
        return Step(Purpose.PUBLICATION, (add, *self._recording(added)), why, note=note, marks=marks)

    def _recording(self, changed: list[Entry]) -> tuple[sql.Composed, ...]:
        before = dict(self._conditions)
        for entry in changed:
            self._conditions.pop(entry.table.full_name, None)
            if entry.rows is not None:
                self._conditions[entry.table.full_name] = entry.rows
        if before == self._conditions:
            return ()
        return (
            _comment(self._existing.name, filters.record(self._conditions, is_made=filters.is_made(self._existing))),
        )

    def _needs_generated(self) -> bool:
        if self._facts.server.version < GENERATED_COLUMNS or self._existing.sends_generated:
            return False
        return any(
            column.generated == "s" and column.name in entry.required
            for entry in self._decided
            if entry.listed is None
            for column in entry.table.columns
        )

    def _operations(self) -> tuple[list[Step], list[Finding]]:
        """Publish what rules look at and it does not, if each of its tables is known to bear that."""
        existing = self._existing
        missing = self._wanted - existing.operations
        if not missing:
            self._kept.append(Mark("=", self._title, publish_clause(existing.operations)))
            return [], []
        clause = publish_clause(existing.operations | self._wanted)
        statement = sql.SQL("ALTER PUBLICATION {} SET (publish = {})").format(self._name, sql.Literal(clause))
        known = {entry.table.oid for entry in self._decided}
        is_open = existing.is_for_all_tables or bool(existing.schemas)
        if is_open or any(
            table.oid not in known or (table.has_row_filter and not filters.is_managed(existing))
            for table in existing.tables
        ):
            text = f"publication '{existing.name}' does not publish {', '.join(sorted(missing))}"
            fix = f"{statement.as_string(None)};   -- first make sure that each of its tables has a replica identity"
            self._kept.append(Mark("~", self._title, f"{publish_clause(existing.operations)}, wanted {clause}"))
            return [], [Finding(text, fix)]
        mark = Mark("~", self._title, f"{publish_clause(existing.operations)}, wanted {clause}")
        why = f"rules look at {', '.join(sorted(missing))}"  # last: now each of its tables has what that takes
        return [Step(Purpose.PUBLICATION, (statement,), why, marks=(mark,))], []

    def _findings(self) -> list[Finding]:
        existing = self._existing
        findings = []
        if existing.is_via_root and any(entry.table.kind == "p" for entry in self._decided):
            text = f"publication '{existing.name}' publishes via the root: a TRUNCATE of one partition is not sent"
            fix = f"ALTER PUBLICATION {self._name.as_string(None)} SET (publish_via_partition_root = false);"
            findings.append(Finding(text, fix, is_problem=False))
        wanted = {entry.table.oid: entry for entry in self._decided}
        for published in existing.tables:
            entry = wanted.get(published.oid)
            if entry is not None and published.has_row_filter and not filters.is_managed(existing):
                text = f"publication '{existing.name}' filters the rows of {entry.table.full_name}: others stay unseen"
                findings.append(Finding(text, is_problem=False))
        unused = [table for table in existing.tables if table.oid not in wanted]
        if unused:
            what = f"{len(unused)} table(s) that no rule needs"
            text = f"publication '{existing.name}' holds {what}: their changes cost bytes"
            findings.append(Finding(text, is_problem=False))
        for table in unused:
            self._kept.append(Mark("-", f"table {table.name} in publication {existing.name}", "no rule needs it"))
        return findings


def made_comment(publication: str, conditions: Mapping[str, str] | None = None) -> sql.Composed:
    """Says in the database that ``setup`` made it, so that it can be told from others when it is to go."""
    return _comment(publication, filters.record(conditions or {}, is_made=True))


def _comment(publication: str, text: str | None) -> sql.Composed:
    return sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(publication), sql.Literal(text))


def _what(entry: Entry, publication: str) -> str:
    return f"table {entry.table.full_name} in publication {publication}"


def _shape(entry: Entry) -> str:
    return _columns(entry.listed) + _where(entry.rows)


def _columns(columns: frozenset[str] | None) -> str:
    return "all columns" if columns is None else "columns " + ", ".join(sorted(columns))


def _where(condition: str | None) -> str:
    return "" if condition is None else f" where {condition}"


def _note(decided: list[Entry], publication: str) -> str:
    """What column lists and row filters mean for later changes of the tables."""
    bound = [entry for entry in decided if entry.listed is not None or entry.rows is not None]
    if not bound:
        return ""
    table = published_name(bound[0].table).as_string(None)
    name = sql.Identifier(publication).as_string(None)
    what = "listed or filtered" if any(entry.rows is not None for entry in bound) else "listed"
    return (
        f"while a column is {what}, Postgres refuses to drop it, and a replica identity outside of the list (FULL, say)"
        f" makes UPDATE and DELETE fail; in one transaction: ALTER PUBLICATION {name} DROP TABLE {table}; your change;"
        f" ALTER PUBLICATION {name} ADD TABLE {table};"
    )
