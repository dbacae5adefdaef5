"""What each rule would do with one row, found out by the very functions that run in the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from invalidator.errors import ConfigError
from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules import condition
from invalidator.rules.compiler.bound import missing_columns
from invalidator.rules.engine import Engine
from invalidator.rules.lookup import Asked, LookupPlan
from invalidator.rules.rows import JsonRow, message_operation, read_message, row_message, value_text
from invalidator.rules.rule import GROUPS, Coarse, Exact, Lookup, Rule, RuleSet
from invalidator.rules.template import Template
from invalidator.telemetry.state import RuleState

__all__ = ["JsonRow", "Outcome", "RuleExplanation", "Scene", "explain", "explain_message", "row_message", "scene"]

KINDS: Final = ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn", "cdn_soft")
"""The fields of an invalidation that hold names, in the order in which they are applied."""


class Outcome(StrEnum):
    """Whether a rule applies to a row, or why not."""

    FIRED = "fired"
    OTHER_TABLE = "other_table"
    OTHER_EVENT = "other_event"
    UNCHANGED = "unchanged"  # no column of ``changed`` changed
    CONDITION = "condition"  # ``when`` does not hold


Answer = Callable[[Invalidation], None]
"""Answers the lookups that an invalidation asks for, as far as it can: what it leaves in there stays unanswered."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a lookup is asked with."""

    lookup: Lookup
    parameters: tuple[tuple[str, str | None], ...]
    """Each value that the SQL binds, as ``order_id`` or ``new.order_id``; None: NULL."""
    is_answered: bool


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """What one rule would do with the row."""

    rule: Rule
    outcome: Outcome
    invalidation: Invalidation
    """What it would unlink, publish and purge, and in ``repeats`` what it would do again; empty unless fired."""
    widened: tuple[WidenReason, ...]
    """Why the coarse form is in there, if it is."""
    null_skips: int
    """Templates left out because a value is NULL."""
    missing_columns: tuple[str, ...]
    """Columns that the rule names and the relation does not have."""
    not_given: tuple[str, ...] = ()
    """Columns that the rule names and whose values are not known here; templates that need them are left out."""
    questions: tuple[Question, ...] = ()
    """What its lookups are asked; names that come of unanswered ones are not in here."""
    condition: str | None = None
    """Whether the rule's ``when`` holds, and why; None if there is none, or if it cannot be asked of this row."""

    @property
    def why_not(self) -> str | None:
        """Why the rule did not fire; None if it did."""
        rule = self.rule
        match self.outcome:
            case Outcome.FIRED:
                return None
            case Outcome.OTHER_TABLE:
                return f"it is for {rule.schema}.{rule.table}"
            case Outcome.OTHER_EVENT:
                return f"it looks only at events [{', '.join(sorted(rule.events))}]"
            case Outcome.UNCHANGED:
                return f"none of changed [{', '.join(sorted(rule.changed or ()))}] did change"
            case Outcome.CONDITION:
                return f"when: {rule.when.text if rule.when else ''} is {self.condition or 'false'}"


class Engines:
    """An engine for each rule alone, kept for the next change: compiling it takes a hundred times as long as a row.

    Args:
        grammars: what the configured CDNs take as a tag.
    """

    def __init__(self, grammars: Sequence[TagGrammar] = ()) -> None:
        self._grammars = tuple(grammars)
        self._made: dict[tuple[int, Relation, Operation], tuple[Rule, tuple[Rule, Engine, RuleState]]] = {}

    def of(self, rule: Rule, relation: Relation, operation: Operation) -> tuple[Rule, Engine, RuleState]:
        """The rule as far as it is for this event, its engine, and where that counts, from 0."""
        key = id(rule), relation, operation
        if key not in self._made:
            self._made[key] = rule, self._engine(rule, operation)  # the rule is kept, or another might get its id
        made = self._made[key][1]
        _forget_counts(made[2])
        return made

    def _engine(self, rule: Rule, operation: Operation) -> tuple[Rule, Engine, RuleState]:
        state = RuleState(rule.name)
        if operation in rule.events:
            rule = replace(rule, events=frozenset({operation}))
        states = {rule.name: state}
        return rule, Engine(RuleSet((rule,), ""), states=states, tables={}, cdn_grammars=self._grammars), state


