"""Bytes of the logical replication stream become values. No I/O.

Messages come as libpq's COPY data: an XLogData message (``w``, 24 bytes of header, one pgoutput message from byte
25 on) or a primary keepalive (``k``). Sources: the Postgres manual, "Streaming Replication Protocol" and "Logical
Replication Message Formats", protocol version 1. Rows are not decoded here: the rule compiler makes a function per
relation that reads just the columns it needs (decisions: own pgoutput decoding).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  (it is an exception class with a lower-case name)

from invalidator.errors import ProtocolError
from invalidator.model import Column, Relation, Transaction

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

POSTGRES_EPOCH = 946_684_800
"""2000-01-01 UTC in Unix seconds: Postgres counts its timestamps from there, in microseconds."""

_KEEPALIVE = Struct(">QqB").unpack_from
_BEGIN = Struct(">QqI").unpack_from
_COMMIT_END = Struct(">Q").unpack_from
_COLUMN = Struct(">Ii").unpack_from
_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_MESSAGE = Struct(">BQ").unpack_from
_STATUS = Struct(">cQQQqB").pack


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server's position and clock; sent while there is nothing to stream, or before it gives us up."""

    wal_end: int
    server_time: float  # unix seconds
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
    try:
        wal_end, clock, reply = _KEEPALIVE(message, 1)
    except StructError as error:
        raise _damaged(message, "keepalive") from error
    return Keepalive(wal_end, unix_seconds(clock), reply == 1)


def begin(message: bytes) -> Transaction:
    """Read Begin: the start of the commit record, the commit's time and the xid."""
    try:
        final_lsn, commit_time, xid = _BEGIN(message, 26)
    except StructError as error:
        raise _damaged(message, "Begin") from error
    return Transaction(final_lsn, xid, commit_time)


def commit_end(message: bytes) -> int:
    """Read Commit: the end LSN of the transaction, the only position of it that may be confirmed."""
    try:
        end: int = _COMMIT_END(message, 35)[0]
    except StructError as error:
        raise _damaged(message, "Commit") from error
    return end


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
        raise _damaged(message, "Relation") from error
    # The stream abbreviates pg_catalog to the empty string.
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


def truncate(message: bytes) -> Truncate:
    """Read Truncate: one message lists every relation of the statement."""
    try:
        count = _U32(message, 26)[0]
    except StructError as error:
        raise _damaged(message, "Truncate") from error
    if len(message) < 31 + 4 * count:
        raise _damaged(message, "Truncate")
    return Truncate(tuple(message[at : at + 4] for at in range(31, 31 + 4 * count, 4)))


def logical_message(message: bytes) -> LogicalMessage:
    """Read a Message."""
    try:
        flags, _lsn = _MESSAGE(message, 26)
        prefix, position = _name(message, 35)
        size = _U32(message, position)[0]
    except (StructError, ValueError) as error:
        raise _damaged(message, "Message") from error
    content = message[position + 4 : position + 4 + size]
    return LogicalMessage(bool(flags & 1), prefix, content)


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
        f"does not have (first bytes: {message[:64].hex()}); the position was kept. Report this with the server version"
    )
    return ProtocolError(text)


def _name(message: bytes, position: int) -> tuple[str, int]:
    end = message.index(0, position)
    return message[position:end].decode("utf-8", "surrogateescape"), end + 1


def _damaged(message: bytes, kind: str) -> ProtocolError:
    text = (
        f"a {kind} message of {len(message)} bytes ends too early (first bytes: {message[:64].hex()}); "
        "the position was kept"
    )
    return ProtocolError(text)
