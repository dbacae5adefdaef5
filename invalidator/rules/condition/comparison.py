"""Tests of values that are there, as expressions: beside written values, and beside each other.

Exact, but not always by the exact type: what can be told from the nearest double, or from the bytes of a date, is told
from them, which takes a quarter of the time for dates and two thirds for numbers (figures ``condition_*`` of
``scripts/bench rules``).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.rules.condition.expression import Builder, Expression, all_of, any_of, compare, negated
from invalidator.rules.condition.kinds import MOMENTS, Kind, common_kind
from invalidator.rules.condition.tree import Column, Comparison, Membership, Operator, Truth
from invalidator.rules.condition.values import DECODED_FOR_EQUALITY, DECODERS, canonical

_OPERATORS: Final[dict[Operator, type[ast.cmpop]]] = {
    "=": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
}
_OPPOSITES: Final[dict[Operator, type[ast.cmpop]]] = {">": ast.LtE, ">=": ast.Lt}
_EQUALITY: Final = frozenset({"=", "!="})
_FEW: Final = 4
"""Up to so many values a search through a tuple is cheaper than a hash."""
_LOCAL: Final = "number"
"""No argument has this name."""


@dataclass(frozen=True, slots=True)
class Comparer:
    """Builds tests for the values of one term; the name of a value is None only beside that of another column."""

    build: Builder
    kinds: Mapping[str, Kind]

    def test(self, term: Comparison | Membership | Truth, names: Mapping[Column, str | None]) -> Expression:
        """The test of a term whose values were sent, or belong to an image that does not exist."""
        match term:
            case Truth():
                return self._equality(names[term.column], (b"t",), Kind.BOOLEAN)
            case Membership():
                kind = self.kinds[term.column.name]
                values = tuple(dict.fromkeys(canonical(value, kind) for value in term.values))
                return self._equality(names[term.column], values, kind)
            case Comparison(operator, left, value):
                if isinstance(value, Column):
                    return self._pair(operator, left, value, names)
                name, kind = names[left], self.kinds[left.name]
                text = canonical(value, kind)
                if operator in _EQUALITY:
                    is_equal = self._equality(name, (text,), kind)
                    return is_equal if operator == "=" else negated(is_equal)
                return self._order(operator, name, text, kind)

    # -------------------------------------------------------------------------------- beside written values

    def _order(self, operator: Operator, name: str | None, text: bytes | None, kind: Kind) -> Expression:
        """Whether a value is on that side of a written one; NULL is on neither."""
        if name is None or text is None:
            return False
        return all_of([self.build.is_not_null(name), self._ordered(operator, name, text, kind)])

    def _ordered(self, operator: Operator, name: str, text: bytes, kind: Kind) -> ast.expr:
        decoder = DECODERS.get(kind)
        bound = self.build.constant(text if decoder is None else decoder(text))
        exact = compare(self._decoded(name, kind), _OPERATORS[operator], bound)
        if kind in MOMENTS and _is_plain_moment(text):
            as_bytes = compare(self.build.load(name), _OPERATORS[operator], ast.Constant(text))
            return ast.IfExp(self._is_plain_moment(name), as_bytes, exact)
        if kind not in (Kind.NUMERIC, Kind.DOUBLE) or not math.isfinite(float(text)):
            return exact
        number, near = self.build.call(float, self.build.load(name)), ast.Constant(float(text))
        if kind is Kind.DOUBLE:
            return _on_side(operator, number, near)
        # Rounding keeps order: numbers whose nearest doubles differ are in the order of these.
        known, local = ast.NamedExpr(ast.Name(_LOCAL, ast.Store()), number), ast.Name(_LOCAL, ast.Load())
        return ast.IfExp(compare(known, ast.NotEq, near), _on_side(operator, local, near), exact)

    def _is_plain_moment(self, name: str) -> ast.expr:
        """Whether the year has four digits and is AD: ``value[4] == ord("-") and value[-1] != ord("C")``."""
        tests = ((4, ast.Eq, "-"), (-1, ast.NotEq, "C"))
        return ast.BoolOp(ast.And(), [self._byte(name, at, operator, sign) for at, operator, sign in tests])

    def _byte(self, name: str, at: int, operator: type[ast.cmpop], sign: str) -> ast.expr:
        byte = ast.Subscript(self.build.load(name), ast.Constant(at), ast.Load())
        return compare(byte, operator, ast.Constant(ord(sign)))

    def _equality(self, name: str | None, values: tuple[bytes | None, ...], kind: Kind) -> Expression:
        """Whether a value is one of these, NULL among them or not."""
        if name is None:
            return None in values
        if kind not in DECODED_FOR_EQUALITY:
            return self._among(self.build.load(name), values)
        known = [value for value in values if value is not None]
        is_known = all_of([self.build.is_not_null(name), self._equal(name, known, kind)]) if known else False
        is_null = self.build.is_null(name) if None in values else False
        return any_of([is_known, is_null])

    def _equal(self, name: str, texts: Sequence[bytes], kind: Kind) -> Expression:
        decoder = DECODERS[kind]
        exact = self._among(self._decoded(name, kind), list(dict.fromkeys(map(decoder, texts))))
        if kind not in (Kind.NUMERIC, Kind.DOUBLE) or not all(map(math.isfinite, map(float, texts))):
            return exact
        number = self.build.call(float, self.build.load(name))
        near = self._among(number, list(dict.fromkeys(map(float, texts))))
        return near if kind is Kind.DOUBLE else all_of([near, exact])

    def _among(self, value: ast.expr, known: Sequence[object]) -> ast.expr:
        if len(known) == 1:
            single = known[0]
            return compare(value, ast.Is if single is None else ast.Eq, self.build.constant(single))
        if len(known) <= _FEW:
            return compare(value, ast.In, self.build.constant(tuple(known)))
        return compare(value, ast.In, self.build.constant(frozenset(known)))

    # ---------------------------------------------------------------------------------- beside each other

    def _pair(self, operator: Operator, left: Column, right: Column, names: Mapping[Column, str | None]) -> Expression:
        """Two columns; in the kind that both can be read as."""
        first, second = names[left], names[right]
        if operator in _EQUALITY:
            is_equal = self._equal_pair(left, right, first, second)
            return is_equal if operator == "=" else negated(is_equal)
        if first is None or second is None:
            return False
        return self._known_pair(operator, (left, first), (right, second))

    def _equal_pair(self, left: Column, right: Column, first: str | None, second: str | None) -> Expression:
        if first is None or second is None:
            known = first or second
            return True if known is None else self.build.is_null(known)
        kind = self._shared(left, right)
        readers = {_reader(self.kinds[column.name], kind) for column in (left, right)}
        plain = compare(self.build.load(first), ast.Eq, self.build.load(second))
        if len(readers) == 1 and not readers & DECODED_FOR_EQUALITY:
            return plain
        is_known = self._known_pair("=", (left, first), (right, second))
        if len(readers) == 1:
            return any_of([plain, is_known])
        # The same text read in two ways is two values: 0.1 as a real is not 0.1 as a double.
        are_null = all_of([self.build.is_null(first), self.build.is_null(second)])
        return any_of([are_null, is_known])

    def _known_pair(self, operator: Operator, left: tuple[Column, str], right: tuple[Column, str]) -> Expression:
        """The test of decoded values, neither of them NULL."""
        kind = self._shared(left[0], right[0])
        first, second = (self._decoded(name, self.kinds[column.name], kind) for column, name in (left, right))
        are_known = [self.build.is_not_null(name) for _, name in (left, right)]
        return all_of([*are_known, compare(first, _OPERATORS[operator], second)])

    def _shared(self, left: Column, right: Column) -> Kind:
        kind = common_kind((self.kinds[left.name], self.kinds[right.name]))
        if kind is None:
            msg = "columns of kinds that cannot be compared"  # refused by type_problems
            raise TypeError(msg)
        return kind

    def _decoded(self, name: str, kind: Kind, shared: Kind | None = None) -> ast.expr:
        """The value as its kind reads it, or as the kind in which it is compared with another column."""
        decoder = DECODERS.get(kind if shared is None else _reader(kind, shared))
        return self.build.load(name) if decoder is None else self.build.call(decoder, self.build.load(name))


def _reader(kind: Kind, shared: Kind) -> Kind:
    """As what a value is read to be compared in a shared kind; a ``real`` beside a double is what it really is."""
    return kind if kind in (Kind.REAL, Kind.PADDED) else shared


def _on_side(operator: Operator, number: ast.expr, bound: ast.expr) -> ast.expr:
    """The side of a finite bound on which a double is; NaN, which Python finds on neither, is above."""
    if operator in _OPPOSITES:
        return ast.UnaryOp(ast.Not(), compare(number, _OPPOSITES[operator], bound))
    return compare(number, _OPERATORS[operator], bound)


def _is_plain_moment(text: bytes) -> bool:
    return text[4:5] == b"-" and not text.endswith(b"C")
