"""What a column's type means for a condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from invalidator.model import ENUM_OID, Relation

_FIRST_USER_OID: Final = 16384


class Kind(StrEnum):
    """How values of a type are read and compared; named as a message names it."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMERIC = "numeric"
    REAL = "real"
    DOUBLE = "double precision"
    TEXT = "text"
    PADDED = "char(n)"  # trailing blanks do not count
    UUID = "uuid"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamp with time zone"
    ENUM = "enum"
    UNKNOWN = "of a type that nobody has looked up"  # compared as text
    OPAQUE = "opaque"  # only null and changed() can be asked for


NUMBERS: Final = frozenset({Kind.INTEGER, Kind.NUMERIC, Kind.REAL, Kind.DOUBLE})
FLOATS: Final = frozenset({Kind.REAL, Kind.DOUBLE})
TEXTS: Final = frozenset({Kind.TEXT, Kind.PADDED})
MOMENTS: Final = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
ORDERED: Final = NUMBERS | MOMENTS | {Kind.TIME, Kind.UUID}
"""The order of text depends on the collation, that of an enum on its declaration."""

_KINDS: Final[Mapping[int, Kind]] = {  # pg_type.dat
    16: Kind.BOOLEAN,
    20: Kind.INTEGER,
    21: Kind.INTEGER,
    23: Kind.INTEGER,
    26: Kind.INTEGER,  # oid
    1700: Kind.NUMERIC,
    700: Kind.REAL,
    701: Kind.DOUBLE,
    25: Kind.TEXT,
    1043: Kind.TEXT,  # varchar
    19: Kind.TEXT,  # name
    1042: Kind.PADDED,
    2950: Kind.UUID,
    1082: Kind.DATE,
    1083: Kind.TIME,
    1114: Kind.TIMESTAMP,
    1184: Kind.TIMESTAMPTZ,
    ENUM_OID: Kind.ENUM,
}


@dataclass(frozen=True, slots=True)
class ColumnType:
    """What is known about the type of one column."""

    kind: Kind
    type_name: str = ""
    """As Postgres writes it, for messages; may be empty."""
    enum_labels: tuple[str, ...] = ()
    """All labels of an enum; empty if nobody has looked them up."""

    @property
    def shown(self) -> str:
        """The type as a message names it."""
        return self.type_name or str(self.kind)


def kind_of(type_oid: int) -> Kind:
    """The kind of a type; domains must have been replaced by their base type, enums by ``ENUM_OID``."""
    return _KINDS.get(type_oid, Kind.UNKNOWN if type_oid >= _FIRST_USER_OID else Kind.OPAQUE)


def column_types(relation: Relation) -> dict[str, ColumnType]:
    """The types of a relation as the stream announced it and the catalog completed it, by column."""
    return {
        column.name: ColumnType(kind_of(column.type_oid if column.base_oid is None else column.base_oid))
        for column in relation.columns
    }


def kinds_of(columns: Mapping[str, ColumnType]) -> dict[str, Kind]:
    """The kinds alone."""
    return {name: column.kind for name, column in columns.items()}


def common_kind(kinds: Iterable[Kind]) -> Kind | None:
    """The kind in which columns of these kinds are compared; None if they cannot be."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    if found <= NUMBERS:
        return Kind.DOUBLE if found & FLOATS else Kind.NUMERIC
    return Kind.TEXT if found <= TEXTS | {Kind.UNKNOWN} else None
