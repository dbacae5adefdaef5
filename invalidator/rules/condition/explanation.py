"""Says for one row why a condition holds, does not, or may."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.rules.condition.code import Asked, Image, Missing, certainty, possibility
from invalidator.rules.condition.kinds import Kind
from invalidator.rules.condition.tree import (
    All,
    AnyOf,
    Changed,
    Column,
    Comparison,
    Condition,
    Membership,
    Node,
    Not,
    Truth,
    Value,
    columns_of,
    terms_of,
)

KnownRow = Mapping[str, bytes | None]
"""The values of one image by column, as Postgres prints them; one that is left out was not sent."""

_PLAIN: Final = re.compile(r"[^\W\d][\w$]*")
_SHOWN_PARTS: Final = 12
_WORDS: Final = {True: "true", False: "false", None: "may be true"}


def truth(condition: Condition, old: KnownRow | None, new: KnownRow | None, kinds: Mapping[str, Kind]) -> bool | None:
    """Whether the condition holds; None if it may, because something was not sent.

    Args:
        condition: what is asked; its columns must fit (``type_problems``).
        old: the row before; None if there is none.
        new: the row after; None if there is none.
        kinds: the kind of every column.

    Raises:
        ValueError: a value is none of its column's type.
        ArithmeticError: likewise, of a number.
    """
    return _truth(condition.node, _Known(old, new), kinds)


def explain(condition: Condition, old: KnownRow | None, new: KnownRow | None, kinds: Mapping[str, Kind]) -> str:
    """The truth of the condition, and where it has parts, of each: ``true (status = 'published': for the old row)``."""
    row = _Known(old, new)
    node = condition.node
    parts = node.terms if isinstance(node, All | AnyOf) else (node,)
    if len(parts) == 1:
        return _told(node, row, kinds)
    details = [f"{written(part)}: {_told(part, row, kinds)}" for part in parts[:_SHOWN_PARTS]]
    if len(parts) > _SHOWN_PARTS:
        details.append(f"and {len(parts) - _SHOWN_PARTS} more")
    return f"{_WORDS[_truth(node, row, kinds)]} ({'; '.join(details)})"


def written(node: Node) -> str:
    """A part of a condition as text, in one spelling."""
    match node:
        case All() | AnyOf():
            word = " and " if isinstance(node, All) else " or "
            return "(" + word.join(map(written, node.terms)) + ")"
        case Not():
            return f"not {written(node.term)}"
        case Changed():
            return f"changed({', '.join(_name(column.name) for column in node.columns)})"
        case Truth():
            return _column(node.column)
        case Membership():
            return f"{_column(node.column)} in ({', '.join(map(_value, node.values))})"
        case Comparison():
            right = _value(node.right) if isinstance(node.right, Value) else _column(node.right)
            return f"{_column(node.left)} {node.operator} {right}"


@dataclass(frozen=True, slots=True)
class _Known:
    """Implements :class:`invalidator.rules.condition.code.Row` over rows that are known."""

    old: KnownRow | None
    new: KnownRow | None

    @property
    def images(self) -> Sequence[Image]:
        there: tuple[Image, ...] = () if self.new is None else ("new",)
        return there if self.old is None else (*there, "old")

    def value(self, image: Image, column: str) -> str | Missing:
        row = self.new if image == "new" else self.old
        if row is None:
            return Missing.NO_IMAGE
        return _argument(image, column) if column in row else Missing.NOT_CARRIED

    def change(self, column: str) -> bool | tuple[str, str] | str:
        if self.new is None or self.old is None:
            return True
        if column not in self.new:
            return False  # only what did not change is not sent
        if column not in self.old:
            return _argument("new", column)
        return _argument("old", column), _argument("new", column)

    def arguments(self) -> dict[str, bytes | None]:
        rows: tuple[tuple[Image, KnownRow], ...] = (("new", self.new or {}), ("old", self.old or {}))
        return {_argument(image, column): value for image, row in rows for column, value in row.items()}


def _argument(image: Image, column: str) -> str:
    return f"{image}_{column.encode('utf-8', 'surrogatepass').hex()}"  # columns may have any name, arguments not


def _truth(node: Node, row: _Known, kinds: Mapping[str, Kind]) -> bool | None:
    condition, known = Condition("", node), row.arguments()
    may = _answer(possibility(condition, kinds, row), known)
    return None if may and not _answer(certainty(condition, kinds, row), known) else may


def _answer(asked: Asked, known: Mapping[str, bytes | None]) -> bool:
    function, arguments = asked
    if isinstance(function, bool):
        return function
    try:
        return bool(function(*(known[name] for name in arguments)))
    except LookupError:  # a date is looked at by its fifth byte
        msg = "a value that is none of its column's type"
        raise ValueError(msg) from None


def _told(node: Node, row: _Known, kinds: Mapping[str, Kind]) -> str:
    """The truth of one part, and for which row, or for want of what."""
    found = _truth(node, row, kinds)
    if found is None:
        return f"may be true, because {_listed(_unsent(node, row))} not sent"
    if found and len(row.images) == 2 and _asks_each_image(node):
        where = [image for image in row.images if _truth(node, _of_image(row, image), kinds)]
        return "true for both rows" if len(where) == 2 else f"true for the {where[0]} row" if where else "true"
    return _WORDS[found]


def _asks_each_image(node: Node) -> bool:
    """Whether one image alone decides it: bare columns, and nothing that asks for an image of its own."""
    terms = list(terms_of(node))
    scopes = {column.scope for term in terms for column in columns_of(term)}
    return scopes == {"row"} and not any(isinstance(term, Changed) for term in terms)


def _of_image(row: _Known, image: Image) -> _Known:
    return _Known(None, row.new) if image == "new" else _Known(row.old, None)


def _unsent(node: Node, row: _Known) -> Iterator[str]:
    for term in terms_of(node):
        for column in columns_of(term):
            scopes = row.images if column.scope == "row" else (column.scope,)
            scopes = ("old", "new") if isinstance(term, Changed) else scopes
            for image in scopes:
                if row.value(image, column.name) is Missing.NOT_CARRIED:
                    yield f"{image}.{_name(column.name)}"


def _listed(names: Iterator[str]) -> str:
    distinct = sorted(set(names))
    return f"{' and '.join(distinct)} {'was' if len(distinct) == 1 else 'were'}"


def _column(column: Column) -> str:
    return _name(column.name) if column.scope == "row" else f"{column.scope}.{_name(column.name)}"


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _value(value: Value) -> str:
    return "'" + value.text.replace("'", "''") + "'" if value.form == "text" else value.text
