"""Connecting to Postgres with the session settings on which our texts depend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic_core import PydanticCustomError

from invalidator import credentials
from invalidator.errors import ConfigError, SourceDisconnected
from invalidator.postgres import hosts
from invalidator.postgres.failures import ours

CONNECT_TIMEOUT_SECONDS = 10
_CANCEL_SECONDS = 1.0
"""For a statement to end when nobody waits for it any more."""
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

_TRANSACTION_TIMEOUT_SERVER: Final = 170000
_NO_TRANSACTION_TIMEOUT: Final = "SET transaction_timeout = 0"
"""A walsender counts a transaction that it sends, and the time that a target makes it wait: one that takes longer would
be cut off again and again. Older servers do not know the setting, and refuse a connection whose options name it."""

_TCP: Mapping[str, int] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

Answer = TypeVar("Answer")

_HOSTS = hosts.Hosts()
"""Of the whole process: what one connection has waited for in vain, the next one need not."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Postgres is, and as whom; what is a reference is read anew for each connection."""

    dsn: str = field(repr=False)
    password: str = field(default="", repr=False)
    setting: str = "source"
    """Where it stands in the settings, for messages."""

    async def parameters(self) -> dict[str, Any]:
        """For libpq.

        Raises:
            ConfigError: a secret or the DSN cannot be read.
            SourceDisconnected: a secret cannot be had now.
        """
        try:
            parameters = parse_dsn(await credentials.read(self.dsn, what=f"{self.setting}.dsn"))
            if self.password:
                parameters["password"] = await credentials.read(self.password, what=f"{self.setting}.password")
        except credentials.SecretUnavailableError as error:
            raise SourceDisconnected(str(error), reason="credentials") from error
        return parameters


Dsn: TypeAlias = str | Address
"""A plain one is what somebody typed."""


async def _parameters(dsn: Dsn) -> dict[str, Any]:
    return parse_dsn(dsn) if isinstance(dsn, str) else await dsn.parameters()


async def connect(dsn: Dsn, *, replication: bool = False, application_name: str) -> psycopg.AsyncConnection[Any]:
    """Open a connection in autocommit mode with fixed text forms and TCP keepalives.

    Args:
        dsn: where; empty means libpq's own PG* environment.
        replication: open a walsender connection to the database instead of a plain session.
        application_name: shown in pg_stat_activity and pg_stat_replication.

    Raises:
        ConfigError: the address or the credentials are wrong.
        SourceDisconnected: the server cannot be reached now.
    """
    parameters = await _parameters(dsn)
    defaults: dict[str, Any] = {**_TCP, "application_name": application_name}
    settings = dict(_SESSION)
    if replication:
        settings["wal_sender_timeout"] = WAL_SENDER_TIMEOUT
        parameters["replication"] = "database"
    pinned = " ".join(f"-c {name}={value}" for name, value in settings.items())
    if hosts.several(parameters) and "PGTARGETSESSIONATTRS" not in os.environ:
        # One of several servers is the primary; which one it is changes. Only that one has the slot and takes writes.
        defaults["target_session_attrs"] = "primary"
    parameters = defaults | parameters
    parameters["options"] = f"{parameters.get('options') or ''} {pinned}".strip()
    connection = await _opened(parameters)
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SERVER:
        await _set(connection, _NO_TRANSACTION_TIMEOUT)
    return connection


async def _set(connection: psycopg.AsyncConnection[Any], statement: LiteralString) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)  # whatever goes wrong, also when nobody waits any more
        try:
            with answered_within(connection, CONNECT_TIMEOUT_SECONDS):
                await connection.execute(statement)
        except psycopg.Error as error:
            raise ours(error, doing="connecting to Postgres") from error
        stack.pop_all()


async def connect_pooled(dsn: Dsn, *, application_name: str) -> psycopg.AsyncConnection[Any]:
    """Open a connection in autocommit mode that a transaction pooler may stand behind.

    Nothing is asked of the session: no start-up options (poolers refuse them), no prepared statements. Each
    transaction has to bring what it needs.

    Raises:
        ConfigError: the address or the credentials are wrong.
        SourceDisconnected: the server cannot be reached now.
    """
    defaults: dict[str, Any] = {**_TCP, "application_name": application_name}
    return await _opened(defaults | await _parameters(dsn), prepare_threshold=None)


async def _opened(parameters: Mapping[str, Any], *, prepare_threshold: int | None = 5) -> psycopg.AsyncConnection[Any]:
    failures: list[tuple[str, psycopg.Error]] = []
    for attempt in _HOSTS.attempts(parameters):
        conninfo = make_conninfo(**attempt, client_encoding="UTF8")
        began = time.monotonic()
        connection = None
        try:
            connection = await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, prepare_threshold=prepare_threshold
            )
        except psycopg.Error as error:
            failures.append((hosts.described(attempt), error))
        else:
            return connection
        finally:
            if connection is None:  # also when whoever wanted it does not wait any longer
                _HOSTS.failed(attempt, time.monotonic() - began)
    last = failures[-1][1]
    told = last if len(failures) == 1 else type(last)("; ".join(f"{host}: {error}" for host, error in failures))
    raise ours(told, doing="connecting to Postgres") from last


def hang_up(connection: psycopg.AsyncConnection[Any]) -> None:
    """End it at once, from a callback: whoever waits for an answer on it gets an error.

    The socket stays open until they have got it, so that nobody watches a number that is another socket's by then.
    """
    if not connection.closed:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


async def ask(
    connection: psycopg.AsyncConnection[Any], question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Answer]]
) -> Answer:
    """The answer to a question; whoever is cancelled while he waits for it waits no longer than a second more.

    psycopg then has the server end the statement, over a second connection, for which it waits 5 s, and as long again
    for that end. A server that is healthy needs milliseconds; with one that hangs we hang up.
    """
    task = asyncio.ensure_future(question(connection))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
        if not task.done():
            hang_up(connection)
            task.cancel()  # it may wait for the second connection
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at: nobody wants to know any more
        raise


@contextlib.contextmanager
def answered_within(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Hang up when what is asked meanwhile takes longer: the connection is of no use then.

    Raises:
        psycopg.OperationalError: it took longer.
    """
    is_late = False

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        hang_up(connection)

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        yield
    except psycopg.Error as error:
        if is_late:
            msg = f"no answer within {seconds:g} s"
            raise psycopg.OperationalError(msg) from error
        raise
    finally:
        timer.cancel()


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


def checked_dsn(dsn: credentials.Secret) -> credentials.Secret:
    """See, as a validator of pydantic, that a DSN can be understood, as far as it is one and no reference.

    Raises:
        PydanticCustomError: it cannot.
    """
    text = dsn.get_secret_value()
    try:
        credentials.check(text)
        if not credentials.is_reference(text):
            parse_dsn(text)
    except (ConfigError, ValueError) as error:
        code, message = "bad-value", "{text}"
        raise PydanticCustomError(code, message, {"text": str(error)}) from None
    return dsn