def _forget_counts(state: RuleState) -> None:
    """What was counted for the row before; what was found out about the relation stays."""
    state.matches.update(dict.fromkeys(state.matches, 0))
    state.unchanged = state.condition_false = state.null_skips = 0
    state.widened.clear()
    state.errors.clear()


@dataclass(frozen=True, slots=True)
class Scene:
    """One change in front of which rules are explained, each by itself."""

    relation: Relation
    operation: Operation
    message: bytes
    """The row message (XLogData); not read for a TRUNCATE."""
    grammars: tuple[TagGrammar, ...] = ()
    transaction: Transaction = field(default_factory=lambda: Transaction(final_lsn=0, xid=0, commit_time=0))
    not_given: frozenset[str] = frozenset()
    """Columns of the relation whose values nobody has told: not the same as values that Postgres did not send."""
    answer: Answer | None = None
    """Answers the rules' lookups."""
    widened: WidenReason | None = None
    """Nobody knows how the table changed, for this reason."""
    engines: Engines | None = None
    """Those of changes that were explained before; None: this is the only one."""

    def explain(self, rule: Rule) -> RuleExplanation:
        """What the rule does with the change."""
        lacking = tuple(sorted(self.not_given & needed_columns(rule)))
        made = self._explained(_without(rule, self.not_given) if lacking else rule)
        return replace(made, rule=rule, not_given=lacking)

    def exact(self, rule: Rule, group: str, template: Template) -> Invalidation:
        """What this one template of a rule that fires makes of the change, and nothing else of the rule."""
        forms: dict[str, tuple[Template, ...]] = {group: (template,)}
        alone = replace(rule, exact=Exact(**forms), coarse=Coarse(), bulk_over=None, repeat_after=(), when=None)
        return self.explain(alone).invalidation

    def _explained(self, rule: Rule) -> RuleExplanation:
        engines = self.engines or Engines(self.grammars)
        rule, engine, state = engines.of(rule, self.relation, self.operation)
        invalidation = Invalidation()
        # A transaction of its own: rows of it that are counted for `bulk_over` belong to no other rule.
        opened = Transaction(self.transaction.final_lsn, self.transaction.xid, self.transaction.commit_time)
        if self.widened is not None:
            engine.widen(self.relation, invalidation, opened, self.widened)
        elif self.operation is Operation.TRUNCATE:
            engine.truncate([self.relation], invalidation, opened)
        elif row := engine.bind(self.relation):
            row(self.message, invalidation, opened)
        questions = self._ask(invalidation)
        return RuleExplanation(
            rule,
            self._outcome(engine, state),
            invalidation,
            tuple(WidenReason(reason) for reason in state.widened),
            state.null_skips,
            state.missing_columns.get(self.relation.name, ()),
            questions=questions,
            condition=self._condition(rule),
        )

    def _condition(self, rule: Rule) -> str | None:
        """What the rule's condition says of the row, as far as the row was sent."""
        if rule.when is None or self.operation is Operation.TRUNCATE or missing_columns(rule, self.relation):
            return None
        types = condition.column_types(self.relation)
        try:
            if condition.type_problems(rule.when, types):
                return None
            return condition.explain(rule.when, *known_rows(self.relation, self.message), condition.kinds_of(types))
        except (ValueError, ArithmeticError):  # a value that is none of its column's type: the rule widens
            return None

    def _ask(self, invalidation: Invalidation) -> tuple[Question, ...]:
        """Let the lookups be answered; afterwards none is left in the invalidation."""
        asked: list[tuple[LookupPlan, list[Asked]]] = [
            (plan, list(plan.grouped(values))) for plan, values in invalidation.lookups.items()
        ]
        invalidation.lookup_transactions.clear()  # what the row says is to be looked up as if it were so already
        if self.answer is not None and asked:
            self.answer(invalidation)
        left = set(invalidation.lookups)
        invalidation.lookups.clear()
        return tuple(
            Question(plan.lookup, _parameters(plan, values), plan not in left)
            for plan, groups in asked
            for values in sorted(groups, key=repr)
        )

    def _outcome(self, engine: Engine, state: RuleState) -> Outcome:
        if any(state.matches.values()) or state.widened:
            return Outcome.FIRED
        if state.condition_false:
            return Outcome.CONDITION
        if state.unchanged:
            return Outcome.UNCHANGED
        return Outcome.OTHER_EVENT if engine.applies_to(self.relation) else Outcome.OTHER_TABLE


