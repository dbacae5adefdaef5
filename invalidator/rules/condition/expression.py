"""Python expressions and functions built node by node: nothing is ever read as Python.

An expression is a bool where it is known already.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Final

Expression = ast.expr | bool
Function = Callable[..., bool]


@dataclass
class Builder:
    """Names and constants of one function under construction."""

    arguments: set[str] = field(default_factory=set)
    """The names that were loaded."""
    _globals: dict[str, object] = field(default_factory=dict)
    _names: dict[tuple[type, object], str] = field(default_factory=dict)

    def load(self, name: str) -> ast.expr:
        """The value of an argument."""
        self.arguments.add(name)
        return ast.Name(name, ast.Load())

    def is_null(self, name: str) -> ast.expr:
        """Whether an argument is None."""
        return compare(self.load(name), ast.Is, ast.Constant(None))

    def is_not_null(self, name: str) -> ast.expr:
        """Whether an argument is not None."""
        return compare(self.load(name), ast.IsNot, ast.Constant(None))

    def constant(self, value: object) -> ast.expr:
        """A constant of the code, or where Python has none of the kind, a global of the function."""
        if value is None or _is_plain(value):
            return ast.Constant(value)  # type: ignore[arg-type]
        # Equal values have one name, so that expressions that ask the same look the same.
        name = self._names.setdefault((type(value), value), f"x{len(self._names)}")
        self._globals[name] = value
        return ast.Name(name, ast.Load())

    def call(self, function: Callable[..., object], argument: ast.expr) -> ast.expr:
        """A call with one argument."""
        return ast.Call(self.constant(function), [argument], [])

    def function(self, body: Expression, arguments: Sequence[str]) -> Function | bool:
        """The function that returns this expression."""
        if isinstance(body, bool):
            return body
        parameters = ast.arguments(
            posonlyargs=[], args=[ast.arg(name) for name in arguments], kwonlyargs=[], kw_defaults=[], defaults=[]
        )
        made = ast.FunctionDef("when", parameters, [ast.Return(body)], [])
        module = ast.fix_missing_locations(ast.Module([made], []))
        code = next(part for part in compile(module, "<when>", "exec").co_consts if isinstance(part, CodeType))
        return FunctionType(code, self._globals, "when")


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(part is None or _is_plain(part) for part in value)
    return type(value) in (bytes, int, float)


def compare(left: ast.expr, operator: type[ast.cmpop], right: ast.expr) -> ast.expr:
    """One comparison."""
    return ast.Compare(left, [operator()], [right])


def negated(expression: Expression) -> Expression:
    """The opposite; what compares by order is not turned round, as NULL and NaN have no opposite side."""
    if isinstance(expression, bool):
        return not expression
    if isinstance(expression, ast.Compare) and type(expression.ops[0]) in _OPPOSITES:
        return compare(expression.left, _OPPOSITES[type(expression.ops[0])], expression.comparators[0])
    return ast.UnaryOp(ast.Not(), expression)


_OPPOSITES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
}


def all_of(expressions: Sequence[Expression]) -> Expression:
    """Whether all hold."""
    return _joined(expressions, ast.And, neutral=True)


def any_of(expressions: Sequence[Expression]) -> Expression:
    """Whether at least one holds."""
    return _joined(expressions, ast.Or, neutral=False)


def _joined(expressions: Sequence[Expression], operator: type[ast.boolop], *, neutral: bool) -> Expression:
    parts: list[ast.expr] = []
    for expression in expressions:
        if not isinstance(expression, bool):
            parts.append(expression)
        elif expression is not neutral:
            return expression
    if len(parts) < 2:
        return parts[0] if parts else neutral
    return ast.BoolOp(operator(), parts)
