"""What each rule would do with one row, found out by the very functions that run in the stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.engine import Engine
from invalidator.rules.rows import JsonRow, message_operation, row_message
from invalidator.rules.rule import Rule, RuleSet
from invalidator.telemetry.state import RuleState

__all__ = ["JsonRow", "Outcome", "RuleExplanation", "explain", "explain_message", "row_message"]


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
    """What each rule of the set would do with this change, in the order of the rules.

    The row is sent as Postgres would send it: of the old row only what the relation's replica identity holds. For
    an INSERT or DELETE the row may be given as either image.

    Raises:
        ConfigError: a row names a column that the relation does not have, or the row is missing.
    """
    message = b"" if operation is Operation.TRUNCATE else row_message(relation, operation, old, new)
    return explain_rules(ruleset.rules, relation, operation, message, transaction, cdn_grammars)


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
    return explain_rules(ruleset.rules, relation, operation, message, transaction, cdn_grammars)


def explain_rules(
    rules: Iterable[Rule],
    relation: Relation,
    operation: Operation,
    message: bytes,
    transaction: Transaction | None = None,
    cdn_grammars: Sequence[TagGrammar] = (),
) -> list[RuleExplanation]:
    """What each of the rules does with a message, each by itself; for a TRUNCATE the message is not read."""
    opened = transaction or Transaction(final_lsn=0, xid=0, commit_time=0)
    return [_explained(rule, relation, operation, message, opened, cdn_grammars) for rule in rules]


def _explained(
    rule: Rule,
    relation: Relation,
    operation: Operation,
    message: bytes,
    transaction: Transaction,
    grammars: Sequence[TagGrammar],
) -> RuleExplanation:
    state = RuleState(rule.name)
    engine = Engine(RuleSet((rule,), ""), states={rule.name: state}, tables={}, cdn_grammars=grammars)
    invalidation = Invalidation()
    opened = Transaction(transaction.final_lsn, transaction.xid, transaction.commit_time)
    if operation is Operation.TRUNCATE:
        engine.truncate([relation], invalidation, opened)
    elif row := engine.bind(relation):
        row(message, invalidation, opened)
    if any(state.matches.values()):
        outcome = Outcome.FIRED
    elif state.unchanged:
        outcome = Outcome.UNCHANGED
    else:
        outcome = Outcome.OTHER_EVENT if engine.applies_to(relation) else Outcome.OTHER_TABLE
    return RuleExplanation(
        rule,
        outcome,
        invalidation,
        tuple(WidenReason(reason) for reason in state.widened),
        state.null_skips,
        state.missing_columns.get(relation.name, ()),
    )
