"""What each rule would do with one row, found out by the very functions that run in the stream."""

from __future__ import annotations

import difflib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from invalidator.errors import ConfigError
from invalidator.model import Column, Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.engine import Engine
from invalidator.rules.rule import Rule, RuleSet
from invalidator.telemetry.state import RuleState

JsonRow = Mapping[str, object]
"""A row as JSON holds it, by column. A column that is left out counts as not sent by Postgres, not as NULL."""


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
    opened = transaction or Transaction(final_lsn=0, xid=0, commit_time=0)
    return [_explained(rule, relation, operation, message, opened, cdn_grammars) for rule in ruleset.rules]


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


_NOT_SENT: Final = b"u"
_NULL: Final = b"n"
_HEADER: Final = b"w" + bytes(24)


def row_message(relation: Relation, operation: Operation, old: JsonRow | None, new: JsonRow | None) -> bytes:
    """One XLogData message with the change, as pgoutput would write it.

    Raises:
        ConfigError: a row names a column that the relation does not have, or the row is missing.
    """
    for row in (old, new):
        _check_columns(relation, row or {})
    oid = struct.pack(">I", relation.oid)
    if operation is Operation.INSERT:
        return _HEADER + b"I" + oid + b"N" + _tuple(relation, _given(new, old))
    if operation is Operation.DELETE:
        return _HEADER + b"D" + oid + _old_tuple(relation, _given(old, new))
    after = _given(new, None)
    before = old if old is not None and _is_old_sent(relation, old, after) else None
    sent = b"" if before is None else _old_tuple(relation, before)
    return _HEADER + b"U" + oid + sent + b"N" + _tuple(relation, after)


def _given(first: JsonRow | None, second: JsonRow | None) -> JsonRow:
    row = second if first is None else first
    if row is None:
        message = "a row is needed: the values of its columns as a JSON object"
        raise ConfigError(message)
    return row


def _check_columns(relation: Relation, row: JsonRow) -> None:
    known = [column.name for column in relation.columns]
    for name in row:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            message = f"{relation.name} has no column '{name}'; it has {', '.join(known)}"
            raise ConfigError(message, fix=f"write '{near[0]}'" if near else None)


def _is_old_sent(relation: Relation, old: JsonRow, new: JsonRow) -> bool:
    """Postgres sends old identity columns only when one of them changed; with FULL always the whole row."""
    if relation.replica_identity == "f":
        return True
    keys = [column.name for column in relation.columns if column.is_identity]
    return any(name in old and name in new and _text(old[name]) != _text(new[name]) for name in keys)


def _old_tuple(relation: Relation, row: JsonRow) -> bytes:
    if relation.replica_identity == "f":
        return b"O" + _tuple(relation, row)
    return (
        b"K"
        + _count(relation)
        + b"".join(_value(column, row) if column.is_identity else _NULL for column in relation.columns)
    )


def _tuple(relation: Relation, row: JsonRow) -> bytes:
    return _count(relation) + b"".join(_value(column, row) for column in relation.columns)


def _count(relation: Relation) -> bytes:
    return struct.pack(">H", len(relation.columns))


def _value(column: Column, row: JsonRow) -> bytes:
    if column.name not in row:
        return _NOT_SENT
    text = _text(row[column.name])
    return _NULL if text is None else b"t" + struct.pack(">I", len(text)) + text


def _text(value: object) -> bytes | None:
    """A JSON value as Postgres writes it: booleans as ``t`` and ``f``, objects and lists as JSON."""
    match value:
        case None:
            return None
        case bool():
            return b"t" if value else b"f"
        case str():
            return value.encode("utf-8", "surrogateescape")
        case int() | float():
            return str(value).encode("ascii")
        case _:
            return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