def known_rows(relation: Relation, message: bytes) -> tuple[condition.KnownRow | None, condition.KnownRow | None]:
    """The old and the new row with what follows of one for the other, as ``reading.py`` completes them."""
    operation, before, after = read_message(relation, message)
    old, new = (None if row is None else {name: value_text(row[name]) for name in row} for row in (before, after))
    if operation is Operation.UPDATE and new is not None:
        if old is None:  # identity columns that did not change
            keys = {column.name for column in relation.columns if column.is_identity}
            old = {name: value for name, value in new.items() if name in keys and relation.replica_identity != "f"}
        new = old | new
    return old, new


def _parameters(plan: LookupPlan, values: Asked) -> tuple[tuple[str, str | None], ...]:
    return tuple(
        (
            reference.name if reference.scope == "row" else f"{reference.scope}.{reference.name}",
            None if value is None else name_text(value),
        )
        for reference, value in zip(plan.lookup.sql.parameters, values, strict=False)
    )


def answered_by(found: Mapping[str, Sequence[JsonRow]]) -> Answer:
    """Answers lookups with rows that stand for what their SQL would find, by the lookup's name.

    All rows that ask get the same answer. What has no entry stays unanswered.

    The result raises ``ConfigError`` if a row lacks a column that a template names.
    """

    def answer(invalidation: Invalidation) -> None:
        for plan in [plan for plan in invalidation.lookups if plan.name in found]:
            asked = list(plan.grouped(invalidation.lookups.pop(plan)).values())
            columns, rows = _looked_up(plan), found[plan.name]
            for row in rows:
                _check_found(plan, columns, row)
            texts = [[value_text(row[name]) for name in columns] for row in rows]
            plan.answer(invalidation, asked, columns, [(at, row) for at in range(len(asked)) for row in texts])

    return answer


def _check_found(plan: LookupPlan, columns: Sequence[str], row: JsonRow) -> None:
    lacking = [name for name in columns if name not in row]
    if lacking:
        message = f"a row that lookup '{plan.name}' is said to find lacks {', '.join(lacking)}, which templates name"
        raise ConfigError(message, fix=f"add {', '.join(f'{name}: …' for name in lacking)}")


def _looked_up(plan: LookupPlan) -> list[str]:
    """The columns of the result that templates name."""
    references = (reference for template in plan.rule.exact.templates for reference in template.references)
    return list(dict.fromkeys(reference.name for reference in references if reference.scope == plan.name))


def rules_for(ruleset: RuleSet, relation: Relation) -> list[Rule]:
    """The rules that name this table, for whatever events."""
    return [rule for _, rule in ruleset.for_table(relation.schema, relation.table)]


def needed_columns(rule: Rule) -> frozenset[str]:
    """The columns that the rule names anywhere."""
    return missing_columns(rule, Relation(0, "", "", "f", ()))


def _without(rule: Rule, columns: frozenset[str]) -> Rule:
    """The rule without those templates that need one of the columns."""
    unasked = {lookup.name for lookup in rule.lookups if any(each.name in columns for each in lookup.sql.parameters)}
    kept = {
        group: tuple(
            template
            for template in getattr(rule.exact, group)
            if not template.columns & columns and not unasked.intersection(template.lookups)
        )
        for group in GROUPS
    }
    return replace(rule, exact=Exact(**kept))


