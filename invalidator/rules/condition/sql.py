"""The same condition as an expression for Postgres, with the same treatment of NULL: row filters, and proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
    Scope,
    Truth,
    Value,
)
from invalidator.rules.condition.values import canonical

UNQUALIFIED: Final[Mapping[Scope, str]] = {"row": "", "new": "", "old": ""}
"""For a row filter or a WHERE: there is one row."""


def sql(condition: Condition, kinds: Mapping[str, Kind], *, tables: Mapping[Scope, str] = UNQUALIFIED) -> str:
    """A boolean expression, never NULL, that is true for the rows for which the condition is.

    Args:
        condition: what is asked; its columns must fit (``type_problems``).
        kinds: the kind of every column, so that values are written as the column reads them.
        tables: the name, unquoted, under which the statement knows the row of each scope; empty: columns stand alone.
    """
    return _Writer(kinds, tables).node(condition.node)


def identifier(name: str) -> str:
    """A name in double quotes, for any name."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """A text in single quotes; a backslash in it means itself, whatever the server's settings are."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


class _Writer:
    def __init__(self, kinds: Mapping[str, Kind], tables: Mapping[Scope, str]) -> None:
        self._kinds = kinds
        self._tables = tables

    def node(self, node: Node) -> str:
        match node:
            case All():
                return "(" + " AND ".join(map(self.node, node.terms)) + ")"
            case AnyOf():
                return "(" + " OR ".join(map(self.node, node.terms)) + ")"
            case Not():
                return f"(NOT {self.node(node.term)})"
            case Changed():
                return "(" + " OR ".join(self.change(column.name) for column in node.columns) + ")"
            case Truth():
                return f"(coalesce({self.column(node.column)}, false))"
            case Membership():
                return self.membership(node)
            case Comparison():
                return self.comparison(node)

    def column(self, column: Column) -> str:
        table = self._tables[column.scope]
        return f"{identifier(table)}.{identifier(column.name)}" if table else identifier(column.name)

    def change(self, name: str) -> str:
        """As texts: that is what the stream sends, and some types have no equality of their own."""
        old, new = self.column(Column("old", name)), self.column(Column("new", name))
        return f"({old}::text IS DISTINCT FROM {new}::text)"

    def value(self, column: Column, value: Value) -> str:
        text = canonical(value, self._kinds[column.name])
        if text is None:
            return "NULL"
        if self._kinds[column.name] is Kind.INTEGER:
            return f"({text.decode('ascii')})"  # in quotes it would have to fit into a smallint column
        return text_literal(text.decode("utf-8", "surrogateescape"))

    def membership(self, node: Membership) -> str:
        column = self.column(node.column)
        known = [self.value(node.column, value) for value in node.values if value.form != "null"]
        tests = [f"coalesce({column} IN ({', '.join(known)}), false)"] if known else []
        if any(value.form == "null" for value in node.values):
            tests.append(f"{column} IS NULL")
        return "(" + " OR ".join(tests) + ")"

    def comparison(self, node: Comparison) -> str:
        left = self.column(node.left)
        if isinstance(node.right, Value) and node.right.form == "null":
            return f"({left} IS {'' if node.operator == '=' else 'NOT '}NULL)"
        if isinstance(node.right, Value):
            right = self.value(node.left, node.right)
        else:
            right = self.column(node.right)
            kinds = {self._kinds[node.left.name], self._kinds[node.right.name]}
            if kinds == {Kind.TEXT, Kind.PADDED} or (Kind.UNKNOWN in kinds and len(kinds) > 1):
                left, right = f"{left}::text", f"{right}::text"
        match node.operator:
            case "=":
                return f"({left} IS NOT DISTINCT FROM {right})"
            case "!=":
                return f"({left} IS DISTINCT FROM {right})"
            case _:
                return f"(coalesce({left} {node.operator} {right}, false))"
