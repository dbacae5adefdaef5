"""A condition as a tree of values; positions are carried along and do not count for equality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Scope = Literal["row", "new", "old"]
"""``row`` is a bare column: the condition is asked for every row image there is."""

Form = Literal["text", "number", "boolean", "null"]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


class ConditionError(Exception):
    """A condition cannot be understood, or does not fit the columns.

    Args:
        message: what is wrong.
        offset: 0-based character in the condition's text.
        width: how many characters are meant, at least 1.
        code: ``condition-syntax``, ``condition-type`` or ``unknown-column``.
        help: what to type instead, if that is known.
    """

    def __init__(
        self, message: str, *, offset: int, width: int = 1, code: str = "condition-syntax", help: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.width = max(1, width)
        self.code = code
        self.help = help


@dataclass(frozen=True, slots=True)
class Column:
    """A column of one image, or with ``row`` of each image there is."""

    scope: Scope
    name: str
    offset: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is written in the condition, as it is written, without quotes."""

    text: str
    form: Form
    offset: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column beside a value or another column; NULL equals NULL, and is neither less nor more than anything."""

    operator: Operator
    left: Column
    right: Column | Value


@dataclass(frozen=True, slots=True)
class Membership:
    """A column that has one of these values."""

    column: Column
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """One of these columns differs between the images; always so if there is only one image."""

    columns: tuple[Column, ...]
    """Each of scope ``new``; the old one is meant as well."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A boolean column that is true."""

    column: Column


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    term: Node


@dataclass(frozen=True, slots=True)
class All:
    """All of these hold."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    terms: tuple[Node, ...]


Term = Comparison | Membership | Changed | Truth
Node = Term | Not | All | AnyOf


@dataclass(frozen=True)
class Condition:
    """A checked condition. Equal conditions mean the same, however they are spelled and laid out."""

    text: str = field(compare=False)
    node: Node

    @cached_property
    def references(self) -> frozenset[tuple[Scope, str]]:
        """Image and name of every column that is asked for; ``changed`` asks for both images."""
        found: set[tuple[Scope, str]] = set()
        for term in terms_of(self.node):
            for column in columns_of(term):
                found.add((column.scope, column.name))
                if isinstance(term, Changed):
                    found.add(("old", column.name))
        return frozenset(found)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The names of these columns."""
        return frozenset(name for _, name in self.references)


def terms_of(node: Node) -> Iterator[Term]:
    """Every comparison, membership, change and boolean column in the tree, from left to right."""
    match node:
        case All() | AnyOf():
            for part in node.terms:
                yield from terms_of(part)
        case Not():
            yield from terms_of(node.term)
        case _:
            yield node


def columns_of(term: Term) -> tuple[Column, ...]:
    """The columns of one term."""
    match term:
        case Comparison(_, left, Column() as right):
            return (left, right)
        case Comparison(_, left, _):
            return (left,)
        case Changed():
            return term.columns
        case Membership() | Truth():
            return (term.column,)
