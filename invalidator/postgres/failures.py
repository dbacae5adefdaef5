"""Driver errors become ours, by who has to act. SQLSTATE decides; text only where libpq gives no SQLSTATE."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg

from invalidator.errors import ConfigError, SlotInUse, SlotLost, SourceDisconnected, SourceError

_HOLDER = re.compile(r"\bPID (\d+)")
_SERVER_STOPS = (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow)
_CONNECT_REFUSED = re.compile(
    # libpq reports a refused connection as text only, without SQLSTATE (the server's own messages, in English).
    r"password authentication failed|authentication failed|no pg_hba\.conf entry|no password supplied"
    r'|database "[^"]*" does not exist|role "[^"]*" does not exist|not permitted to log in'
    r"|must be superuser or replication role|permission denied to start WAL sender"
    r"|does not support SSL|certificate verify failed|invalid (?:sslmode|connection option)|root certificate file"
)


_LET_IN = (
    (
        "authentication failed|no password supplied",
        "give the role's password in the DSN, in `password` beside it, in PGPASSWORD or in a pgpass file;"
        " \\password in psql sets it",
    ),
    (
        r"no pg_hba\.conf entry",
        "let the role in, to its database only: a line in pg_hba.conf such as `hostssl DATABASE ROLE ADDRESS"
        " scram-sha-256`, then SELECT pg_reload_conf()",
    ),
    ('role "[^"]*" does not exist', "invalidator setup   (prints the role and the grants that are needed)"),
    ('database "[^"]*" does not exist', "name the application's database at the end of the DSN"),
)
"""What a refused connection says → what to do about it."""


def _to_be_let_in(text: str) -> str | None:
    return next((fix for pattern, fix in _LET_IN if re.search(pattern, text)), None)


def ours(error: psycopg.Error, *, doing: str) -> SourceError | ConfigError:
    """The error of this package that a driver error means.

    Args:
        error: what psycopg raised.
        doing: what we were about to do, for the message: ``connecting to Postgres``.
    """
    text = " ".join(str(error).split())
    message = f"{doing}: {text}"
    mapped: SourceError | ConfigError
    match error:
        case pg.ObjectInUse():
            holder = _HOLDER.search(text)
            mapped = SlotInUse(message, holder_pid=int(holder[1]) if holder else None)
        case pg.ObjectNotInPrerequisiteState():
            # "can no longer get changes from replication slot" (13 to 17), "has been invalidated" (18)
            mapped = SlotLost(message)
        case pg.UndefinedObject():
            mapped = ConfigError(message, fix="invalidator setup   (prints the SQL that makes what is missing)")
        case pg.InsufficientPrivilege() | pg.InvalidAuthorizationSpecification() | pg.InvalidPassword():
            mapped = ConfigError(message, fix="invalidator setup   (prints the role and the grants that are needed)")
        case pg.InvalidCatalogName() | pg.ProgrammingError() | pg.FeatureNotSupported():
            mapped = ConfigError(message)
        case _ if isinstance(error, _SERVER_STOPS):
            mapped = SourceDisconnected(message, reason="server_shutdown")
        case _ if "unsupported startup parameter" in text:
            fix = "let source.dsn lead past the connection pooler (PgBouncer) to the server itself"
            mapped = ConfigError(message, fix=fix)
        case _ if _CONNECT_REFUSED.search(text):
            mapped = ConfigError(message, fix=_to_be_let_in(text))
        case _:
            mapped = SourceDisconnected(message)
    return mapped
