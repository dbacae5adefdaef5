"""The door to Redis and its relatives: one connection, every reply checked, redis-py's errors become ours here.

Connecting (TCP, TLS, unix sockets, users, databases) is redis-py's; commands are packed by hiredis and go out as
they are. Measured for ``UNLINK`` of 1,000 keys: 0.16 µs of our CPU a key, against 0.50 through ``execute_command``
and 0.13 through a connection of our own, which was not worth its code.

Nothing is ever sent twice from here: retries belong to the delivery, which counts them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast
from urllib.parse import parse_qs, urlsplit

import hiredis
from pydantic import ConfigDict, Field, SecretStr, field_validator
from redis.asyncio import connection as driver
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as DriverTimeoutError

from invalidator.errors import TargetError, TargetRejected, TargetUnavailable
from invalidator.ports import TargetOptions

Reply: TypeAlias = "bytes | int | list[Reply] | None"
"""What a command answers when it is no error."""

_SCHEMES: Final = ("redis", "rediss", "unix")
_LATER: Final = {
    "redis+cluster": "Redis Cluster",
    "rediss+cluster": "Redis Cluster",
    "redis+sentinel": "Redis Sentinel",
    "rediss+sentinel": "Redis Sentinel",
}
_QUERY: Final = frozenset(
    {"db", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)

NOT_NOW: Final = frozenset(
    {
        "BUSY",  # a script runs for too long
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",  # the last snapshot could not be written
        "NOREPLICAS",
        "OOM",
        "READONLY",  # a replica, or a primary that was demoted
        "TRYAGAIN",
        "UNBLOCKED",
    }
)
"""First words of error replies that a retry can cure. All others are refusals that only the operator can cure."""

_ROLE: Final = (b"ROLE",)

_IN_SCRIPT: Final = re.compile(r": -([A-Z]+) ")

# Its stub says "a tuple of one".
_pack = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)


class RedisOptions(TargetOptions):
    """What every target that is a Redis can be told."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: SecretStr
    """``redis://[user:password@]host[:port][/db]``, ``rediss://…`` (TLS, verified) or ``unix:///path[?db=0]``.
    For TLS ``?ssl_ca_certs=/path`` names the authority, ``ssl_certfile`` and ``ssl_keyfile`` our certificate."""
    connect_timeout_seconds: float = Field(default=3, gt=0)
    """For opening the connection."""
    timeout_seconds: float = Field(default=5, gt=0)
    """For each reply. Longer than the slowest command of anybody else on the server."""

    @field_validator("url")
    @classmethod
    def _is_understood(cls, url: SecretStr) -> SecretStr:
        _parse(url.get_secret_value())
        return url


class ScriptMissing(TargetUnavailable):
    """The server does not have the script (any more): it must be sent in full."""


