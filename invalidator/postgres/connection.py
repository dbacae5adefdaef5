"""Connecting to Postgres with the session settings on which our texts depend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from invalidator.errors import ConfigError, InvalidatorError
from invalidator.postgres.failures import ours

CONNECT_TIMEOUT_SECONDS = 10
WAL_SENDER_TIMEOUT = "10s"
"""Ours, not the server's minute: a daemon that died without a word frees its slot after this long."""

_SESSION = {
    # Values reach the rules as text, and keys must not depend on a server's or a role's defaults.
    "TimeZone": "UTC",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "statement_timeout": "0",
    # The SQL of rules is read as the standard has it; with "off", texts would end elsewhere.
    "standard_conforming_strings": "on",
    # The heartbeat's commit must not wait for a synchronous standby: it measures us, not the standby.
    "synchronous_commit": "local",
    "idle_session_timeout": "0",
}

_TCP: Mapping[str, int] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


async def connect(dsn: str, *, replication: bool = False, application_name: str) -> psycopg.AsyncConnection[Any]:
    """Open a connection in autocommit mode with fixed text forms and TCP keepalives.

    Args:
        dsn: URI or keyword form; empty means libpq's own PG* environment.
        replication: open a walsender connection to the database instead of a plain session.
        application_name: shown in pg_stat_activity and pg_stat_replication.

    Raises:
        ConfigError: the address or the credentials are wrong.
        SourceDisconnected: the server cannot be reached now.
    """
    parameters = parse_dsn(dsn)
    defaults: dict[str, Any] = {**_TCP, "application_name": application_name}
    settings = dict(_SESSION)
    if replication:
        settings["wal_sender_timeout"] = WAL_SENDER_TIMEOUT
        parameters["replication"] = "database"
    pinned = " ".join(f"-c {name}={value}" for name, value in settings.items())
    if "," in str(parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST", "")):
        # One of several servers is the primary; which one it is changes. Only that one has the slot and takes writes.
        defaults["target_session_attrs"] = "read-write"
    parameters = defaults | parameters
    parameters["options"] = f"{parameters.get('options') or ''} {pinned}".strip()
    parameters["client_encoding"] = "UTF8"
    try:
        return await psycopg.AsyncConnection.connect(make_conninfo(**parameters), autocommit=True)
    except psycopg.Error as error:
        raise _connecting(error) from error


async def connect_pooled(dsn: str, *, application_name: str) -> psycopg.AsyncConnection[Any]:
    """Open a connection in autocommit mode that a transaction pooler may stand behind.

    Nothing is asked of the session: no start-up options (poolers refuse them), no prepared statements. Each
    transaction has to bring what it needs.

    Raises:
        ConfigError: the address or the credentials are wrong.
        SourceDisconnected: the server cannot be reached now.
    """
    defaults: dict[str, Any] = {**_TCP, "application_name": application_name}
    parameters = defaults | parse_dsn(dsn) | {"client_encoding": "UTF8"}
    try:
        return await psycopg.AsyncConnection.connect(
            make_conninfo(**parameters), autocommit=True, prepare_threshold=None
        )
    except psycopg.Error as error:
        raise _connecting(error) from error


def parse_dsn(dsn: str) -> dict[str, Any]:
    """The parameters of a DSN, in URI or keyword form.

    Raises:
        ConfigError: it cannot be read; the message never holds a part of it, because that may be a password.
    """
    user_and_password, at, _ = dsn.partition("://")[2].rpartition("@")
    if at and any(delimiter in user_and_password for delimiter in "@/#?[]"):
        # libpq would cut the password there, and look up its rest, and log it, as a host.
        msg = (
            "user or password in the Postgres DSN hold a character that must be percent-encoded there: "
            "@ is %40, / is %2F, # is %23, ? is %3F, [ is %5B, ] is %5D"
        )
        raise ConfigError(msg)
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:
        msg = "the Postgres DSN cannot be read: it must look like postgresql://user@host:5432/database"
        raise ConfigError(msg) from None


def _connecting(error: psycopg.Error) -> InvalidatorError:
    return ours(error, doing="connecting to Postgres")
