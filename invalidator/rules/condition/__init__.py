"""Conditions such as ``status = 'published' and changed(title)``: read, checked, compiled, explained.

    syntax      text → ``tokens`` → ``tree``, with errors that know their place
    typing      the tree held against the types of columns (``kinds``), values against what they can hold (``values``)
    code        the tree as Python functions, for values that may not have been sent; ``binding`` calls them per row
    comparison  values beside written ones and beside each other, as an ``expression`` of Python
    sql         the tree as an expression for Postgres
    lints       what can be said without a database: never true, always true, blind for rows that leave
    explanation why a condition is true or not for a given row

A bare column is asked for every row image there is, and the condition holds if it does for either. NULL is an ordinary
value. What was not sent makes it true if it could be.
"""

from __future__ import annotations

from invalidator.rules.condition.binding import condition_source
from invalidator.rules.condition.explanation import KnownRow, explain, truth, written
from invalidator.rules.condition.kinds import ColumnType, Kind, column_types, kind_of, kinds_of
from invalidator.rules.condition.lints import Lint, lint
from invalidator.rules.condition.sql import sql
from invalidator.rules.condition.syntax import GRAMMAR, parse
from invalidator.rules.condition.tree import Condition, ConditionError, Scope
from invalidator.rules.condition.typing import type_problems

__all__ = [
    "GRAMMAR",
    "ColumnType",
    "Condition",
    "ConditionError",
    "Kind",
    "KnownRow",
    "Lint",
    "Scope",
    "column_types",
    "condition_source",
    "explain",
    "kind_of",
    "kinds_of",
    "lint",
    "parse",
    "sql",
    "truth",
    "type_problems",
    "written",
]
