"""Makes Python functions of a condition, by way of a syntax tree that is built here node by node.

Nothing of a rule or a row is ever read as Python: names of columns become the argument names that ``reading.py``
gives, values become constants.

A value may be missing in two ways. Messages of some forms never carry it (the old row without its identity): that is
known here, and every term that needs it is folded away. Or this one message left it out (an unchanged TOAST value):
then its argument is False. So there are two functions. ``exact`` is for messages in which every argument was sent;
``may`` asks each term for its arguments, and is true if the condition could be.

Whether something *may* hold and whether it *must* hold are two questions, and a negation swaps them; so both are
compiled from one walk over the tree, without a third truth value at run time.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import CodeType, FunctionType
from typing import Final, Literal, Protocol

from invalidator.rules.condition.kinds import Kind, common_kind
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
from invalidator.rules.condition.values import DECODED_FOR_EQUALITY, DECODERS, canonical

Image = Literal["new", "old"]
Function = Callable[..., bool]


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


def compile_condition(condition: Condition, kinds: Mapping[str, Kind], row: Row) -> Compiled:
    """The condition for one form of message, whose columns must fit (``type_problems``)."""
    exact = _Compiler(kinds, row, asks=False)
    may = _Compiler(kinds, row, asks=True)
    exact_body, may_body = exact.anywhere(condition.node), may.anywhere(condition.node)
    arguments = tuple(sorted(exact.arguments | may.arguments))
    return Compiled(exact.function(exact_body, arguments), may.function(may_body, arguments), arguments)


def certainty(condition: Condition, kinds: Mapping[str, Kind], row: Row) -> tuple[Function | bool, tuple[str, ...]]:
    """Whether the condition must hold, whatever was not sent; and the names of the function's arguments."""
    compiler = _Compiler(kinds, row, asks=True)
    body = compiler.anywhere(condition.node, must=True)
    arguments = tuple(sorted(compiler.arguments))
    return compiler.function(body, arguments), arguments


_Expression = ast.expr | bool

