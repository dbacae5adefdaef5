"""Whether tables and columns of the rules are there, and whether their text is the same wherever it is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from invalidator.model import Operation
from invalidator.postgres.catalog import Column, Table
from invalidator.postgres.provision.words import GENERATED_COLUMNS, identifier
from invalidator.preflight.case import Case, Subject, why_not_publishable
from invalidator.preflight.finding import Finding, finding, listed
from invalidator.preflight.identity import made_full
from invalidator.preflight.places import Use
from invalidator.rules import condition
from invalidator.rules.table_names import join_table

_SESSION_SETTINGS: Final = {
    "timestamp with time zone": "TimeZone and DateStyle",
    "timestamp without time zone": "DateStyle",
    "time with time zone": "TimeZone",
    "date": "DateStyle",
    "interval": "IntervalStyle",
    "real": "extra_float_digits",
    "double precision": "extra_float_digits",
    "bytea": "bytea_output",
    "money": "lc_monetary",
}
"""Types whose text depends on a setting of the session; see ``postgres.connection`` for what ours has pinned."""
_ROOT_HELP: Final = "name the partitioned table in the rule"


def unknown_tables(case: Case) -> Iterator[Finding]:
    """Rules whose table is not there, or writes no changes."""
    for subject in case.subjects:
        found = [table for table in case.facts.database.tables if subject.need.wants(table)]
        if not found:
            yield _unknown_table(case, subject)
        elif subject.need.is_exact:
            (table,) = found
            yield from _not_publishable(case, subject, table)
        elif not any(why_not_publishable(table, needs_log=case.facts.needs_log) is None for table in found):
            message = f"nothing that {subject.need.full_name} matches writes changes: {listed(_names(found))}"
            yield finding(subject.rule.name, subject.at_table, "not-publishable", message, why=_silent(subject))


def _unknown_table(case: Case, subject: Subject) -> Finding:
    wanted = subject.need.full_name
    known = sorted({*case.facts.database.table_names, *(table.full_name for table in case.facts.database.tables)})
    near = difflib.get_close_matches(wanted, known, 1, 0.6)
    elsewhere = [name for name in known if name.partition(".")[2] == subject.need.table]
    suggestions = elsewhere or near
    schema, _, table = suggestions[0].partition(".") if suggestions else ("", "", "")
    help_text = f"did you mean '{join_table(schema, table)}'?" if suggestions else None
    if not subject.need.is_exact:
        message = f"no table matches {wanted} yet"
        return finding(wanted, subject.at_table, "unknown-table", message, severity="warning", why=_silent(subject))
    database = case.facts.database.server.database if case.facts.is_live else None
    where = f" in database '{database}'" if database else " in the schema file"
    if not case.facts.is_live:
        help_text = help_text or "if the table is new, write the file again: invalidator snapshot-schema"
    message = f"there is no table {wanted}{where}"
    return finding(wanted, subject.at_table, "unknown-table", message, why=_silent(subject), help=help_text)


def _not_publishable(case: Case, subject: Subject, table: Table) -> Iterator[Finding]:
    reason = why_not_publishable(table, needs_log=case.facts.needs_log)
    if reason is None:
        return
    text, help_text = reason
    fix = None
    if table.root_oid is not None:
        root = case.facts.table(table.root_oid)
        help_text = f"{_ROOT_HELP}: {root.full_name}" if root is not None else _ROOT_HELP
    elif not table.is_permanent:
        fix = f"ALTER TABLE {identifier(table).as_string(None)} SET LOGGED;"
    message = f"{table.full_name} {text}"
    yield finding(
        table.full_name, subject.at_table, "not-publishable", message, why=_silent(subject), help=help_text, fix=fix
    )


def unknown_columns(case: Case) -> Iterator[Finding]:
    """Columns that a table does not have."""
    for subject, table in case.pairs:
        known = [column.name for column in table.columns]
        for use in subject.uses:
            if use.column not in known:
                yield _unknown_column(use, table, known)


def unfit_conditions(case: Case) -> Iterator[Finding]:
    """Conditions that compare a column with what it can never hold."""
    for subject, table in case.pairs:
        rule = subject.rule
        types = {column.name: _condition_type(column) for column in table.columns}
        for problem in condition.type_problems(rule.when, types) if rule.when is not None else ():
            if problem.code != "unknown-column":  # said already, for every part of a rule
                at = case.places.within(rule, ("when",), problem.offset, problem.width)
                name = f"{table.full_name} {rule.name}"
                yield finding(name, at, problem.code, problem.message, help=problem.help)


def _condition_type(column: Column) -> condition.ColumnType:
    oid = column.type_oid if column.base_oid is None else column.base_oid
    return condition.ColumnType(condition.kind_of(oid), column.type_name, column.enum_labels)


def _unknown_column(use: Use, table: Table, known: list[str]) -> Finding:
    near = [name for name in known if name.lower() == use.column.lower()]
    near = near or difflib.get_close_matches(use.column, known, 1, 0.6)
    columns = f"columns: {listed(known, most=12)}"
    help_text = f"did you mean '{near[0]}'? {columns}" if near else columns
    message = f"{table.full_name} has no column '{use.column}'"
    why = "a rule that names a missing column can only apply its coarse form, for every row"
    return finding(f"{table.full_name} {use.column}", use.at, "unknown-column", message, why=why, help=help_text)


def unsendable_columns(case: Case) -> Iterator[Finding]:
    """Generated columns, which Postgres computes but does not send."""
    version = case.facts.database.server.version
    publication = case.facts.publication
    for subject, table in case.pairs:
        generated = {column.name: column for column in table.columns if column.generated}
        for use in subject.uses:
            column = generated.get(use.column)
            if column is None:
                continue
            message = f"'{use.column}' of {table.full_name} is a generated column, which is not sent"
            name = f"{table.full_name} {use.column}"
            why = "the rule never sees its value and applies its coarse form instead"
            if column.generated == "v" or version < GENERATED_COLUMNS:
                help_text = "use the columns that it is made of"
                yield finding(name, use.at, "column-not-published", message, why=why, help=help_text)
            elif publication is not None and not _sends(case, table, use.column):
                fix = case.mending(table)
                yield finding(name, use.at, "column-not-published", message, why=why, fix=fix)


def _sends(case: Case, table: Table, column: str) -> bool:
    publication = case.facts.publication
    if publication is None or publication.sends_generated:
        return True
    entry = publication.table(table.oid)
    return entry is not None and entry.columns is not None and column in entry.columns


def session_dependent(case: Case) -> Iterator[Finding]:
    """Columns in templates whose text is not the same in every session."""
    for use, column, table in _in_templates(case):
        setting = _SESSION_SETTINGS.get(_plain_type(column.type_name))
        if setting is not None:
            message = f"the text of '{use.column}' ({column.type_name}) depends on {setting}"
            why = (
                "the daemon reads with TimeZone=UTC, DateStyle=ISO, IntervalStyle=postgres, bytea_output=hex; an"
                " application that writes the value otherwise makes other keys"
            )
            help_text = "let the application write it the same way, or key by another column"
            name = f"{table.full_name} {use.column}"
            yield finding(name, use.at, "session-dependent-text", message, severity="info", why=why, help=help_text)


def long_values(case: Case) -> Iterator[Finding]:
    """Columns in templates that can be stored apart, so that an UPDATE that leaves them alone does not send them."""
    for use, column, table in _in_templates(case):
        leaves = case.facts.parts(table)
        names = {
            part.full_name
            for part in leaves
            if any(each.name == column.name and each.is_toastable for each in part.columns)
            and use.column not in (part.identity or frozenset())
        }
        if not names or not use.needs_new or Operation.UPDATE not in use.rule.events:
            continue
        message = f"long values of '{use.column}' ({column.type_name}) are not sent by an UPDATE that leaves them alone"
        why = "values above some 2 kB are stored apart (TOAST); the rule applies its coarse form for such rows"
        parts = [part for part in leaves if part.full_name in names]
        fulls = " ".join(made_full(case, part) for part in parts[:3])
        help_text = (
            f"fine for short values; FULL sends them always, where no other publication's list forbids it: {fulls}"
        )
        name = f"{table.full_name} {use.column}"
        yield finding(name, use.at, "toast-key", message, severity="info", why=why, help=help_text)


def _in_templates(case: Case) -> Iterator[tuple[Use, Column, Table]]:
    for subject, table in case.pairs:
        columns = {column.name: column for column in table.columns}
        for use in subject.uses:
            column = columns.get(use.column)
            if use.part == "template" and column is not None:
                yield use, column, table


def _plain_type(name: str) -> str:
    """``timestamp(3) with time zone`` is ``timestamp with time zone``; ``interval day to second`` is ``interval``."""
    head, bracket, rest = name.partition("(")
    plain = head + rest.partition(")")[2] if bracket else name
    return "interval" if plain.startswith("interval") else plain


def _names(tables: list[Table]) -> list[str]:
    return [table.full_name for table in tables]


def _silent(subject: Subject) -> str:
    return f"rule '{subject.rule.name}' would never see a change, and what it names would stay stale"
