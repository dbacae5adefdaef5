"""Changes as three output plugins tell them, brought to one form: pgoutput read by us, test_decoding and wal2json.

The readers of the other two share nothing with ours: test_decoding writes SQL-like text, wal2json JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.postgres.reader import Reader
from invalidator.rules.rows import read_message
from invalidator.telemetry.state import SourceState
from tests.support import pgoutput

Values = dict[str, str | None]
"""Text or NULL by column; a column that is left out was not sent."""


@dataclass(frozen=True)
class RowChange:
    """One row; ``old`` is None when nothing of the old row was sent."""

    table: str
    operation: Operation
    old: Values | None
    new: Values | None


@dataclass(frozen=True)
class Truncation:
    """One TRUNCATE."""

    tables: frozenset[str]


Event = RowChange | Truncation


@dataclass
class Decoded:
    """What one slot gave."""

    transactions: list[tuple[int, list[Event]]] = field(default_factory=list)
    """In commit order, by xid; without those in which nothing happened."""
    messages: list[tuple[bool, str]] = field(default_factory=list)
    """Logical messages: transactional or not, and their content."""
    end: int = 0
    """The end of the last commit."""

    def begin(self, xid: int) -> list[Event]:
        events: list[Event] = []
        self.transactions.append((xid, events))
        return events

    def close(self) -> None:
        self.transactions = [(xid, events) for xid, events in self.transactions if events]


# ---------------------------------------------------------------- ours


@dataclass(frozen=True)
class Row:
    """A row message as the reader hands it to a row function."""

    relation: Relation
    message: bytes
    transaction: Transaction


class Collector:
    """Rules that keep every row, for the reader."""

    def __init__(self) -> None:
        self.decoded = Decoded()
        self.rows: list[Row] = []
        self._open: Transaction | None = None
        self._events: list[Event] = []

    def bind(self, relation: Relation) -> Any:
        def row(message: bytes, invalidation: Invalidation, transaction: Transaction) -> None:
            operation, old, new = read_message(relation, message)
            self._at(transaction).append(RowChange(relation.name, operation, _texts(old), _texts(new)))
            self.rows.append(Row(relation, message, transaction))

        return row

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        self._at(transaction).append(Truncation(frozenset(relation.name for relation in relations)))

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        """The stream never asks for it."""

    def message(self, content: bytes, *, is_transactional: bool, invalidation: Invalidation) -> None:
        self.decoded.messages.append((is_transactional, content.decode()))

    def _at(self, transaction: Transaction) -> list[Event]:
        if transaction is not self._open:
            self._open = transaction
            self._events = self.decoded.begin(transaction.xid)
        return self._events


def _texts(row: Any) -> Values | None:
    return None if row is None else dict(row)


def by_us(messages: Iterable[tuple[int, bytes]]) -> Collector:
    """What our reader makes of pgoutput's messages.

    Args:
        messages: position and payload of each, as the slot gave them.
    """
    collector = Collector()
    reader = Reader(
        collector,
        heartbeat_name="",
        max_items=1 << 30,
        max_bytes=1 << 40,
        state=SourceState(),
        on_message=collector.message,
    )
    left = iter([pgoutput.xlog_data(payload, start=lsn, end=lsn) for lsn, payload in messages])

    def read(_: int) -> tuple[int, memoryview]:
        message = next(left, b"")
        return len(message), memoryview(message)

    while reader.drain(read) > 0:
        if reader.unbound is not None:
            reader.bind(reader.unbound)
    collector.decoded.end = reader.end
    return collector


# ---------------------------------------------------------------- test_decoding

_NAME = r'(?:"(?:[^"]|"")*"|[^\s"\[.:,]+)'
_TABLE = re.compile(rf"({_NAME})\.({_NAME})")
_HEAD = re.compile(rf"table ({_NAME}\.{_NAME}(?:, {_NAME}\.{_NAME})*): (INSERT|UPDATE|DELETE|TRUNCATE):", re.DOTALL)
_COLUMN = re.compile(
    rf""" ({_NAME})\[(?:"(?:[^"]|"")*"|[^"])*?\]:(null|unchanged-toast-datum|B?'(?:[^']|'')*'|[^\s']+)""", re.DOTALL
)
_MESSAGE = re.compile(r"message: transactional: ([01]) prefix: (\S+), sz: \d+ content:(.*)", re.DOTALL)
_WORDS = {"true": "t", "false": "f"}


def by_test_decoding(lines: Iterable[tuple[int, str]]) -> Decoded:
    """What test_decoding (``include-xids``, ``skip-empty-xacts``) says."""
    decoded, events = Decoded(), []
    for lsn, line in lines:
        if line.startswith("BEGIN "):
            events = decoded.begin(int(line.split()[1]))
        elif line.startswith("COMMIT "):
            decoded.end = lsn
        elif (message := _MESSAGE.fullmatch(line)) is not None:
            decoded.messages.append((message[1] == "1", message[3]))
        else:
            events.append(_event(line))
    decoded.close()
    return decoded


def _event(line: str) -> Event:
    head = _HEAD.match(line)
    assert head is not None, line
    tables = [f"{_raw(table[1])}.{_raw(table[2])}" for table in _TABLE.finditer(head[1])]
    if head[2] == "TRUNCATE":
        return Truncation(frozenset(tables))
    operation = Operation(head[2].lower())
    old: Values | None = None
    at = head.end()
    if line.startswith(" old-key:", at):
        old, at = _columns(line, at + len(" old-key:"))
        assert line.startswith(" new-tuple:", at), line[at:]
        at += len(" new-tuple:")
    if line[at:] == " (no-tuple-data)":
        return RowChange(tables[0], operation, None, None)
    values, at = _columns(line, at)
    assert at == len(line), line[at:]
    if operation is Operation.DELETE:
        return RowChange(tables[0], operation, values, None)
    return RowChange(tables[0], operation, old, values)


def _columns(line: str, at: int) -> tuple[Values, int]:
    values: Values = {}
    while (found := _COLUMN.match(line, at)) is not None:
        at = found.end()
        if found[2] != "unchanged-toast-datum":
            values[_raw(found[1])] = _value(found[2])
    return values, at


def _value(text: str) -> str | None:
    if text == "null":
        return None
    if text.endswith("'"):
        return text[text.index("'") + 1 : -1].replace("''", "'")
    return _WORDS.get(text, text)


def _raw(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# ---------------------------------------------------------------- wal2json


def by_wal2json(lines: Iterable[tuple[int, str]]) -> Decoded:
    """What wal2json (``format-version`` 2, ``include-xids``) says. Its TRUNCATE comes table by table.

    Without types (``include-types``): it does not escape their names, so a name with quotes makes it no JSON.
    """
    decoded, events = Decoded(), []
    for lsn, line in lines:
        data = json.loads(line, parse_float=str, parse_int=str)
        match data["action"]:
            case "B":
                events = decoded.begin(int(data["xid"]))
            case "C":
                decoded.end = lsn
            case "M":
                decoded.messages.append((data["transactional"], data["content"]))
            case "T":
                events.append(Truncation(frozenset([_table(data)])))
            case action:
                operation = {"I": Operation.INSERT, "U": Operation.UPDATE, "D": Operation.DELETE}[action]
                old = None if operation is Operation.INSERT else _json_values(data.get("identity"))
                events.append(RowChange(_table(data), operation, old, _json_values(data.get("columns"))))
    decoded.close()
    return decoded


def _table(data: dict[str, Any]) -> str:
    return f"{data['schema']}.{data['table']}"


def _json_values(columns: list[dict[str, Any]] | None) -> Values | None:
    if columns is None:
        return None
    return {column["name"]: _json_text(column["value"]) for column in columns}


def _json_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "t" if value else "f"
    return None if value is None else str(value)
