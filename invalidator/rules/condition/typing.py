"""Holds a condition against the types of the columns, so that no comparison is quietly never true."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from invalidator.rules.condition.kinds import NUMBERS, ORDERED, ColumnType, Kind, common_kind
from invalidator.rules.condition.tree import (
    Changed,
    Column,
    Comparison,
    Condition,
    ConditionError,
    Membership,
    Term,
    Truth,
    Value,
    columns_of,
    terms_of,
)
from invalidator.rules.condition.values import Misfit, canonical

_SHOWN_NAMES: Final = 12
_EQUALITY: Final = frozenset({"=", "!="})


def type_problems(condition: Condition, columns: Mapping[str, ColumnType]) -> list[ConditionError]:
    """What does not fit: columns that are not there, and values that a column can never hold.

    Args:
        condition: what is checked.
        columns: every column of the table by name.

    Returns:
        Errors of the codes ``unknown-column`` and ``condition-type``, in the order of the text.
    """
    problems: list[ConditionError] = []
    nearest = _Nearest()
    for term in terms_of(condition.node):
        unknown = [column for column in columns_of(term) if column.name not in columns]
        problems += (_unknown(column, columns, nearest, _may_be_text(term, column)) for column in unknown)
        if not unknown:
            problems += _term_problems(term, columns, nearest)
    return sorted(problems, key=lambda problem: problem.offset)


@dataclass(slots=True)
class _Nearest:
    """Finds what was meant. One look at each of 1,600 columns takes 50 ms, so there is a bound for a condition."""

    left: int = 2_000
    known: dict[str, str | None] = field(default_factory=dict)

    def of(self, name: str, names: Collection[str]) -> str | None:
        """The name that is most like this one; None if none is, or enough was looked at."""
        if name not in self.known:
            self.left -= len(names)
            near = difflib.get_close_matches(name, names, 1, 0.6) if self.left >= 0 else []
            self.known[name] = near[0] if near else None
        return self.known[name]


def _unknown(column: Column, columns: Mapping[str, ColumnType], nearest: _Nearest, may_be_text: bool) -> ConditionError:
    near = nearest.of(column.name, columns)
    names = ", ".join(list(columns)[:_SHOWN_NAMES]) + (", …" if len(columns) > _SHOWN_NAMES else "")
    lead = f"a text stands in single quotes: '{column.name}'; " if may_be_text else ""
    lead += f"did you mean '{near}'? " if near else ""
    return ConditionError(
        f"no column '{column.name}' in this table",
        offset=column.offset,
        width=column.width,
        code="unknown-column",
        help=f"{lead}columns: {names}",
    )


def _may_be_text(term: Term, column: Column) -> bool:
    """Whether the quotes may have been forgotten."""
    return isinstance(term, Comparison) and term.right is column and column.scope == "row"


def _term_problems(term: Term, columns: Mapping[str, ColumnType], nearest: _Nearest) -> Iterator[ConditionError]:
    match term:
        case Changed():
            return
        case Truth():
            if columns[term.column.name].kind is not Kind.BOOLEAN:
                yield _not_boolean(term.column, columns[term.column.name])
        case Membership():
            for value in term.values:
                yield from _value_problems(term.column, value, columns[term.column.name], nearest)
        case Comparison(operator, left, Column() as right):
            yield from _order_problems(operator, left, columns[left.name])
            yield from _pair_problems(left, right, columns)
        case Comparison(operator, left, value):
            yield from _order_problems(operator, left, columns[left.name])
            yield from _value_problems(left, value, columns[left.name], nearest)


def _not_boolean(column: Column, known: ColumnType) -> ConditionError:
    if known.kind is Kind.UNKNOWN:
        return _error(
            column, f"it is not known whether column '{column.name}' is boolean", f"write {column.name} = 't'"
        )
    message = f"column '{column.name}' is {known.shown}, and only a boolean column is true or false by itself"
    example = "1" if known.kind in NUMBERS else "'…'"
    asked = f"compare it with a value, as in {column.name} = {example}, or write {column.name} is not null"
    return _error(column, message, asked)


def _order_problems(operator: str, column: Column, known: ColumnType) -> Iterator[ConditionError]:
    if operator in _EQUALITY or known.kind in ORDERED or known.kind is Kind.OPAQUE:
        return
    message = f"column '{column.name}' is {known.shown}, and '{operator}' {_WITHOUT_ORDER.get(known.kind, _NO_ORDER)}"
    yield _error(column, message, f"name the values: {column.name} in ('a', 'b')")


_NO_ORDER: Final = "has no meaning for it"
_WITHOUT_ORDER: Final = {
    Kind.TEXT: "would depend on the collation",
    Kind.PADDED: "would depend on the collation",
    Kind.ENUM: "would depend on the order in which its labels were declared",
}


_BITS: Final = {"smallint": 15, "integer": 31}
"""Of the narrow types by their names in the catalog; in the stream a number that is too large is just not equal."""


def _value_problems(column: Column, value: Value, known: ColumnType, nearest: _Nearest) -> Iterator[ConditionError]:
    if value.form == "null":
        return
    if known.kind is Kind.OPAQUE:
        yield _opaque(column, known)
        return
    written = f"the text '{_cut(value.text)}'" if value.form == "text" else f"the {value.form} {_cut(value.text)}"
    try:
        _check_width(canonical(value, known.kind), known)
    except Misfit as misfit:
        what = "a number" if known.kind in NUMBERS and value.form == "text" else known.shown
        message = f"column '{column.name}' is {what}, compared with {written}"
        yield _error(value, message, misfit.help or _example(known.kind))
        return
    if known.kind is Kind.ENUM and known.enum_labels and value.text not in known.enum_labels:
        near = nearest.of(value.text, known.enum_labels)
        labels = ", ".join(f"'{label}'" for label in known.enum_labels[:_SHOWN_NAMES])
        lead = f"did you mean '{near}'? " if near else ""
        message = f"'{_cut(value.text)}' is no label of {known.shown}, the type of column '{column.name}'"
        yield _error(value, message, f"{lead}labels: {labels}")


def _check_width(made: bytes | None, known: ColumnType) -> None:
    bits = _BITS.get(known.type_name)
    if bits is not None and made is not None and not -(1 << bits) <= int(made) < 1 << bits:
        raise Misfit(help=f"the column holds numbers from {-(1 << bits)} to {(1 << bits) - 1}")


def _pair_problems(left: Column, right: Column, columns: Mapping[str, ColumnType]) -> Iterator[ConditionError]:
    known, other = columns[left.name], columns[right.name]
    for column, its in ((left, known), (right, other)):
        if its.kind is Kind.OPAQUE:
            yield _opaque(column, its)
            return
    if common_kind((known.kind, other.kind)) is None or (
        known.kind is Kind.ENUM and known.type_name and other.type_name and known.type_name != other.type_name
    ):
        message = f"column '{left.name}' is {known.shown}, compared with column '{right.name}', which is {other.shown}"
        yield _error(right, message, None)


def _opaque(column: Column, known: ColumnType) -> ConditionError:
    name = known.type_name or "of a type whose equality is not that of its text"
    message = f"column '{column.name}' is {name}: a condition can only ask whether it is null or has changed"
    return _error(column, message, f"write {column.name} is null, or changed({column.name})")


def _example(kind: Kind) -> str | None:
    match kind:
        case Kind.BOOLEAN:
            return "write true or false"
        case Kind.TEXT | Kind.PADDED | Kind.ENUM:
            return "a text stands in single quotes"
        case _ if kind in NUMBERS:
            return "write a number without quotes"
        case _:
            return None


def _error(at: Column | Value, message: str, help_text: str | None) -> ConditionError:
    return ConditionError(message, offset=at.offset, width=at.width, code="condition-type", help=help_text)


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
