"""Rows as JSON holds them become relations and messages of the stream, and messages become such rows again.

relation_of   the relation that rows without a database stand for
row_message   a change as pgoutput would send it
read_message  what a message of the stream says
"""

from __future__ import annotations

import difflib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from invalidator.errors import ConfigError
from invalidator.model import Column, Operation, Relation
from invalidator.rules.reading import MESSAGE_TYPE_AT, TUPLE_KIND_AT

JsonRow = Mapping[str, object]
"""A row as JSON or YAML holds it, by column. A column that is left out counts as not sent by Postgres, not as NULL."""

_BOOL, _INT8, _TEXT, _NUMERIC, _JSONB = 16, 20, 25, 1700, 3802
_NOT_SENT: Final = b"u"
_NULL: Final = b"n"
_HEADER: Final = b"w" + bytes(24)
_OPERATIONS: Final = {b"I": Operation.INSERT, b"U": Operation.UPDATE, b"D": Operation.DELETE}


def relation_of(
    schema: str, table: str, rows: Sequence[JsonRow], identity: Iterable[str] | None = None, *, oid: int = 1
) -> Relation:
    """The relation whose columns are those of the rows: without a database nothing else is known of the table.

    Args:
        schema: raw name.
        table: raw name.
        rows: all images; a column's type is guessed from its values in all of them.
        identity: the columns of the replica identity; None: FULL.
        oid: number of the relation.
    """
    named = None if identity is None else frozenset(identity)
    names = dict.fromkeys([*(name for row in rows for name in row), *(named or ())])
    columns = tuple(
        Column(name, _type_of([row[name] for row in rows if name in row]), is_identity=named is None or name in named)
        for name in names
    )
    return Relation(oid, schema, table, "f" if named is None else "d", columns)


def _type_of(values: Sequence[object]) -> int:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return _BOOL
    if kinds == {int}:
        return _INT8
    if kinds and kinds <= {int, float}:
        return _NUMERIC
    return _JSONB if kinds and kinds <= {dict, list} else _TEXT


def row_message(relation: Relation, operation: Operation, old: JsonRow | None, new: JsonRow | None) -> bytes:
    """One XLogData message with the change, as pgoutput would write it.

    Of the old row only what the relation's replica identity holds is sent. For an INSERT or DELETE the row may be
    given as either image.

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
    return any(name in old and name in new and value_text(old[name]) != value_text(new[name]) for name in keys)


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
    text = value_text(row[column.name])
    return _NULL if text is None else b"t" + struct.pack(">I", len(text)) + text


def value_text(value: object) -> bytes | None:
    """A JSON value as Postgres writes it: booleans as ``t`` and ``f``, objects and lists as JSON; None is NULL.

    Raises:
        ConfigError: a text holds half of a surrogate pair.
    """
    match value:
        case None:
            return None
        case bool():
            return b"t" if value else b"f"
        case str():
            return _encoded(value)
        case float() if not math.isfinite(value):
            return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
        case int() | float():
            return str(value).encode("ascii")
        case _:
            return _encoded(json.dumps(value, ensure_ascii=False))


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        message = f"\\u{ord(text[error.start]):04x} is half of a surrogate pair, which is no character in a database"
        raise ConfigError(message, fix="write the character itself, or both halves") from None


def message_operation(message: bytes) -> Operation:
    """What an XLogData message with a row says happened.

    Raises:
        ValueError: it is no Insert, Update or Delete message.
    """
    operation = _OPERATIONS.get(message[MESSAGE_TYPE_AT : MESSAGE_TYPE_AT + 1])
    if operation is None:
        text = "this is no row message"
        raise ValueError(text)
    return operation


def read_message(relation: Relation, message: bytes) -> tuple[Operation, JsonRow | None, JsonRow | None]:
    """Operation, old and new row of an XLogData message; values are text or None, what was not sent is left out.

    Raises:
        ValueError: it is no row message of this relation, or it ends early.
    """
    operation = message_operation(message)
    images: dict[str, JsonRow] = {}
    at = TUPLE_KIND_AT
    try:
        while at < len(message):
            kind = chr(message[at])
            images["new" if kind == "N" else "old"], at = _read_tuple(relation, message, at + 1, only_keys=kind == "K")
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        text = "the row message ends early"
        raise ValueError(text) from error
    return operation, images.get("old"), images.get("new")


def _read_tuple(relation: Relation, message: bytes, at: int, *, only_keys: bool) -> tuple[JsonRow, int]:
    count: int = struct.unpack_from(">H", message, at)[0]
    at += 2
    row: dict[str, object] = {}
    for column in relation.columns[:count]:
        kind = message[at : at + 1]
        is_sent = kind != _NOT_SENT and not (only_keys and not column.is_identity)
        if kind != b"t":
            at += 1
            if is_sent:
                row[column.name] = None
            continue
        size: int = struct.unpack_from(">I", message, at + 1)[0]
        at += 5
        if len(message) < at + size:
            raise IndexError
        row[column.name] = message[at : at + size].decode("utf-8", "surrogateescape")
        at += size
    return row, at
