"""Bytes of the logical replication stream become values. No I/O.

Messages come as libpq's COPY data: an XLogData message (``w``, 24 bytes of header, one pgoutput message from byte
25 on) or a primary keepalive (``k``). Sources: the Postgres manual, "Streaming Replication Protocol" and "Logical
Replication Message Formats", protocol version 1. Rows are not decoded here: the rule compiler makes a function per
relation that reads just the columns it needs (decisions: own pgoutput decoding).
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  (it is an exception class with a lower-case name)
from typing import Any

from invalidator.errors import ProtocolError
from invalidator.model import Column, Lsn, Relation, Transaction

XLOG_DATA = ord("w")
KEEPALIVE = ord("k")
PAYLOAD = 25
"""Where the pgoutput message starts in an XLogData message."""

INSERT = ord("I")
UPDATE = ord("U")
DELETE = ord("D")
BEGIN = ord("B")
COMMIT = ord("C")
RELATION = ord("R")
TRUNCATE = ord("T")
MESSAGE = ord("M")
TYPE = ord("Y")
ORIGIN = ord("O")

IDENTITIES = "dnfi"
"""Replica identities: default, nothing, full, index."""

POSTGRES_EPOCH = 946_684_800
"""2000-01-01 UTC in Unix seconds: Postgres counts its timestamps from there, in microseconds."""

_SHOWN_BYTES = 34
"""Of a message that is not understood: header, kind and numbers, but nothing that somebody wrote."""

_KEEPALIVE = Struct(">QqB")
_BEGIN = Struct(">QqI")
_COMMIT = Struct(">BQQq")
_COLUMN = Struct(">Ii").unpack_from
_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_MESSAGE = Struct(">BQ").unpack_from
_STATUS = Struct(">cQQQqB").pack


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server's position; sent while there is nothing to stream, or before it gives us up."""

    wal_end: int
    reply_requested: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """TRUNCATE of several relations in one statement (CASCADE lists them all)."""

    relation_oids: tuple[bytes, ...]  # raw 4 bytes, as in row messages


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What ``pg_logical_emit_message`` wrote."""

    is_transactional: bool
    prefix: str
    content: bytes


def keepalive(message: bytes) -> Keepalive:
    """Read a primary keepalive message."""
    wal_end, _clock, reply = _fields(_KEEPALIVE, message, 1, "keepalive")
    return Keepalive(wal_end, reply == 1)


def begin(message: bytes) -> Transaction:
    """Read Begin: the start of the commit record, the commit's time and the xid."""
    final_lsn, commit_time, xid = _fields(_BEGIN, message, 26, "Begin")
    return Transaction(final_lsn, xid, commit_time)


def commit(message: bytes) -> tuple[int, int]:
    """Read Commit: start and end of the commit record; only the end may be confirmed."""
    _flags, start, end, _time = _fields(_COMMIT, message, 26, "Commit")
    return start, end


def relation(message: bytes) -> Relation:
    """Read Relation. Names are raw; bytes that are no UTF-8 survive as surrogates."""
    try:
        oid = _U32(message, 26)[0]
        schema, position = _name(message, 30)
        table, position = _name(message, position)
        identity = chr(message[position])
        count = _U16(message, position + 1)[0]
        position += 3
        columns = []
        for _ in range(count):
            flags = message[position]
            name, position = _name(message, position + 1)
            type_oid, _modifier = _COLUMN(message, position)
            position += 8
            columns.append(Column(name, type_oid, is_identity=bool(flags & 1)))
    except (StructError, IndexError, ValueError) as error:
        raise damaged(message, "Relation", "it ends too early") from error
    if position != len(message) or identity not in IDENTITIES:
        raise damaged(message, "Relation", f"it ends at {position} with the replica identity {identity!r}")
    if not table or not all(column.name for column in columns):
        raise damaged(message, "Relation", "it has an empty name")
    # The stream abbreviates pg_catalog to the empty string.
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