_OPERATORS: Final[dict[str, type[ast.cmpop]]] = {
    "=": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
}
_EQUALITY: Final = frozenset({"=", "!="})
_FEW: Final = 4
"""Up to so many values a search through a tuple is cheaper than a hash."""


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
    arguments: set[str] = field(default_factory=set)
    constants: dict[str, object] = field(default_factory=dict)

    def anywhere(self, node: Node, *, must: bool = False) -> _Expression:
        """Whether it may (or must) hold for one of the images, if it asks for each of them."""
        made = [self.of(node, image, must=must) for image in _images(node, self.row)]
        # The old row may be known to have the new row's values.
        distinct = {part if isinstance(part, bool) else ast.dump(part): part for part in made}
        return _any(list(distinct.values()))

    def of(self, node: Node, image: Image, *, must: bool) -> _Expression:
        """Whether it may (or must) hold, with bare columns of this image."""
        match node:
            case All():
                return _all([self.of(term, image, must=must) for term in node.terms])
            case AnyOf():
                return _any([self.of(term, image, must=must) for term in node.terms])
            case Not():
                return _not(self.of(node.term, image, must=not must))
            case Changed():
                return _any([self.change(column.name, must=must) for column in node.columns])
            case _:
                return self.term(node, image, must=must)

    def change(self, column: str, *, must: bool) -> _Expression:
        found = self.row.change(column)
        if isinstance(found, bool):
            return found
        if isinstance(found, str):  # only that it was sent is known
            return False if must else self.was_sent(found) if self.asks else True
        old, new = map(self.load, found)
        return self.asked(_compare(old, ast.NotEq, new), found, must=must)

    def was_sent(self, name: str) -> ast.expr:
        return _compare(self.load(name), ast.IsNot, ast.Constant(False))

    def term(self, term: Comparison | Membership | Truth, image: Image, *, must: bool) -> _Expression:
        found = {
            column: self.row.value(image if column.scope == "row" else column.scope, column.name)
            for column in columns_of(term)
        }
        if Missing.NO_IMAGE in found.values() and (known := _of_null(term)) is not None:
            return known
        if Missing.NOT_CARRIED in found.values():
            return not must
        names = {column: None if isinstance(name, Missing) else name for column, name in found.items()}
        made = self.test(term, names)
        return made if isinstance(made, bool) else self.asked(made, tuple(filter(None, names.values())), must=must)

    def asked(self, test: ast.expr, names: Sequence[str], *, must: bool) -> ast.expr:
        """The test, but only of values that were sent."""
        if not self.asks:
            return test
        operator, boolean = (ast.IsNot, ast.And) if must else (ast.Is, ast.Or)
        checks = [_compare(self.load(name), operator, ast.Constant(False)) for name in dict.fromkeys(names)]
        return ast.BoolOp(boolean(), [*checks, test])

    # ------------------------------------------------------------------------------------------------- terms

    def test(self, term: Comparison | Membership | Truth, names: Mapping[Column, str | None]) -> _Expression:
        """The test of values that are there; a name is None only beside that of another column."""
        match term:
            case Truth():
                return self.equality(names[term.column], (b"t",), Kind.BOOLEAN)
            case Membership():
                kind = self.kinds[term.column.name]
                values = tuple(dict.fromkeys(canonical(value, kind) for value in term.values))
                return self.equality(names[term.column], values, kind)
            case Comparison(operator, left, value):
                if isinstance(value, Column):
                    return self.pair(operator, left, value, names)
                name, kind = names[left], self.kinds[left.name]
                text = canonical(value, kind)
                if operator in _EQUALITY:
                    is_equal = self.equality(name, (text,), kind)
                    return is_equal if operator == "=" else _not(is_equal)
                return self.order(operator, name, text, kind)

    def order(self, operator: str, name: str | None, text: bytes | None, kind: Kind) -> _Expression:
        """Whether a value is on that side of a written one; NULL is on neither."""
        if name is None or text is None:
            return False
        decoder = DECODERS.get(kind)
        bound = self.constant(text if decoder is None else decoder(text))
        return _all([self.is_not_null(name), _compare(self.decoded(name, kind), _OPERATORS[operator], bound)])

    def equality(self, name: str | None, values: tuple[bytes | None, ...], kind: Kind) -> _Expression:
        """Whether a value is one of these, NULL among them or not."""
        if name is None:
            return None in values
        if kind not in DECODED_FOR_EQUALITY:
            return self.among(self.load(name), values)
        decoder = DECODERS[kind]
        known = tuple(decoder(value) for value in values if value is not None)
        is_known = _all([self.is_not_null(name), self.among(self.decoded(name, kind), known)]) if known else False
        is_null = self.is_null(name) if None in values else False
        return _any([is_known, is_null])

    def among(self, value: ast.expr, known: Sequence[object]) -> ast.expr:
        if len(known) == 1:
            single = known[0]
            return _compare(value, ast.Is if single is None else ast.Eq, self.constant(single))
        if len(known) <= _FEW:
            return _compare(value, ast.In, self.constant(tuple(known)))
        return _compare(value, ast.In, self.constant(frozenset(known)))

    def pair(self, operator: str, left: Column, right: Column, names: Mapping[Column, str | None]) -> _Expression:
        """Two columns; in the kind that both can be read as."""
        first, second = names[left], names[right]
        if operator in _EQUALITY:
            is_equal = self.equal_pair(left, right, first, second)
            return is_equal if operator == "=" else _not(is_equal)
        if first is None or second is None:
            return False
        kind = self.shared(left, right)
        test = _compare(
            self.decoded(first, self.kinds[left.name], kind),
            _OPERATORS[operator],
            self.decoded(second, self.kinds[right.name], kind),
        )
        return _all([self.is_not_null(first), self.is_not_null(second), test])

    def equal_pair(self, left: Column, right: Column, first: str | None, second: str | None) -> _Expression:
        if first is None or second is None:
            known = first or second
            return True if known is None else self.is_null(known)
        kind = self.shared(left, right)
        readers = {_reader(self.kinds[column.name], kind) for column in (left, right)}
        plain = _compare(self.load(first), ast.Eq, self.load(second))
        if len(readers) == 1 and not readers & DECODED_FOR_EQUALITY:
            return plain
        decoded = _compare(
            self.decoded(first, self.kinds[left.name], kind),
            ast.Eq,
            self.decoded(second, self.kinds[right.name], kind),
        )
        is_known = _all([self.is_not_null(first), self.is_not_null(second), decoded])
        if len(readers) == 1:
            return _any([plain, is_known])
        # The same text read in two ways is two values: 0.1 as a real is not 0.1 as a double.
        are_null = _all([self.is_null(first), self.is_null(second)])
        return _any([are_null, is_known])

    def shared(self, left: Column, right: Column) -> Kind:
        kind = common_kind((self.kinds[left.name], self.kinds[right.name]))
        if kind is None:
            msg = "columns of kinds that cannot be compared"  # refused by type_problems
            raise TypeError(msg)
        return kind

    # --------------------------------------------------------------------------------------------- building

    def decoded(self, name: str, kind: Kind, wanted: Kind | None = None) -> ast.expr:
        """The value as its kind reads it, or as the kind in which it is compared with another column."""
        decoder = DECODERS.get(_reader(kind, kind if wanted is None else wanted))
        if decoder is None:
            return self.load(name)
        return ast.Call(self.constant(decoder), [self.load(name)], [])

    def is_null(self, name: str) -> ast.expr:
        return _compare(self.load(name), ast.Is, ast.Constant(None))

    def is_not_null(self, name: str) -> ast.expr:
        return _compare(self.load(name), ast.IsNot, ast.Constant(None))

    def load(self, name: str) -> ast.expr:
        self.arguments.add(name)
        return ast.Name(name, ast.Load())

    def constant(self, value: object) -> ast.expr:
        """A constant of the code, or where Python has none of the kind, a global of the function."""
        if value is None or _is_plain(value):
            return ast.Constant(value)  # type: ignore[arg-type]
        name = f"x{len(self.constants)}"
        self.constants[name] = value
        return ast.Name(name, ast.Load())

    def function(self, body: _Expression, arguments: Sequence[str]) -> Function | bool:
        if isinstance(body, bool):
            return body
        parameters = ast.arguments(
            posonlyargs=[], args=[ast.arg(name) for name in arguments], kwonlyargs=[], kw_defaults=[], defaults=[]
        )
        made = ast.FunctionDef("when", parameters, [ast.Return(body)], [])
        module = ast.fix_missing_locations(ast.Module([made], []))
        code = next(part for part in compile(module, "<when>", "exec").co_consts if isinstance(part, CodeType))
        return FunctionType(code, self.constants, "when")


