"""Builds pgoutput messages (proto_version 1) as Postgres sends them, inside XLogData, for tests.

Written from the manual's "Logical Replication Message Formats", independently of the package's own code.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final

from invalidator.model import Column, Relation


class Unsent(Enum):
    """A column value that the server leaves out: unchanged TOAST."""

    UNCHANGED = "u"


UNCHANGED: Final = Unsent.UNCHANGED

Value = bytes | None | Unsent
Row = Sequence[Value]
"""One value per column of the relation: text, NULL, or not sent."""


def xlog_data(payload: bytes, *, start: int = 0x1000, end: int = 0x1000, clock: int = 0) -> bytes:
    """One message of the stream: ``w``, WAL start and end, the server's clock, payload."""
    return b"w" + struct.pack(">QQq", start, end, clock) + payload


def keepalive(*, end: int = 0x1000, clock: int = 0, reply: bool = False) -> bytes:
    """Primary keepalive: how far the server is, and whether it wants an answer at once."""
    return b"k" + struct.pack(">QqB", end, clock, reply)


def begin(*, final_lsn: int, commit_time: int = 0, xid: int = 1) -> bytes:
    return xlog_data(b"B" + struct.pack(">QqI", final_lsn, commit_time, xid))


def commit(*, lsn: int, end_lsn: int, commit_time: int = 0) -> bytes:
    return xlog_data(b"C" + struct.pack(">BQQq", 0, lsn, end_lsn, commit_time))


def origin(name: str, *, lsn: int = 0) -> bytes:
    return xlog_data(b"O" + struct.pack(">Q", lsn) + _string(name))


def type_(oid: int, schema: str, name: str) -> bytes:
    return xlog_data(b"Y" + struct.pack(">I", oid) + _string(schema) + _string(name))


def message(prefix: str, content: bytes, *, lsn: int = 0, transactional: bool = False) -> bytes:
    return xlog_data(
        b"M" + struct.pack(">BQ", transactional, lsn) + _string(prefix) + struct.pack(">I", len(content)) + content
    )


def relation(value: Relation) -> bytes:
    columns = b"".join(
        struct.pack(">B", column.is_identity) + _string(column.name) + struct.pack(">Ii", column.type_oid, -1)
        for column in value.columns
    )
    return xlog_data(
        b"R"
        + struct.pack(">I", value.oid)
        + (b"\0" if value.schema == "pg_catalog" else _string(value.schema))
        + _string(value.table)
        + value.replica_identity.encode("ascii")
        + struct.pack(">H", len(value.columns))
        + columns
    )


def insert(oid: int, new: Row) -> bytes:
    return xlog_data(b"I" + struct.pack(">I", oid) + b"N" + _tuple(new))


def update(oid: int, new: Row, *, old: Row | None = None, key: Row | None = None) -> bytes:
    """UPDATE with nothing of the old row, with its identity columns (``key``), or with all of it (``old``)."""
    return xlog_data(b"U" + struct.pack(">I", oid) + _old(old, key) + b"N" + _tuple(new))


def delete(oid: int, *, old: Row | None = None, key: Row | None = None) -> bytes:
    return xlog_data(b"D" + struct.pack(">I", oid) + _old(old, key))


def truncate(oids: Sequence[int], *, cascade: bool = False, restart_identity: bool = False) -> bytes:
    flags = cascade | restart_identity << 1
    return xlog_data(b"T" + struct.pack(f">IB{len(oids)}I", len(oids), flags, *oids))


def key_of(value: Relation, row: Row) -> Row:
    """The row as a K tuple: NULL in every column that is no part of the identity."""
    return [item if column.is_identity else None for column, item in zip(value.columns, row, strict=True)]


def make_relation(
    *columns: str,
    identity: Sequence[str] = ("id",),
    replica_identity: str = "d",
    name: str = "public.article",
    oid: int = 16385,
) -> Relation:
    """A relation of text columns."""
    schema, table = name.split(".")
    full = replica_identity == "f"
    return Relation(
        oid,
        schema,
        table,
        replica_identity,
        tuple(Column(column, 25, full or column in identity) for column in columns),
    )


def _old(old: Row | None, key: Row | None) -> bytes:
    if old is not None:
        return b"O" + _tuple(old)
    return b"" if key is None else b"K" + _tuple(key)


def _tuple(row: Row) -> bytes:
    return struct.pack(">H", len(row)) + b"".join(map(_value, row))


def _value(value: Value) -> bytes:
    match value:
        case None:
            return b"n"
        case Unsent.UNCHANGED:
            return b"u"
        case bytes():
            return b"t" + struct.pack(">I", len(value)) + value


def _string(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"