def scene(
    relation: Relation,
    operation: Operation,
    old: JsonRow | None,
    new: JsonRow | None,
    *,
    cdn_grammars: Sequence[TagGrammar] = (),
    not_given: frozenset[str] = frozenset(),
    answer: Answer | None = None,
) -> Scene:
    """The change as Postgres would send it: of the old row only what the relation's replica identity holds.

    For an INSERT or DELETE the row may be given as either image.

    Raises:
        ConfigError: a row names a column that the relation does not have, or the row is missing.
    """
    message = b"" if operation is Operation.TRUNCATE else row_message(relation, operation, old, new)
    return Scene(relation, operation, message, tuple(cdn_grammars), not_given=not_given, answer=answer)


def explain(
    ruleset: RuleSet,
    relation: Relation,
    operation: Operation,
    old: JsonRow | None,
    new: JsonRow | None,
    *,
    cdn_grammars: Sequence[TagGrammar] = (),
    transaction: Transaction | None = None,
) -> list[RuleExplanation]:
    """What each rule of the set would do with this change (see :func:`scene`), in the order of the rules.

    Raises:
        ConfigError: a row names a column that the relation does not have, or the row is missing.
    """
    shown = scene(relation, operation, old, new, cdn_grammars=cdn_grammars)
    if transaction is not None:
        shown = replace(shown, transaction=transaction)
    return [shown.explain(rule) for rule in ruleset.rules]


def explain_message(
    ruleset: RuleSet,
    relation: Relation,
    message: bytes,
    transaction: Transaction | None = None,
    cdn_grammars: Sequence[TagGrammar] = (),
    engines: Engines | None = None,
    widened: WidenReason | None = None,
) -> list[RuleExplanation]:
    """What each rule for the relation does with a row message (XLogData) just as it came.

    An empty one stands for TRUNCATE, or with ``widened`` for a change that nobody knows. Who explains many gives the
    same engines each time.

    Raises:
        ValueError: the message is no Insert, Update or Delete.
    """
    operation = message_operation(message) if message else Operation.TRUNCATE
    opened = transaction or Transaction(final_lsn=0, xid=0, commit_time=0)
    came = Scene(relation, operation, message, tuple(cdn_grammars), opened, widened=widened, engines=engines)
    return [came.explain(rule) for rule in rules_for(ruleset, relation)]


def explanation_document(explanation: RuleExplanation) -> dict[str, Any]:
    """The explanation as JSON holds it: what ``explain --json`` prints per rule, and the daemon per row."""
    rule = explanation.rule
    return {
        "rule": rule.name,
        "place": str(rule.place),
        "outcome": explanation.outcome.value,
        "why_not": explanation.why_not,
        "invalidation": invalidation_document(explanation.invalidation),
        "repeats": [
            {"after_seconds": list(delays), "invalidation": invalidation_document(part)}
            for delays, part in explanation.invalidation.repeats.items()
        ],
        "widened": [reason.value for reason in explanation.widened],
        "null_skips": explanation.null_skips,
        "when": None if rule.when is None else rule.when.text,
        "condition": explanation.condition,
        "missing_columns": list(explanation.missing_columns),
        "not_given": list(explanation.not_given),
        "lookups": [
            {"lookup": each.lookup.name, "parameters": dict(each.parameters), "answered": each.is_answered}
            for each in explanation.questions
        ],
    }


def invalidation_document(invalidation: Invalidation) -> dict[str, Any]:
    """The names of an invalidation by kind, in order; kinds without a name are left out."""
    named = {kind: [name_text(name) for name in sorted(getattr(invalidation, kind))] for kind in KINDS}
    return {kind: names for kind, names in named.items() if names} | ({"cdn_all": True} if invalidation.cdn_all else {})


def name_text(name: bytes) -> str:
    """A name as people and JSON can read it: bytes that are no UTF-8 are escaped."""
    return name.decode("utf-8", "backslashreplace")