def truncate(message: bytes) -> Truncate:
    """Read Truncate: one message lists every relation of the statement."""
    try:
        count = _U32(message, 26)[0]
    except StructError as error:
        raise damaged(message, "Truncate", "it ends too early") from error
    end = 31 + 4 * count
    if len(message) != end:
        raise damaged(message, "Truncate", f"its {count} relations end at {end}")
    return Truncate(tuple(message[at : at + 4] for at in range(31, end, 4)))


def logical_message(message: bytes) -> LogicalMessage:
    """Read a Message."""
    try:
        flags, _lsn = _MESSAGE(message, 26)
        prefix, position = _name(message, 35)
        size = _U32(message, position)[0]
    except (StructError, ValueError) as error:
        raise damaged(message, "Message", "it ends too early") from error
    content = message[position + 4 :]
    if len(content) != size:
        raise damaged(message, "Message", f"its content of {size} bytes has {len(content)}")
    return LogicalMessage(bool(flags & 1), prefix, content)


def codec(server_encoding: str) -> str | None:
    """Python's name of the encoding of a database; None: UTF-8, none at all, or one that Python does not know."""
    if server_encoding in ("UTF8", "SQL_ASCII"):
        return None
    name = server_encoding.replace("WIN", "cp").replace("KOI8", "koi8-")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


def as_utf8(message: bytes, encoding: str) -> bytes:
    """The Message with its content in UTF-8: the server sends that as its database holds it, and only names converted.

    Args:
        message: a Message.
        encoding: Python's name of the database's encoding. Content that is not in it stays as it is.
    """
    content = logical_message(message).content
    try:
        text = content.decode(encoding).encode()
    except UnicodeError:
        return message
    return message[: len(message) - len(content) - 4] + len(text).to_bytes(4) + text


def standby_status(received: int, flushed: int, *, now: float, reply_requested: bool) -> bytes:
    """Write a standby status update.

    Args:
        received: newest WAL position that reached us.
        flushed: the confirmed position; the server may forget everything before it.
        now: unix seconds.
        reply_requested: ask the server to answer at once, to see whether it lives.
    """
    clock = int((now - POSTGRES_EPOCH) * 1_000_000)
    return _STATUS(b"r", max(received, flushed), flushed, flushed, clock, reply_requested)


def unix_seconds(postgres_time: int) -> float:
    """Microseconds since 2000 as Unix seconds."""
    return postgres_time / 1_000_000 + POSTGRES_EPOCH


def unknown(message: bytes) -> ProtocolError:
    """The error for a message type that version 1 of the protocol does not have."""
    text = (
        f"the stream holds a message of type {message[PAYLOAD : PAYLOAD + 1]!r}, which pgoutput protocol version 1 "
        f"does not have ({_shown(message)}); the position was kept. Report this with the server version"
    )
    return ProtocolError(text)


def damaged(message: bytes, kind: str, what: str) -> ProtocolError:
    """The error for a message that is not what its kind says.

    Args:
        message: all of it.
        kind: what it should be.
        what: what is wrong with it.
    """
    text = f"a {kind} message of {len(message)} bytes is damaged: {what} ({_shown(message)}); the position was kept"
    return ProtocolError(text)


def _fields(shape: Struct, message: bytes, start: int, kind: str) -> tuple[Any, ...]:
    """The fields of a message that always has the same length."""
    end = start + shape.size
    if len(message) != end:
        raise damaged(message, kind, f"it should end at {end}")
    return shape.unpack_from(message, start)


def _name(message: bytes, position: int) -> tuple[str, int]:
    end = message.index(0, position)
    return message[position:end].decode("utf-8", "surrogateescape"), end + 1


def _shown(message: bytes) -> str:
    """Where in the WAL the server was, and how the message begins."""
    return f"at {Lsn(int.from_bytes(message[1:9]))}, first bytes: {message[:_SHOWN_BYTES].hex()}"
