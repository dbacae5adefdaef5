"""The outbox beside the rules: whether every change that a rule wants is written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Final

from invalidator.postgres.provision.outbox import VIRTUAL, captures, problem_of
from invalidator.postgres.provision.outbox_table import COLUMNS, PRIVILEGES, is_guarded, misfit
from invalidator.preflight.case import Case, Subject, rule_names
from invalidator.preflight.finding import Finding, finding

_SETUP: Final = "invalidator setup --source outbox   (prints the SQL; --apply runs it)"
_SILENT: Final = "would not see them: what they name would stay stale, and nothing would tell"


def missing_outbox(case: Case) -> Iterator[Finding]:
    """The table is not there, or may not be read."""
    facts, at = case.facts.outbox, case.at_setting("dsn")
    if facts is None:
        return
    found = facts.outbox
    if wrong := misfit(found):
        yield finding(facts.server.database, at, "outbox-missing", wrong, fix=_SETUP)
        return
    if missing := set(PRIVILEGES) - found.privileges:
        message = f"the role '{facts.server.user}' lacks {', '.join(sorted(missing))} in the schema invalidator"
        yield finding(facts.server.user, at, "no-outbox-privilege", message, fix=_SETUP)
    if not is_guarded(found):
        message = "the guard trigger on invalidator.outbox is missing, disabled or another one"
        why = "rows that somebody else removes would never be read, and nothing would tell"
        yield finding(facts.server.database, at, "outbox-unguarded", message, why=why, fix=_SETUP)


def wrong_triggers(case: Case) -> Iterator[Finding]:
    """Triggers that are missing, disabled, or that write down something else than the rules read."""
    facts, request = case.facts.outbox, case.facts.outbox_request
    if facts is None or request is None or facts.outbox.columns != COLUMNS:
        return
    for table, subjects in case.tables.values():
        needs = [replace(subject.need, schema=table.schema, table=table.name) for subject in subjects]
        problems: dict[str, list[str]] = {}
        for capture in captures(needs, facts, request)[0]:
            for operation, member in product(capture.operations, capture.members):
                problem = problem_of(capture, member, operation, facts, is_always=request.fires_always)
                if problem is not None:
                    problems.setdefault(problem, []).append(f"{operation} of {member.full_name}")
        for problem, what in problems.items():
            yield _wrong(subjects, problem, what)


def unseen_columns(case: Case) -> Iterator[Finding]:
    """Virtual generated columns: they are computed when they are read, and triggers get none."""
    for subject, table in case.pairs:
        virtual = {column.name for column in table.columns if column.generated == VIRTUAL}
        for use in subject.uses:
            if use.column in virtual:
                message = (
                    f"'{use.column}' of {table.full_name} is a virtual generated column, which triggers do not see"
                )
                why = "the rule never sees its value and applies its coarse form instead"
                help_text = "use the columns that it is made of"
                name = f"{table.full_name} {use.column}"
                yield finding(name, use.at, "column-not-captured", message, why=why, help=help_text)


def _wrong(subjects: list[Subject], problem: str, what: list[str]) -> Finding:
    names = ", ".join(what)
    match problem:
        case "missing":
            code, message, why = "trigger-missing", f"no trigger writes down {names}", _SILENT
        case "disabled":
            code, message, why = "trigger-disabled", f"the trigger is disabled that writes down {names}", _SILENT
        case _:
            code = "trigger-outdated"
            message = f"the trigger was made for other rules, settings or columns, or by another version: {names}"
            why = "may lack a column there, and widen, or not hear of a change"
    return finding(what[0], subjects[0].at_table, code, message, why=f"{rule_names(subjects)} {why}", fix=_SETUP)
