"""What each rule would do with one row, found out by the very functions that run in the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.engine import Engine
from invalidator.rules.rows import JsonRow, message_operation, row_message
from invalidator.rules.rule import Rule, RuleSet
from invalidator.telemetry.state import RuleState

__all__ = ["JsonRow", "Outcome", "RuleExplanation", "Scene", "explain", "explain_message", "row_message", "scene"]


class Outcome(StrEnum):
    """Whether a rule applies to a row, or why not."""

    FIRED = "fired"
    OTHER_TABLE = "other_table"
    OTHER_EVENT = "other_event"
    UNCHANGED = "unchanged"  # no column of ``changed`` changed


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


@dataclass(frozen=True, slots=True)
class Scene:
    """One change in front of which rules are explained, each by itself."""

    relation: Relation
    operation: Operation
    message: bytes
    """The row message (XLogData); not read for a TRUNCATE."""
    grammars: tuple[TagGrammar, ...] = ()
    transaction: Transaction = field(default_factory=lambda: Transaction(final_lsn=0, xid=0, commit_time=0))

    def explain(self, rule: Rule) -> RuleExplanation:
        """What the rule does with the change."""
        state = RuleState(rule.name)
        engine = Engine(RuleSet((rule,), ""), states={rule.name: state}, tables={}, cdn_grammars=self.grammars)
        invalidation = Invalidation()
        # A transaction of its own: rows of it that are counted for `bulk_over` belong to no other rule.
        opened = Transaction(self.transaction.final_lsn, self.transaction.xid, self.transaction.commit_time)
        if self.operation is Operation.TRUNCATE:
            engine.truncate([self.relation], invalidation, opened)
        elif row := engine.bind(self.relation):
            row(self.message, invalidation, opened)
        return RuleExplanation(
            rule,
            self._outcome(engine, state),
            invalidation,
            tuple(WidenReason(reason) for reason in state.widened),
            state.null_skips,
            state.missing_columns.get(self.relation.name, ()),
        )

    def _outcome(self, engine: Engine, state: RuleState) -> Outcome:
        if any(state.matches.values()):
            return Outcome.FIRED
        if state.unchanged:
            return Outcome.UNCHANGED
        return Outcome.OTHER_EVENT if engine.applies_to(self.relation) else Outcome.OTHER_TABLE


def scene(
    relation: Relation,
    operation: Operation,
    old: JsonRow | None,
    new: JsonRow | None,
    *,
    cdn_grammars: Sequence[TagGrammar] = (),
    transaction: Transaction | None = None,
) -> Scene:
    """The change as Postgres would send it: of the old row only what the relation's replica identity holds.

    For an INSERT or DELETE the row may be given as either image.

    Raises:
        ConfigError: a row names a column that the relation does not have, or the row is missing.
    """
    message = b"" if operation is Operation.TRUNCATE else row_message(relation, operation, old, new)
    opened = transaction or Transaction(final_lsn=0, xid=0, commit_time=0)
    return Scene(relation, operation, message, tuple(cdn_grammars), opened)


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
    shown = scene(relation, operation, old, new, cdn_grammars=cdn_grammars, transaction=transaction)
    return [shown.explain(rule) for rule in ruleset.rules]


def explain_message(
    ruleset: RuleSet,
    relation: Relation,
    message: bytes,
    transaction: Transaction | None = None,
    cdn_grammars: Sequence[TagGrammar] = (),
) -> list[RuleExplanation]:
    """What each rule of the set does with a row message (XLogData) just as it came.

    An empty message stands for a TRUNCATE of the relation.

    Raises:
        ValueError: the message is no Insert, Update or Delete.
    """
    operation = message_operation(message) if message else Operation.TRUNCATE
    opened = transaction or Transaction(final_lsn=0, xid=0, commit_time=0)
    came = Scene(relation, operation, message, tuple(cdn_grammars), opened)
    return [came.explain(rule) for rule in ruleset.rules]
