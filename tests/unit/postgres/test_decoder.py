"""Messages of the stream become values, and damaged ones an explained stop."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.errors import ProtocolError
from invalidator.model import Column
from invalidator.postgres import decoder
from tests.support import pgoutput as wire

HEADER = b"w" + bytes(24)


def xlog(payload: bytes) -> bytes:
    return HEADER + payload


def relation_message(schema: str, table: str, columns: list[tuple[int, str]], identity: str = "d") -> bytes:
    packed = b"".join(bytes([flags]) + name.encode() + b"\0" + struct.pack(">Ii", 25, -1) for flags, name in columns)
    names = schema.encode() + b"\0" + table.encode() + b"\0"
    return xlog(b"R" + struct.pack(">I", 17) + names + identity.encode() + struct.pack(">H", len(columns)) + packed)


def test_a_keepalive_tells_the_end_of_the_wal_and_whether_the_server_waits() -> None:
    message = b"k" + struct.pack(">QqB", 0x16B3748, 1_000_000, 1)

    keepalive = decoder.keepalive(message)

    assert keepalive == decoder.Keepalive(0x16B3748, reply_requested=True)


def test_begin_carries_the_start_of_the_commit_record_the_time_and_the_xid() -> None:
    transaction = decoder.begin(xlog(b"B" + struct.pack(">QqI", 77, 5, 42)))

    assert (transaction.final_lsn, transaction.commit_time, transaction.xid) == (77, 5, 42)


def test_a_commit_is_confirmed_by_its_end_not_by_its_start() -> None:
    assert decoder.commit(xlog(b"C" + struct.pack(">BQQq", 0, 100, 130, 0))) == (100, 130)


def test_a_relation_has_raw_names_and_knows_its_identity() -> None:
    relation = decoder.relation(relation_message("Über", 'a"b', [(1, "id"), (0, "na me")], identity="f"))

    assert relation.name == 'Über.a"b'
    assert relation.replica_identity == "f"
    assert relation.columns == (Column("id", 25, is_identity=True), Column("na me", 25, is_identity=False))


@pytest.mark.parametrize(
    ("server_encoding", "codec"),
    [
        ("UTF8", None),
        ("SQL_ASCII", None),
        ("EUC_TW", None),
        ("MULE_INTERNAL", None),
        ("LATIN1", "iso8859-1"),
        ("LATIN5", "iso8859-9"),
        ("LATIN10", "iso8859-16"),
        ("ISO_8859_5", "iso8859-5"),
        ("WIN866", "cp866"),
        ("WIN1252", "cp1252"),
        ("KOI8R", "koi8-r"),
        ("KOI8U", "koi8-u"),
        ("EUC_JP", "euc_jp"),
        ("EUC_CN", "gb2312"),
        ("EUC_KR", "euc_kr"),
        ("EUC_JIS_2004", "euc_jis_2004"),
    ],
)
def test_encodings_of_databases_have_other_names_in_python(server_encoding: str, codec: str | None) -> None:
    assert decoder.codec(server_encoding) == codec


@pytest.mark.parametrize(
    ("written", "encoding", "read"),
    [
        (b"caf\xe9", "iso8859-1", "café"),
        (b"", "iso8859-1", ""),
        (b"\xc5\xb8", "cp1251", "Её"),  # is UTF-8 too, by chance
        (b"\x81\xe9", "cp1252", None),  # no character has the first byte
    ],
)
def test_the_content_of_a_message_comes_in_the_encoding_of_the_database(
    written: bytes, encoding: str, read: str | None
) -> None:
    message = wire.message("invalidator", written, lsn=7, transactional=True)

    made = decoder.as_utf8(message, encoding)

    expected = written if read is None else read.encode()
    assert made == wire.message("invalidator", expected, lsn=7, transactional=True)


def test_the_empty_schema_of_the_wire_is_pg_catalog() -> None:
    assert decoder.relation(relation_message("", "t", [])).schema == "pg_catalog"


def test_names_that_are_no_utf8_survive() -> None:
    message = relation_message("s", "t", []).replace(b"\0t\0", b"\0t\xff\0")

    assert decoder.relation(message).table.encode("utf-8", "surrogateescape") == b"t\xff"


def test_a_truncate_lists_all_its_relations() -> None:
    truncate = decoder.truncate(xlog(b"T" + struct.pack(">IBII", 2, 1, 17, 18)))

    assert truncate.relation_oids == (struct.pack(">I", 17), struct.pack(">I", 18))


def test_a_logical_message_has_a_prefix_and_content_that_may_hold_zero_bytes() -> None:
    message = decoder.logical_message(xlog(b"M" + struct.pack(">BQ", 1, 9) + b"app\0" + struct.pack(">I", 3) + b"a\0b"))

    assert message == decoder.LogicalMessage(is_transactional=True, prefix="app", content=b"a\0b")


def test_a_status_update_never_says_that_more_is_flushed_than_was_received() -> None:
    status = decoder.standby_status(10, 20, now=decoder.POSTGRES_EPOCH + 2.0, reply_requested=True)

    assert struct.unpack(">cQQQqB", status) == (b"r", 20, 20, 20, 2_000_000, 1)


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (decoder.begin, b"B" + struct.pack(">QqI", 77, 5, 42)),
        (decoder.commit, b"C" + struct.pack(">BQQq", 0, 100, 130, 0)),
        (decoder.truncate, b"T" + struct.pack(">IBII", 2, 1, 17, 18)),
        (decoder.relation, relation_message("s", "t", [(1, "id")])[25:]),
        (decoder.logical_message, b"M" + struct.pack(">BQ", 1, 9) + b"app\0" + struct.pack(">I", 3) + b"abc"),
    ],
)
def test_a_message_that_ends_too_early_or_too_late_is_a_protocol_error(
    decode: Callable[[bytes], object], payload: bytes
) -> None:
    decode(xlog(payload))

    for size in range(1, len(payload)):
        with pytest.raises(ProtocolError, match="position was kept"):
            decode(xlog(payload[:size]))
    with pytest.raises(ProtocolError, match="position was kept"):
        decode(xlog(payload + b"\0"))


@pytest.mark.parametrize("size", [*range(1, 18), 19])
def test_a_keepalive_has_exactly_its_length(size: int) -> None:
    with pytest.raises(ProtocolError, match="should end at 18"):
        decoder.keepalive((b"k" + struct.pack(">QqB", 7, 0, 1) + b"\0")[:size])


def test_a_replica_identity_that_postgres_does_not_have_is_refused() -> None:
    with pytest.raises(ProtocolError, match="identity 'x'"):
        decoder.relation(relation_message("s", "t", [(1, "id")], identity="x"))


@pytest.mark.parametrize(("table", "column"), [("", "id"), ("t", "")])
def test_a_relation_without_a_name_is_refused(table: str, column: str) -> None:
    with pytest.raises(ProtocolError, match="empty name"):
        decoder.relation(relation_message("s", table, [(1, column)]))


def test_the_error_tells_the_position_and_nothing_that_somebody_wrote() -> None:
    content = b"app\0" + struct.pack(">I", 99) + b"secret"
    message = b"w" + struct.pack(">QQq", 0x16B3748, 0, 0) + b"M" + struct.pack(">BQ", 1, 9) + content

    with pytest.raises(ProtocolError, match="at 0/16B3748") as caught:
        decoder.logical_message(message)
    assert content.hex() not in str(caught.value)
    assert b"secret".hex() not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_protocol_error(payload: bytes) -> None:
    for decode in (decoder.begin, decoder.commit, decoder.truncate, decoder.relation, decoder.logical_message):
        try:
            decode(xlog(payload))
        except ProtocolError as error:
            assert "bytes" in str(error)  # noqa: PT017  (either outcome is fine, another exception is not)


def test_an_unknown_message_type_is_named_in_the_error() -> None:
    assert "b'Z'" in str(decoder.unknown(xlog(b"Z123")))