def _reader(kind: Kind, shared: Kind) -> Kind:
    """As what a value is read to be compared in a shared kind; a ``real`` beside a double is what it really is."""
    return kind if kind in (Kind.REAL, Kind.PADDED) else shared


def _images(node: Node, row: Row) -> Sequence[Image]:
    """The images to ask: each one there is if a bare column asks for them, else any."""
    has_bare = any(column.scope == "row" for term in terms_of(node) for column in columns_of(term))
    return row.images if has_bare else row.images[:1]


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


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(part is None or _is_plain(part) for part in value)
    return type(value) in (bytes, int, float)


def _compare(left: ast.expr, operator: type[ast.cmpop], right: ast.expr) -> ast.expr:
    return ast.Compare(left, [operator()], [right])


def _not(expression: _Expression) -> _Expression:
    if isinstance(expression, bool):
        return not expression
    if isinstance(expression, ast.Compare) and type(expression.ops[0]) in _OPPOSITES:
        return _compare(expression.left, _OPPOSITES[type(expression.ops[0])], expression.comparators[0])
    return ast.UnaryOp(ast.Not(), expression)


_OPPOSITES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
}


def _all(expressions: Sequence[_Expression]) -> _Expression:
    return _joined(expressions, ast.And, neutral=True)


def _any(expressions: Sequence[_Expression]) -> _Expression:
    return _joined(expressions, ast.Or, neutral=False)


def _joined(expressions: Sequence[_Expression], operator: type[ast.boolop], *, neutral: bool) -> _Expression:
    parts: list[ast.expr] = []
    for expression in expressions:
        if not isinstance(expression, bool):
            parts.append(expression)
        elif expression is not neutral:
            return expression
    if len(parts) < 2:
        return parts[0] if parts else neutral
    return ast.BoolOp(operator(), parts)
