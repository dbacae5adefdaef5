"""How values of the outbox leave a connection: arrays as they came, texts also where they are in no encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.adapt import Loader
from psycopg.pq import Format

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import Buffer

_TEXT_ARRAY_OID: Final = 1009
_TEXT_OIDS: Final = (18, 19, 25, 1042, 1043)
"""``"char"``, name, text, char(n), varchar."""


async def prepare(connection: psycopg.AsyncConnection[Any]) -> None:
    """Set the connection up before anything else is asked on it."""
    connection.adapters.register_loader(_TEXT_ARRAY_OID, _Raw)
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        # Such a database holds any bytes, and the server refuses to send those that are no UTF-8 as UTF-8.
        for oid in _TEXT_OIDS:
            connection.adapters.register_loader(oid, _Text)
            connection.adapters.register_loader(oid, _BinaryText)
        await connection.execute("SET client_encoding TO 'SQL_ASCII'")


class _Raw(Loader):
    """Gives arrays as they came: ``images`` reads them without making a text of each value."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _Text(Loader):
    """Gives a text in which bytes that are no UTF-8 survive; psycopg would give bytes."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


class _BinaryText(_Text):
    format = Format.BINARY
