"""Says slowly and obviously whether a condition holds: what compiled conditions are compared with.

Shares with the package the tree and nothing else: values are read by type here, with Python's own types.
"""

from __future__ import annotations

import ctypes
import datetime
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

from invalidator.rules.condition.kinds import Kind
from invalidator.rules.condition.tree import (
    All,
    AnyOf,
    Changed,
    Column,
    Comparison,
    Membership,
    Node,
    Not,
    Truth,
    Value,
)


class Unsent(Enum):
    UNSENT = 1


UNSENT = Unsent.UNSENT
Values = Mapping[str, bytes | Unsent | None]


@dataclass(frozen=True)
class Rows:
    """The two images; None for one that does not exist."""

    old: Values | None
    new: Values | None

    @property
    def images(self) -> list[str]:
        return [name for name, image in (("new", self.new), ("old", self.old)) if image is not None]

    def value(self, image: str, column: str) -> bytes | Unsent | None:
        row = self.new if image == "new" else self.old
        return None if row is None else row[column]


def may_hold(node: Node, rows: Rows, kinds: Mapping[str, Kind]) -> bool:
    """Whether it holds for some image, for some truth of each term that needs something that was not sent."""
    return any(_may(node, image, rows, kinds) for image in rows.images)


def holds(node: Node, rows: Rows, kinds: Mapping[str, Kind]) -> bool:
    """The same where everything was sent."""
    return any(_holds(node, image, rows, kinds) for image in rows.images)


def completions(rows: Rows, domains: Mapping[str, list[bytes | None]]) -> Iterator[Rows]:
    """Every pair of images that Postgres may have had when this was sent.

    A value of the new row is not sent if it did not change.
    """
    places = [
        (image, name)
        for image, row in (("old", rows.old), ("new", rows.new))
        for name, value in (row or {}).items()
        if value is UNSENT
    ]
    for chosen in itertools.product(*(domains[name] for _, name in places)):
        images: dict[str, dict[str, Any]] = {"old": dict(rows.old or {}), "new": dict(rows.new or {})}
        for (image, name), value in zip(places, chosen, strict=True):
            images[image][name] = value
        if all(images["old"][name] == images["new"][name] for image, name in places if image == "new" and rows.old):
            yield Rows(images["old"] if rows.old is not None else None, images["new"] if rows.new is not None else None)


def _may(node: Node, image: str, rows: Rows, kinds: Mapping[str, Kind]) -> bool:
    return True in _truths(node, image, rows, kinds)


def _truths(node: Node, image: str, rows: Rows, kinds: Mapping[str, Kind]) -> set[bool]:
    match node:
        case All() | AnyOf():
            combine = all if isinstance(node, All) else any
            parts = [_truths(term, image, rows, kinds) for term in node.terms]
            return {combine(chosen) for chosen in itertools.product(*parts)}
        case Not():
            return {not truth for truth in _truths(node.term, image, rows, kinds)}
        case Changed():
            return {any(chosen) for chosen in itertools.product(*(_changes(c.name, rows) for c in node.columns))}
        case _:
            places = [(image if column.scope == "row" else column.scope, column.name) for column in _columns(node)]
            is_order = isinstance(node, Comparison) and node.operator not in ("=", "!=")
            if is_order and any(its not in rows.images for its, _ in places):
                return {False}  # whatever the other column holds
            is_unsent = any(rows.value(*place) is UNSENT for place in places)
            return {True, False} if is_unsent else {_holds(node, image, rows, kinds)}


def _columns(node: Node) -> list[Column]:
    match node:
        case Truth() | Membership():
            return [node.column]
        case Comparison():
            return [node.left, *([node.right] if isinstance(node.right, Column) else [])]
        case _:
            return []


def _changes(name: str, rows: Rows) -> set[bool]:
    if rows.old is None or rows.new is None:
        return {True}
    old, new = rows.old[name], rows.new[name]
    if new is UNSENT:
        return {False}
    return {True, False} if old is UNSENT else {old != new}


def _holds(node: Node, image: str, rows: Rows, kinds: Mapping[str, Kind]) -> bool:
    def read(column: Column, kind: Kind | None = None) -> Any:
        value = rows.value(image if column.scope == "row" else column.scope, column.name)
        assert not isinstance(value, Unsent)
        return None if value is None else decode(value.decode(), kind or kinds[column.name])

    match node:
        case All():
            return all(_holds(term, image, rows, kinds) for term in node.terms)
        case AnyOf():
            return any(_holds(term, image, rows, kinds) for term in node.terms)
        case Not():
            return not _holds(node.term, image, rows, kinds)
        case Changed():
            return any(True in _changes(column.name, rows) for column in node.columns)
        case Truth():
            return read(node.column) is True
        case Membership():
            kind = kinds[node.column.name]
            return any(read(node.column) == written(value, kind) for value in node.values)
        case Comparison(operator, left, right):
            if isinstance(right, Value):
                return compare(operator, read(left), written(right, kinds[left.name]))
            first, second = _cast(kinds[left.name], kinds[right.name])
            return compare(operator, read(left, first), read(right, second))


def _cast(left: Kind, right: Kind) -> tuple[Kind, Kind]:
    """As what Postgres reads both: any number beside a float becomes a double, from the real that a real is."""
    floats = {Kind.REAL, Kind.DOUBLE}
    if left is not right and floats & {left, right}:
        return (left if left in floats else Kind.DOUBLE, right if right in floats else Kind.DOUBLE)
    return left, right


def compare(operator: str, left: Any, right: Any) -> bool:
    match operator:
        case "=":
            return bool(left == right)
        case "!=":
            return bool(left != right)
        case _ if left is None or right is None:
            return False
        case "<":
            return bool(left < right)
        case "<=":
            return bool(left <= right)
        case ">":
            return bool(left > right)
        case _:
            return bool(left >= right)


def written(value: Value, kind: Kind) -> Any:
    return None if value.form == "null" else decode(value.text, kind)


def decode(text: str, kind: Kind) -> Any:
    """A value by its type: numbers as pairs, so that infinities and NaN are in Postgres' order."""
    read = _DECODERS.get(kind)
    return text if read is None else read(text)


def _number(text: str, read: Callable[[str], Decimal | float]) -> tuple[int, Fraction]:
    special = {"nan": 2, "infinity": 1, "-infinity": -1, "inf": 1, "-inf": -1}.get(text.lower())
    return (0, Fraction(read(text))) if special is None else (special, Fraction(0))


def _moment(text: str) -> datetime.datetime:
    made = datetime.datetime.fromisoformat(text)
    return made if made.tzinfo else made.replace(tzinfo=datetime.UTC)


_DECODERS: Mapping[Kind, Callable[[str], Any]] = {
    Kind.BOOLEAN: lambda text: text.lower() in ("t", "true"),
    Kind.INTEGER: lambda text: _number(text, Decimal),
    Kind.NUMERIC: lambda text: _number(text, Decimal),
    Kind.DOUBLE: lambda text: _number(text, float),
    Kind.REAL: lambda text: _number(text, lambda digits: ctypes.c_float(float(digits)).value),
    Kind.PADDED: lambda text: text.rstrip(" "),
    Kind.UUID: lambda text: text.lower().replace("-", "").strip("{}"),
    Kind.DATE: datetime.date.fromisoformat,
    Kind.TIME: datetime.time.fromisoformat,
    Kind.TIMESTAMP: datetime.datetime.fromisoformat,
    Kind.TIMESTAMPTZ: _moment,
}
