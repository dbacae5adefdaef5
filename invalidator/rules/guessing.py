"""Types of columns that nobody has looked up: guessed from the values of a row and from what conditions compare.

Only tests and explanations without a catalog need this. YAML and JSON know text, numbers and booleans; whether a text
is a date or a numeric with its scale is told by the condition that asks for its order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Final

from invalidator.model import Relation
from invalidator.rules.condition import Condition, column_types, type_problems
from invalidator.rules.rows import JsonRow
from invalidator.rules.rule import Rule

_BOOL, _INT8, _TEXT, _NUMERIC, _UUID = 16, 20, 25, 1700, 2950
_DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1083, 1114, 1184
_ANY: Final = (_TEXT, _BOOL, _NUMERIC, _DATE, _TIMESTAMP, _TIMESTAMPTZ, _TIME, _UUID)
_TIME_OF_DAY = r"\d\d:\d\d(:\d\d(\.\d+)?)?"
_FORMS: Final = (
    (re.compile(r"\d{4,}-\d\d-\d\d"), (_DATE, _TIMESTAMP, _TIMESTAMPTZ)),
    (re.compile(rf"\d{{4,}}-\d\d-\d\d[ T]{_TIME_OF_DAY}"), (_TIMESTAMP, _TIMESTAMPTZ)),
    (re.compile(rf"\d{{4,}}-\d\d-\d\d[ T]{_TIME_OF_DAY}(Z|[+-]\d\d(:?\d\d)?)"), (_TIMESTAMPTZ,)),
    (re.compile(_TIME_OF_DAY), (_TIME,)),
    (re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?|NaN|-?Infinity"), (_NUMERIC,)),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), (_UUID,)),
    (re.compile(r"[tf]"), (_BOOL,)),
)
"""Form of a text → the types that print it so."""
_MAX_TRIED: Final = 500


def with_likely_types(relation: Relation, rows: Sequence[JsonRow], rules: Iterable[Rule]) -> Relation:
    """The relation with such types that the rules' conditions fit them, where the values allow it."""
    for rule in rules:
        if rule.when is not None and type_problems(rule.when, column_types(relation)):
            relation = next(_fitting(relation, rows, rule.when), relation)
    return relation


def misfit(relation: Relation, rule: Rule) -> str | None:
    """Why the rule's condition does not fit the types of the relation; None if it does."""
    problems = [] if rule.when is None else type_problems(rule.when, column_types(relation))
    return problems[0].message if problems else None


def _fitting(relation: Relation, rows: Sequence[JsonRow], condition: Condition) -> Iterator[Relation]:
    names = [column.name for column in relation.columns if column.name in condition.columns]
    likely = [_likely([row[name] for row in rows if row.get(name) is not None]) for name in names]
    for types in islice(product(*likely), _MAX_TRIED):
        chosen = dict(zip(names, types, strict=True))
        columns = tuple(
            replace(column, type_oid=chosen.get(column.name, column.type_oid)) for column in relation.columns
        )
        made = replace(relation, columns=columns)
        if not type_problems(condition, column_types(made)):
            yield made


def _likely(values: Sequence[object]) -> Sequence[int]:
    """The types that all of the values can have, the likeliest first."""
    if not values:
        return _ANY
    if all(isinstance(value, bool) for value in values):
        return (_BOOL,)
    if all(isinstance(value, int | float) for value in values):
        return (_INT8, _NUMERIC) if all(isinstance(value, int) for value in values) else (_NUMERIC,)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return (_TEXT,)
    possible = [{oid for form, oids in _FORMS if form.fullmatch(text) for oid in oids} for text in texts]
    return (_TEXT, *(oid for oid in _ANY if oid in set.intersection(*possible)))