class Script:
    """A Lua script, called by its hash.

    Args:
        text: the source, as in its file.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class _Address:
    """A URL taken apart; the password is only in ``arguments``, which is never shown."""

    label: str
    connection: type[driver.AbstractConnection]
    arguments: Mapping[str, Any] = field(repr=False)


class RedisClient:
    """One connection to one server: opened by the first command, and again by the next one after a failure.

    Safe to share between tasks: exchanges queue up and do not mix. A cancelled exchange closes the connection,
    because its replies are still on their way.

    Args:
        options: where, and how long to wait.
    """

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._address = _parse(options.url.get_secret_value())
        self._connection: driver.AbstractConnection | None = None
        self._lock = asyncio.Lock()
        self.generation = 0
        """How often we connected; what a server told us, such as a cursor, holds for one generation."""

    def __repr__(self) -> str:
        return f"<RedisClient {self._address.label}>"

    async def execute(self, *command: bytes) -> Reply:
        """Send one command and return its reply.

        Raises:
            TargetUnavailable: no reply, or one that says "not now".
            TargetRejected: the server refuses the command.
        """
        return (await self.pipeline([command]))[0]

    async def pipeline(self, commands: Sequence[Sequence[bytes]], *, at_primary: bool = False) -> list[Reply]:
        """Send commands at once and return all replies, in order.

        One error reply anywhere, nested ones included, raises after all replies were read: which of the other
        commands were carried out is then unknown.

        Args:
            commands: each as its words.
            at_primary: they must reach a primary, and a replica would not refuse them (PUBLISH): ask behind them.

        Raises:
            TargetUnavailable: a reply is missing, or says "not now".
            TargetRejected: the server refuses a command.
        """
        packed = [_pack(tuple(command)) for command in (*commands, *[_ROLE] * at_primary)]
        async with self._lock:
            is_in_step = False  # whether the next byte that comes is the first one of the next reply
            try:
                connection = await self._connected()
                replies = await _exchange(connection, packed, self._options.timeout_seconds)
                if at_primary:  # a primary may have become a replica under an open connection
                    self._check_role(replies.pop())
                is_in_step = True
                return [_checked(reply) for reply in replies]
            except (RedisError, OSError) as error:
                # After READONLY too: the name may lead to another server now.
                is_in_step = is_in_step and _code(error) != "READONLY"
                # Not "from error": its text may repeat what we sent, row values, and would be in every traceback.
                raise _translate(error, self._address.label) from None
            finally:
                if not is_in_step:
                    await self._disconnect()

    async def call(self, script: Script, keys: Sequence[bytes], *arguments: bytes) -> Reply:
        """Run a script on the server; its text travels only when the server does not know it.

        Raises:
            TargetUnavailable: no reply, or one that says "not now".
            TargetRejected: the server refuses the script, or a command in it.
        """
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return await self.execute(b"EVALSHA", script.sha, *rest)
        except ScriptMissing:
            return await self.execute(b"EVAL", script.text, *rest)

    async def close(self) -> None:
        """Close the connection; a command after this opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    async def _connected(self) -> driver.AbstractConnection:
        connection = self._connection
        # Something to read before anything was asked means that the server has hung up (or is out of step):
        # found out here, an idle connection that was closed costs no failed delivery.
        if connection is not None and connection.is_connected and not await connection.can_read():
            return connection
        await self._disconnect()
        self._connection = connection = self._address.connection(
            **self._address.arguments,
            # With a timeout of its own redis-py calls asyncio.wait_for(), and that loses a cancellation on
            # Python 3.11 when the awaited thing ends at the same moment (fixed in 3.12): time is kept here.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        seconds = self._options.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError:
            msg = f"{self._address.label}: no connection within {seconds:g} s"
            raise TargetUnavailable(msg, result="timeout") from None
        await self._introduce(connection)
        self.generation += 1
        return connection

    async def _introduce(self, connection: driver.AbstractConnection) -> None:
        """Give the connection a name, and see that it leads to a primary.

        A replica takes PUBLISH without a word, and only its own subscribers get the message. Both commands may
        be forbidden to us or unknown to a proxy: then we go on without.
        """
        commands = [_pack((b"CLIENT", b"SETNAME", b"invalidator")), _pack(_ROLE)]
        _, role = await _exchange(connection, commands, self._options.timeout_seconds)
        self._check_role(role)

    def _check_role(self, role: Reply | ResponseError) -> None:
        if isinstance(role, list) and role and role[0] == b"slave":
            msg = f"{self._address.label}: is a replica, which cannot be written to"
            raise TargetUnavailable(msg, result="unavailable")

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def as_integer(reply: Reply) -> int:
    """The reply as the number that the command promises.

    Raises:
        TargetUnavailable: it is something else, so it is not the answer to what we asked.
    """
    if not isinstance(reply, int):
        msg = f"redis: expected a number, got {type(reply).__name__}"
        raise TargetUnavailable(msg)
    return reply


def as_bytes(reply: Reply) -> bytes:
    """The reply as the string that the command promises.

    Raises:
        TargetUnavailable: it is something else, so it is not the answer to what we asked.
    """
    if not isinstance(reply, bytes):
        msg = f"redis: expected a string, got {type(reply).__name__}"
        raise TargetUnavailable(msg)
    return reply


def as_list(reply: Reply) -> list[Reply]:
    """The reply as the list that the command promises.

    Raises:
        TargetUnavailable: it is something else, so it is not the answer to what we asked.
    """
    if not isinstance(reply, list):
        msg = f"redis: expected a list, got {type(reply).__name__}"
        raise TargetUnavailable(msg)
    return reply


async def _exchange(
    connection: driver.AbstractConnection, packed: Sequence[bytes], seconds: float
) -> list[Reply | ResponseError]:
    """Send commands and read as many replies, errors among them. The time starts anew with each reply."""
    loop = asyncio.get_running_loop()
    replies: list[Reply | ResponseError] = []
    try:
        async with asyncio.timeout(seconds) as deadline:
            await connection.send_packed_command(packed, check_health=False)
            for _ in packed:
                try:
                    replies.append(cast("Reply", await connection.read_response()))
                except ResponseError as error:
                    replies.append(error)  # the replies behind it are still to be read
                deadline.reschedule(loop.time() + seconds)
    except TimeoutError:
        msg = f"no answer within {seconds:g} s"
        raise DriverTimeoutError(msg) from None
    return replies


def _checked(reply: Reply | ResponseError) -> Reply:
    if isinstance(reply, RedisError):
        raise reply
    if isinstance(reply, list):
        for each in reply:
            if isinstance(each, (list, RedisError)):
                _checked(each)
    return reply


def _parse(url: str) -> _Address:
    """Take a URL apart.

    Raises:
        ValueError: it is no URL of a Redis; the message does not repeat it, because it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme in _LATER:
        msg = f"{_LATER[parts.scheme]} is not supported yet: name one primary by redis:// or rediss://"
        raise ValueError(msg)
    if parts.scheme not in _SCHEMES:
        msg = "must begin with redis://, rediss:// or unix://"
        raise ValueError(msg)
    if unknown := sorted(parse_qs(parts.query, keep_blank_values=True).keys() - _QUERY):
        # What stands there may be half of a password with an unescaped "?" in it.
        name = f"option '{unknown[0]}'" if unknown[0].isidentifier() else "text"
        msg = f"unknown {name} in the query: known are {', '.join(sorted(_QUERY))}"
        raise ValueError(msg)
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():
        msg = "the path must be the number of a database, such as /0"  # redis-py would silently take 0
        raise ValueError(msg)
    try:
        arguments = dict(driver.parse_url(url))
    except ValueError:
        # Its text may be half of a password with an unescaped "/" in it.
        msg = "port or db is not a number in its range (write special characters of a password as %2F and so on)"
        raise ValueError(msg) from None
    connection = cast("type[driver.AbstractConnection]", arguments.pop("connection_class", driver.Connection))
    return _Address(_label(parts.scheme, arguments), connection, arguments)


def _label(scheme: str, arguments: Mapping[str, Any]) -> str:
    """Where it is, for messages: without user, password and options."""
    where = arguments.get("path") if scheme == "unix" else None
    if where is None:
        where = f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
    return f"{scheme}://{where}"


def _translate(error: Exception, label: str) -> TargetError:
    """Our error for one of redis-py's."""
    code = _code(error)
    # The server repeats what it was sent after these words: row values.
    text = str(error).partition(", with args beginning")[0][:300]
    message = f"{label}: {text if text.startswith(code) else f'{code} {text}'}"
    if isinstance(error, NoScriptError):
        return ScriptMissing(message, result="unavailable")
    if isinstance(error, DriverTimeoutError):
        return TargetUnavailable(f"{label}: {text}", result="timeout")
    if code in NOT_NOW:
        return TargetUnavailable(message, result="unavailable")
    if isinstance(error, MovedError) or code in {"MOVED", "ASK", "CROSSSLOT"}:
        return TargetRejected(f"{label}: is a node of a Redis Cluster, which is not supported yet")
    if _is_refused(error):
        return TargetRejected(message)
    return TargetUnavailable(f"{label}: {text}", result="connection")


def _code(error: Exception) -> str:
    """The first word of an error reply, which tells its kind."""
    known: str | None = getattr(error, "status_code", None)  # redis-py cuts the words off that it knows
    text = str(error)
    # Redis before 7 tells what stopped a script behind many words: "ERR Error running script (...): -OOM ...".
    inner = _IN_SCRIPT.search(text) if text.startswith("Error running script") else None
    return inner[1] if inner else known or text.partition(" ")[0]


def _is_refused(error: Exception) -> bool:
    if _has_certificate_failure(error):
        return True
    if isinstance(error, DriverConnectionError):
        # redis-py files wrong credentials under connection errors, and no reply at all too.
        return getattr(error, "error_type", None) is not None and error.error_type.value == "auth"
    return isinstance(error, ResponseError)


def _has_certificate_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
