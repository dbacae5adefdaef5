"""Makes Python functions of a condition, by way of a syntax tree that is built node by node (``expression``).

Nothing of a rule or a row is ever read as Python: names of columns become the argument names that ``reading.py``
gives, values become constants (``comparison``).

A value may be missing in two ways. Messages of some forms never carry it (the old row without its identity): that is
known here, and every term that needs it is folded away. Or this one message left it out (an unchanged TOAST value):
then its argument is False. So there are two functions. ``exact`` is for messages in which every argument was sent;
``may`` asks each term for its arguments, and is true if the condition could be.

Whether something *may* hold and whether it *must* hold are two questions, and a negation swaps them; so both are
compiled from one walk over the tree, without a third truth value at run time.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from invalidator.rules.condition.comparison import Comparer
from invalidator.rules.condition.expression import Builder, Expression, Function, all_of, any_of, compare, negated
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

Image = Literal["new", "old"]


class Missing(Enum):
    """Why there is no name for a value."""

    NO_IMAGE = 1  # every value of an image that does not exist is NULL
    NOT_CARRIED = 2  # nobody can know it


class Row(Protocol):
    """What one form of message carries."""

    @property
    def images(self) -> Sequence[Image]:
        """The images there are."""

    def value(self, image: Image, column: str) -> str | Missing:
        """The name of a value: bytes, None for NULL, False if it was not sent."""

    def change(self, column: str) -> bool | tuple[str, str] | str:
        """Whether a column changed: known already; or by the names of old and new; or it may have, if it was sent."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A condition for one form of message: what is known already, or functions and the names of their arguments."""

    exact: Function | bool
    """To be called when no argument is False."""
    may: Function | bool
    arguments: tuple[str, ...]


Asked = tuple[Function | bool, tuple[str, ...]]
"""What is known already, or a function; and the names of its arguments."""


def compile_condition(condition: Condition, kinds: Mapping[str, Kind], row: Row) -> Compiled:
    """The condition for one form of message, whose columns must fit (``type_problems``)."""
    exact = _Compiler(kinds, row, asks=False)
    may = _Compiler(kinds, row, asks=True)
    exact_body, may_body = exact.anywhere(condition.node), may.anywhere(condition.node)
    arguments = tuple(sorted(exact.build.arguments | may.build.arguments))
    return Compiled(exact.build.function(exact_body, arguments), may.build.function(may_body, arguments), arguments)


def possibility(condition: Condition, kinds: Mapping[str, Kind], row: Row) -> Asked:
    """Whether the condition may hold; the same as the form of ``compile_condition``."""
    return _asked(condition, kinds, row, must=False)


def certainty(condition: Condition, kinds: Mapping[str, Kind], row: Row) -> Asked:
    """Whether the condition must hold, whatever was not sent."""
    return _asked(condition, kinds, row, must=True)


def _asked(condition: Condition, kinds: Mapping[str, Kind], row: Row, *, must: bool) -> Asked:
    compiler = _Compiler(kinds, row, asks=True)
    body = compiler.anywhere(condition.node, must=must)
    arguments = tuple(sorted(compiler.build.arguments))
    return compiler.build.function(body, arguments), arguments


@dataclass
class _Compiler:
    """Builds expressions over one form of message.

    Args:
        kinds: how to compare each column.
        row: what messages of the form carry.
        asks: whether a value may turn out not to have been sent.
    """

    kinds: Mapping[str, Kind]
    row: Row
    asks: bool
    build: Builder = field(default_factory=Builder)

    def anywhere(self, node: Node, *, must: bool = False) -> Expression:
        """Whether it may (or must) hold for one of the images, if it asks for each of them."""
        bare = {column.name for term in terms_of(node) for column in columns_of(term) if column.scope == "row"}
        if not bare:
            return any_of([self.of(node, image, must=must) for image in self.row.images[:1]])
        # The old row may be known to have the new row's values.
        distinct = {tuple(self.row.value(image, name) for name in bare): image for image in self.row.images[::-1]}
        return any_of([self.of(node, image, must=must) for image in reversed(distinct.values())])

    def of(self, node: Node, image: Image, *, must: bool) -> Expression:
        """Whether it may (or must) hold, with bare columns of this image."""
        match node:
            case All():
                return all_of([self.of(term, image, must=must) for term in node.terms])
            case AnyOf():
                return any_of([self.of(term, image, must=must) for term in node.terms])
            case Not():
                return negated(self.of(node.term, image, must=not must))
            case Changed():
                return any_of([self.change(column.name, must=must) for column in node.columns])
            case _:
                return self.term(node, image, must=must)

    def change(self, column: str, *, must: bool) -> Expression:
        found = self.row.change(column)
        if isinstance(found, bool):
            return found
        if isinstance(found, str):  # only that it was sent is known
            return False if must else self.was_sent(found) if self.asks else True
        old, new = map(self.build.load, found)
        return self.asked(compare(old, ast.NotEq, new), found, must=must)

    def was_sent(self, name: str) -> ast.expr:
        return compare(self.build.load(name), ast.IsNot, ast.Constant(False))

    def term(self, term: Comparison | Membership | Truth, image: Image, *, must: bool) -> Expression:
        found = {
            column: self.row.value(image if column.scope == "row" else column.scope, column.name)
            for column in columns_of(term)
        }
        if Missing.NO_IMAGE in found.values() and (known := _of_null(term)) is not None:
            return known
        if Missing.NOT_CARRIED in found.values():
            return not must
        names = {column: None if isinstance(name, Missing) else name for column, name in found.items()}
        made = Comparer(self.build, self.kinds).test(term, names)
        return made if isinstance(made, bool) else self.asked(made, tuple(filter(None, names.values())), must=must)

    def asked(self, test: ast.expr, names: Sequence[str], *, must: bool) -> ast.expr:
        """The test, but only of values that were sent."""
        if not self.asks:
            return test
        operator, boolean = (ast.IsNot, ast.And) if must else (ast.Is, ast.Or)
        checks = [compare(self.build.load(name), operator, ast.Constant(False)) for name in dict.fromkeys(names)]
        return ast.BoolOp(boolean(), [*checks, test])


def _of_null(term: Comparison | Membership | Truth) -> bool | None:
    """What a term says of a column whose image does not exist; None if it depends on another column."""
    match term:
        case Truth():
            return False
        case Membership():
            return any(value.form == "null" for value in term.values)
        case Comparison("=" | "!=", _, Column()):
            return None
        case Comparison("=" | "!=", _, Value() as value):
            return (value.form == "null") == (term.operator == "=")
        case Comparison():
            return False
