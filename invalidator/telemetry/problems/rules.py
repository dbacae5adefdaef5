"""Problems of rules, by themselves and with the database that they meet."""

# ruff: noqa: S608  (the statements are printed for people, never executed)

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from invalidator.telemetry.problems.problem import Problem, problem, psql

if TYPE_CHECKING:
    from invalidator.telemetry.state import RuleState, State


def found(state: State) -> Iterator[Problem]:
    """What preflight found, and everything about rules that needs an operator's eye."""
    yield from _findings(state)
    yield from _rules(state)


def _findings(state: State) -> Iterator[Problem]:
    """One problem for each, by subject and code: the second place of the same trouble is the same trouble."""
    told: set[str] = set()
    for finding in (each for group in state.findings.values() for each in group):
        subject = f"{finding.subject} ({finding.code})"
        if finding.urgency is not None and subject not in told:
            told.add(subject)
            incomplete = problem("setup-incomplete", subject, f"{finding.code}: {finding.text}", finding.fix)
            yield replace(incomplete, severity=finding.urgency)


def _rules(state: State) -> Iterator[Problem]:
    loaded = state.rules_loaded
    if loaded.refused is not None:
        yield problem(
            "reload-refused",
            "rules",
            f"the rule files were refused, and the rules {loaded.hash} stay in force: {loaded.refused}",
            "mend the files (invalidator check); they are read again when they change, or by: invalidator reload",
            loaded.refused_at,
        )
    for rule in state.rules.values():
        yield from _of_rule(rule)


def _of_rule(rule: RuleState) -> Iterator[Problem]:
    if rule.has_lookup and rule.lookup_error is not None:
        yield problem(
            "lookup-failing",
            rule.name,
            f"a lookup of rule {rule.name} fails ({rule.lookup_error}); its coarse form is applied instead,"
            " and after a failure it is not asked for up to 30 s",
            "invalidator check --online   (runs EXPLAIN over each lookup, and looks at the privileges)",
            rule.lookup_failing_since,
        )
    for relation, why in rule.condition_misfits.items():
        yield problem(
            "condition-misfit",
            rule.name,
            f"the condition of rule {rule.name} does not fit {relation}: {why}; its coarse form is applied instead",
            "compare the column with what it can hold   (invalidator check --online shows the place)",
        )
    for relation, columns in rule.missing_columns.items():
        names = ", ".join(columns)
        yield problem(
            "missing-column",
            rule.name,
            f"rule {rule.name} names columns that {relation} does not have, or that are not sent: {names}; "
            "its coarse form is applied instead",
            "name the new column in the rule, or have it sent: by invalidator setup, or in the notification; "
            "the columns that are published: "
            + psql(f"SELECT pubname, attnames FROM pg_publication_tables{_where_table(relation)}"),
        )


def _where_table(relation: str) -> str:
    # A quoted identifier may hold anything; what is pasted into a shell gets only plain names.
    plain = re.fullmatch(r"(\w+)\.(\w+)", relation)
    return f" WHERE schemaname = '{plain[1]}' AND tablename = '{plain[2]}'" if plain else ""
