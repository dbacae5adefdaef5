"""One rule of one relation: its state, and the functions that the generated source calls."""

from __future__ import annotations

from collections.abc import Sequence

from invalidator.model import Operation, Relation
from invalidator.ports import TagGrammar
from invalidator.rules import condition
from invalidator.rules.coarse import CoarseForm, Widen, relation_facts, widener
from invalidator.rules.lookup import LookupPlan, l1_escaper
from invalidator.rules.rule import Lookup, Rule
from invalidator.rules.template import Template
from invalidator.telemetry.state import RuleState


def missing_columns(rule: Rule, relation: Relation) -> frozenset[str]:
    """The columns that the rule names and the relation does not have."""
    named = set(rule.changed or ())
    for template in rule.exact.templates:
        named |= template.columns
    for lookup in rule.lookups:
        named |= parameter_columns(lookup)
    if rule.when is not None:
        named |= rule.when.columns
    return frozenset(named - {column.name for column in relation.columns})


def condition_misfit(rule: Rule, relation: Relation) -> str | None:
    """Why the rule's condition does not fit the types of the relation's columns; None if it does."""
    if rule.when is None:
        return None
    problems = condition.type_problems(rule.when, condition.column_types(relation))
    return next((problem.message for problem in problems if problem.code != "unknown-column"), None)


class BoundRule:
    """One rule of one relation: its state, and the functions that the generated source calls.

    Args:
        index: the rule's place in the rule set.
        rule: what it says.
        relation: the columns that its rows have.
        state: counts what the rule does.
        grammars: what the configured CDNs take as a tag.
    """

    def __init__(
        self, index: int, rule: Rule, relation: Relation, state: RuleState, grammars: Sequence[TagGrammar]
    ) -> None:
        self.index = index
        self.rule = rule
        self.relation = relation
        self.state = state
        self.grammars = grammars
        self.missing = missing_columns(rule, relation)
        self.misfit = condition_misfit(rule, relation)
        self.escape = l1_escaper(state)
        self._wideners: dict[Operation, Widen] = {}
        self._plans: dict[tuple[str, tuple[tuple[str, str], ...]], LookupPlan] = {}

    def widener(self, operation: Operation) -> Widen:
        """Counts the reasons and adds the rule's coarse form."""
        made = self._wideners.get(operation)
        if made is None:
            form = CoarseForm(self.rule, relation_facts(self.relation, operation), self.grammars)
            made = self._wideners[operation] = widener(self.state, form)
        return made

    def takes(self, tag: bytes) -> bool:
        """Whether every CDN takes this tag."""
        return all(grammar.allows(tag) for grammar in self.grammars)

    def plan(self, lookup: Lookup, templates: Sequence[tuple[str, Template]]) -> LookupPlan:
        """What is asked, and done with the answers, for these templates; the same ones are asked for together."""
        key = lookup.name, tuple((group, template.text) for group, template in templates)
        made = self._plans.get(key)
        if made is None:
            made = LookupPlan(self.rule, lookup, templates, self.relation, self.state, self.grammars, self.escape)
            self._plans[key] = made
        return made


def parameter_columns(lookup: Lookup) -> set[str]:
    """The columns of the changed row that the lookup is asked with."""
    return {reference.name for reference in lookup.sql.parameters if reference.is_row_value}
