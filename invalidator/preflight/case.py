"""Rules beside facts: what every check is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from invalidator.postgres.catalog import KINDS, ORDINARY, PARTITIONED, Table
from invalidator.postgres.provision import Need
from invalidator.preflight.facts import Facts
from invalidator.preflight.finding import At
from invalidator.preflight.needs import needs as needs_of
from invalidator.preflight.places import Places, Use
from invalidator.rules.rule import Rule, RuleSet


@dataclass(frozen=True, slots=True)
class Subject:
    """One rule, what it needs, and where it reads its columns."""

    rule: Rule
    need: Need
    uses: tuple[Use, ...]
    at_table: At
    """Where it names its table."""


@dataclass(frozen=True)
class Case:
    """The rules of a rule set beside the facts of a database."""

    subjects: tuple[Subject, ...]
    places: Places
    facts: Facts
    settings_at: Mapping[str, At]
    """Where the settings name ``dsn``, ``slot`` and ``publication``."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What all rules need."""
        return tuple(subject.need for subject in self.subjects)

    @cached_property
    def pairs(self) -> tuple[tuple[Subject, Table], ...]:
        """Each rule with each table that it is about and that can be published."""
        return tuple(
            (subject, table)
            for subject in self.subjects
            for table in self.facts.wanted(subject.need)
            if why_not_publishable(table, needs_log=self.facts.needs_log) is None
        )

    @cached_property
    def tables(self) -> dict[int, tuple[Table, list[Subject]]]:
        """By OID, each table that can be published, with the rules about it."""
        found: dict[int, tuple[Table, list[Subject]]] = {}
        for subject, table in self.pairs:
            found.setdefault(table.oid, (table, []))[1].append(subject)
        return found

    def mending(self, table: Table) -> str | None:
        """The SQL that publishes the table as the rules need it, worked out once; None when no SQL of ours can."""
        if table.oid not in self._mendings:
            own = self.tables[table.oid][1]
            self._mendings[table.oid] = self.facts.mending([subject.need for subject in own], table)
        return self._mendings[table.oid]

    @cached_property
    def _mendings(self) -> dict[int, str | None]:
        return {}

    def at_setting(self, name: str) -> At:
        """Where the settings say this; the settings as a whole when a variable or a default does."""
        return self.settings_at.get(name) or At(f"source.{name}")


def case(ruleset: RuleSet, places: Places, facts: Facts, settings_at: Mapping[str, At] | None = None) -> Case:
    """Put the rules beside the facts."""
    subjects = tuple(
        Subject(rule, need, tuple(places.uses(rule)), places.at(rule, "table"))
        for rule, need in zip(ruleset.rules, needs_of(ruleset.rules), strict=True)
    )
    return Case(subjects, places, facts, settings_at or {})


def why_not_publishable(table: Table, *, needs_log: bool = True) -> tuple[str, str | None] | None:
    """Why no change of a relation can be seen, and what to do; None when changes can be.

    Args:
        table: the relation.
        needs_log: changes are read from the WAL, not written down by triggers.
    """
    if table.root_oid is not None:
        return "is a partition: its rows come under the partitioned table's name", None
    if table.kind not in {ORDINARY, PARTITIONED}:
        return f"is a {KINDS.get(table.kind, 'relation')}: it writes no changes", "name the tables behind it"
    if needs_log and not table.is_permanent:
        return "is unlogged or temporary: it writes no WAL", None
    return None


def rule_names(subjects: list[Subject]) -> str:
    """``rule 'a'`` or ``rules 'a', 'b'``."""
    names = sorted({subject.rule.name for subject in subjects})
    return f"rule{'s' if len(names) > 1 else ''} " + ", ".join(f"'{name}'" for name in names)
