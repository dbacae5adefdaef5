"""The rules in force, bound to the relations of the stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from invalidator.model import AFTER_GAP, Invalidation, Operation, Relation, Transaction, WidenReason, readings
from invalidator.ports import RowFunction, TagGrammar
from invalidator.rules.coarse import CoarseForm, relation_facts
from invalidator.rules.compiler import compile_relation
from invalidator.rules.compiler.bound import condition_misfit, missing_columns
from invalidator.rules.rule import Rule, RuleSet
from invalidator.rules.template import encode
from invalidator.telemetry.state import RuleState, TableState


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a rule applies its coarse form to every row of a relation."""

    rule: str
    relation: str
    reason: WidenReason
    columns: tuple[str, ...]
    """Those that the stream does not send for this relation; or with RULE_ERROR, those of a condition that does not
    fit their types."""


class Engine:
    """Implements :class:`invalidator.ports.Rules` over one rule set.

    Args:
        ruleset: the checked rules.
        states: where each rule counts, by rule name; missing ones are made. The engine keeps those of its rules: a
            reload may take them out while a transaction is open, which the engine handles to its end.
        tables: where rows are counted, by ``schema.table``; made when a relation is bound.
        cdn_grammars: what the configured CDNs take as a tag.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        *,
        states: dict[str, RuleState],
        tables: dict[str, TableState],
        cdn_grammars: Sequence[TagGrammar] = (),
    ) -> None:
        self.ruleset = ruleset
        self._tables = tables
        self._grammars = tuple(cdn_grammars)
        self._bound: dict[int, tuple[Relation, RowFunction | None]] = {}
        self._problems: dict[int, list[Problem]] = {}
        self._states = {rule.name: states.setdefault(rule.name, RuleState(rule.name)) for rule in ruleset.rules}
        for rule in ruleset.rules:
            self._states[rule.name].has_lookup = bool(rule.lookups)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the rules for the relations seen so far, as they were announced last."""
        return [problem for problems in self._problems.values() for problem in problems]

    def applies_to(self, relation: Relation) -> bool:
        """Whether any rule names this relation, for whatever events."""
        return bool(self._matching(relation))

    def bind(self, relation: Relation) -> RowFunction | None:
        """The function for rows of this relation; None when no rule wants any of its rows."""
        bound = self._bound.get(relation.oid)
        if bound is not None and bound[0] == relation:
            return bound[1]  # Postgres announces a relation again after each ANALYZE
        former = relation if bound is None else bound[0]  # it may have another name now, and other rules
        for state in self._states.values():
            state.missing_columns.pop(former.name, None)
            state.condition_misfits.pop(former.name, None)
        rules = [(index, rule) for index, rule in self._matching(relation) if rule.events - {Operation.TRUNCATE}]
        self._note_problems([rule for _, rule in rules], relation)
        function = None
        if rules:
            table = self._table(relation)
            function = compile_relation(rules, relation, self._states, table, self._grammars)
        self._bound[relation.oid] = relation, function
        return function

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        """Add the coarse form of every rule that wants the TRUNCATE of one of these relations."""
        for relation in relations:
            matching = [rule for _, rule in self._matching(relation)]
            if matching:
                self._table(relation).rows[Operation.TRUNCATE] += 1
            for rule in matching:
                if Operation.TRUNCATE not in rule.events:
                    continue
                state = self._states[rule.name]
                state.matches[Operation.TRUNCATE] += 1
                state.widened[WidenReason.TRUNCATE] += 1
                facts = relation_facts(relation, Operation.TRUNCATE)
                CoarseForm(rule, facts, self._grammars).add(invalidation, transaction)

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        """Add the coarse form of every rule of this relation: it changed, and nobody knows how."""
        facts = {"schema": encode(relation.schema), "table": encode(relation.table)}
        for _, rule in self._matching(relation):
            self._states[rule.name].widened[reason] += 1
            CoarseForm(rule, facts, self._grammars).add(invalidation, transaction)

    def coarse(
        self, tables: Collection[str] | None = None, rules: Collection[str] | None = None
    ) -> Iterator[tuple[str, Invalidation]]:
        """The coarse form of every rule by its name, for when nobody knows which rows of which tables changed.

        Args:
            tables: ``schema.table`` of those that it is about; None: all.
            rules: names of the only rules that are meant; None: all.
        """
        for rule in self.ruleset.rules if tables is None else self._rules_for(tables):
            if rules is not None and rule.name not in rules:
                continue
            facts: dict[str, bytes] = {}
            if "*" not in rule.schema:
                facts["schema"] = encode(rule.schema)
            if "*" not in rule.table:
                facts["table"] = encode(rule.table)
            invalidation = Invalidation()
            CoarseForm(rule, facts, self._grammars).add(invalidation, None)
            self._states[rule.name].widened[AFTER_GAP] += 1
            yield rule.name, invalidation

    def _note_problems(self, rules: Sequence[Rule], relation: Relation) -> None:
        problems: list[Problem] = []
        for rule in rules:
            missing = tuple(sorted(missing_columns(rule, relation)))
            if missing:
                self._states[rule.name].missing_columns[relation.name] = missing
                problems.append(Problem(rule.name, relation.name, WidenReason.MISSING_COLUMN, missing))
            misfit = condition_misfit(rule, relation)
            if misfit is not None and rule.when is not None:
                self._states[rule.name].condition_misfits[relation.name] = misfit
                columns = tuple(sorted(rule.when.columns))
                problems.append(Problem(rule.name, relation.name, WidenReason.RULE_ERROR, columns))
        self._problems[relation.oid] = problems

    def _rules_for(self, tables: Collection[str]) -> list[Rule]:
        named = (each for name in sorted(tables) for each in readings(name))
        found = (each for schema, table in named for each in self.ruleset.for_table(schema, table))
        return [rule for _, rule in sorted(dict(found).items())]

    def _matching(self, relation: Relation) -> list[tuple[int, Rule]]:
        return self.ruleset.for_table(relation.schema, relation.table)

    def _table(self, relation: Relation) -> TableState:
        return self._tables.setdefault(relation.name, TableState(relation.name))
