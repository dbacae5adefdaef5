"""What a notification says: JSON becomes a row message as logical replication would send it. No I/O.

    {"schema": "public", "table": "users", "op": "update", "old": {"id": 7}, "new": {"id": 7, "slug": "b"}}

Any database user can notify any channel, so a payload is data like a row: nothing in it raises, and what it does not
say counts as unknown, for which the rules widen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from invalidator.model import Operation, Relation
from invalidator.postgres.notify.options import MAX_NAME_BYTES

Row = Mapping[str, object]
"""Column → what JSON says: None, a bool, a text (of numbers too, as they are written), or something nested."""
Texts = Mapping[str, bytes | None]
"""Column → its text, None for NULL; what was not sent is not there."""

_LETTERS: Final = {Operation.INSERT: b"I", Operation.UPDATE: b"U", Operation.DELETE: b"D"}
_XLOG_DATA: Final = b"w" + bytes(24)
_NULL: Final = b"n"
_BOOL: Final = 16
_TIMESTAMP: Final = 1114
_TIMESTAMPTZ: Final = 1184
_MOMENT: Final = re.compile(r"(\d{4,}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,6})?)(Z|\+00(?::?00)?)?")
"""What ``to_json`` and the output function make of a timestamp in UTC. Other zones and texts are not understood."""
_BOOLS: Final = {"t": b"t", "true": b"t", "f": b"f", "false": b"f"}


class Unreadable(Exception):  # noqa: N818  (a verdict on a payload)
    """Nobody can tell which table a payload is about."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One payload."""

    schema: str
    table: str
    operation: Operation | None
    """None: it names none that we know, so anything may have happened to the table."""
    old: Row | None = None
    new: Row | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Which columns a payload sends of its table: the same for nearly all payloads of one trigger."""

    operation: Operation
    columns: tuple[str, ...]
    """Those of the new row, in the table's order; of a DELETE those of the old one."""
    old: frozenset[str]
    """Those of which the value before an UPDATE is sent too."""


def parse(payload: bytes) -> Notice:
    """What a payload says.

    Raises:
        Unreadable: it names no table; the text says why, without anything of its content.
    """
    try:
        data = json.loads(payload.decode(), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        text = "it is no JSON"
        raise Unreadable(text) from None
    if not isinstance(data, dict):
        text = "it is no JSON object"
        raise Unreadable(text)
    schema, table = _name(data.get("schema", "public"), "schema"), _name(data.get("table"), "table")
    return Notice(schema, table, _operation(data.get("op")), _row(data.get("old")), _row(data.get("new")))


def texts(row: Row | None, relation: Relation) -> Texts:
    """The columns of the row that the relation has, as far as their text is the one that logical replication sends."""
    found: dict[str, bytes | None] = {}
    for column in relation.columns if row else ():
        if row is not None and column.name in row:
            value = _text(row[column.name], column.type_oid if column.base_oid is None else column.base_oid)
            if value is not False:
                found[column.name] = value
    return found


def shape_of(operation: Operation, old: Texts, new: Texts) -> Shape | None:
    """Which columns these images send; None if they lack the one that the operation needs."""
    image = old if operation is Operation.DELETE else new
    if not image:
        return None
    return Shape(operation, tuple(image), frozenset(old.keys() & new.keys()))


def shaped(relation: Relation, shape: Shape) -> Relation:
    """The relation with just the columns that are sent; its identity are those whose old value is.

    What is not sent must not look like an unchanged value: pgoutput leaves those out too, and rules rely on it.
    """
    named = frozenset(shape.columns)
    is_whole = shape.operation is not Operation.UPDATE or shape.old == named
    columns = tuple(
        replace(column, is_identity=is_whole or column.name in shape.old)
        for column in relation.columns
        if column.name in named
    )
    return replace(relation, replica_identity="f" if is_whole else "d" if shape.old else "n", columns=columns)


def message(relation: Relation, operation: Operation, old: Texts, new: Texts) -> bytes:
    """One row message (XLogData, its 25 header bytes included) of a relation that ``shaped`` made."""
    head = _XLOG_DATA + _LETTERS[operation] + relation.oid.to_bytes(4)
    names = [column.name for column in relation.columns]
    match operation:
        case Operation.INSERT:
            return head + b"N" + _tuple(names, new)
        case Operation.DELETE:
            return head + b"O" + _tuple(names, old)
        case _:
            before = {"f": b"O", "d": b"K", "n": b""}[relation.replica_identity]
            if before:
                before += _tuple(names, old)  # of a key alone, the other columns are NULL
            return head + before + b"N" + _tuple(names, new)


def _name(value: object, field: str) -> str:
    if not isinstance(value, str):
        text = f"'{field}' is missing, or no text"
        raise Unreadable(text)
    if not _is_storable(value) or not 0 < len(value.encode()) <= MAX_NAME_BYTES:
        text = f"'{field}' cannot be the name of anything"
        raise Unreadable(text)
    return value


def _operation(value: object) -> Operation | None:
    try:
        return Operation(value.lower()) if isinstance(value, str) else None
    except ValueError:
        return None


def _row(value: object) -> Row | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _text(value: Any, type_oid: int) -> bytes | Literal[False] | None:
    """The value's text; False if nobody can tell it, so that it counts as not sent."""
    if value is None:
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if not isinstance(value, str) or not _is_storable(value):
        return False  # arrays, JSON, rows: Postgres writes them otherwise
    if type_oid == _BOOL:
        return _BOOLS.get(value, False)
    if type_oid in (_TIMESTAMP, _TIMESTAMPTZ):
        return _moment(value, has_zone=type_oid == _TIMESTAMPTZ)
    return value.encode()


def _moment(text: str, *, has_zone: bool) -> bytes | Literal[False]:
    if text in ("infinity", "-infinity"):
        return text.encode()
    found = _MOMENT.fullmatch(text)
    if found is None or (found[3] is not None) != has_zone:
        return False
    return f"{found[1]} {found[2]}{'+00' if has_zone else ''}".encode()


def _is_storable(text: str) -> bool:
    """Whether a database could hold it: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _tuple(names: Sequence[str], row: Texts) -> bytes:
    return len(names).to_bytes(2) + b"".join(_column(row.get(name)) for name in names)


def _column(value: bytes | None) -> bytes:
    return _NULL if value is None else b"t" + len(value).to_bytes(4) + value
