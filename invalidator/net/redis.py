"""The door to Redis and its relatives: one connection, every reply checked, redis-py's errors become ours here.

Connecting (TCP, TLS, unix sockets, users, databases) is redis-py's; commands are packed by hiredis and go out as
they are. Measured for ``UNLINK`` of 1,000 keys: 0.16 µs of our CPU a key, against 0.50 through ``execute_command``
and 0.13 through a connection of our own, which was not worth its code.

Nothing is ever sent twice from here: retries belong to the delivery, which counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, cast

import hiredis
from pydantic import AfterValidator, ConfigDict, Field, field_validator
from redis.asyncio import connection as driver
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as DriverTimeoutError

from invalidator import credentials
from invalidator.credentials import Secret, SecretUnavailableError, checked_secret
from invalidator.errors import ConfigError, TargetError, TargetRejected, TargetUnavailable
from invalidator.net.redis_errors import ScriptMissing, code_of, translate
from invalidator.net.redis_url import Address, parse
from invalidator.ports import TargetOptions

if TYPE_CHECKING:
    from invalidator.net.sentinel import Place, Sentinels

Reply: TypeAlias = "bytes | int | list[Reply] | None"
"""What a command answers when it is no error."""

SENTINEL_SECONDS: Final = 0.5
"""Between two questions whether the primary is still the one that we are connected to."""
_ROLE: Final = (b"ROLE",)

# Its stub says "a tuple of one".
_pack = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)


class RedisOptions(TargetOptions):
    """What every target that is a Redis can be told."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Secret
    """``redis://[user:password@]host[:port][/db]``, ``rediss://…`` (TLS, verified) or ``unix:///path[?db=0]``.
    For TLS ``?ssl_ca_certs=/path`` names the authority, ``ssl_certfile`` and ``ssl_keyfile`` our certificate.
    ``redis+sentinel://[user:password@]host:26379,host:26379/mymaster[/db]`` asks sentinels for the primary."""
    password: Annotated[Secret, AfterValidator(checked_secret)] = Secret("")
    """The password, in the place of one in the URL. Both may be ``file:/path`` or ``command:program argument``: read
    anew for each connection, so that they may be rotated."""
    connect_timeout_seconds: float = Field(default=3, gt=0)
    """For opening the connection."""
    timeout_seconds: float = Field(default=5, gt=0)
    """For each reply. Longer than the slowest command of anybody else on the server."""

    @field_validator("url")
    @classmethod
    def _is_understood(cls, url: Secret) -> Secret:
        if not credentials.is_reference(url.get_secret_value()):
            parse(url.get_secret_value())
        return checked_secret(url)


class Script:
    """A Lua script, called by its hash.

    Args:
        text: the source, as in its file.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


class RedisClient:
    """One connection to one primary: opened by the first command, and again by the next one after a failure.

    Safe to share between tasks: exchanges queue up and do not mix. A cancelled exchange closes the connection,
    because its replies are still on their way.

    Args:
        options: where, and how long to wait.
        address: where, in the place of the options' URL.
    """

    def __init__(self, options: RedisOptions, *, address: Address | None = None) -> None:
        self._options = options
        self._address = address
        self._sentinels: Sentinels | None = None
        self._place: Place | None = None
        url = options.url.get_secret_value()
        if address is not None:
            self.label = address.label
        else:
            self.label = credentials.label(url) if credentials.is_reference(url) else parse(url).label
        """For messages: without secrets."""
        self._connection: driver.AbstractConnection | None = None
        self._lock = asyncio.Lock()
        self.generation = 0
        """How often we connected; what a server told us, such as a cursor, holds for one generation."""

    def __repr__(self) -> str:
        return f"<RedisClient {self.label}>"

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
                is_in_step = is_in_step and code_of(error) != "READONLY"
                # Not "from error": its text may repeat what we sent, row values, and would be in every traceback.
                raise translate(error, self.label) from None
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

    async def run(self) -> None:
        """Leave a primary that the sentinels have replaced, until cancelled; without sentinels return at once.

        Nothing tells us of it: a primary that is cut off from them, together with us, goes on as one.
        """
        url = self._options.url.get_secret_value()
        if not credentials.is_reference(url) and not parse(url).sentinels:
            return
        while True:
            await asyncio.sleep(SENTINEL_SECONDS)
            place, connection = self._place, self._connection
            if self._sentinels is None or place is None or connection is None:
                continue
            with contextlib.suppress(TargetError):
                is_left = await self._sentinels.primary() != place
                if is_left and self._connection is connection:
                    # Not under the lock: an exchange with a server that is gone would hold it until its timeout.
                    await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the connection; a command after this opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()
        sentinels, self._sentinels = self._sentinels, None
        if sentinels is not None:
            await sentinels.close()

    async def _connected(self) -> driver.AbstractConnection:
        connection = self._connection
        # Something to read before anything was asked means that the server has hung up (or is out of step):
        # found out here, an idle connection that was closed costs no failed delivery.
        if connection is not None and connection.is_connected and not await connection.can_read():
            return connection
        await self._disconnect()
        address = await self._located()
        self._connection = connection = address.connection(
            **address.arguments,
            # With a timeout of its own redis-py calls asyncio.wait_for(), and that loses a cancellation on
            # Python 3.11 when the awaited thing ends at the same moment (fixed in 3.12): time is kept here.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        try:
            await self._open(connection)
        finally:
            if self._connection is not connection:  # close() came when there was nothing to be closed yet
                await connection.disconnect(nowait=True)
        if self._connection is not connection:
            msg = f"{self.label}: closed while it was being opened"
            raise TargetUnavailable(msg)
        self.generation += 1
        return connection

    async def _open(self, connection: driver.AbstractConnection) -> None:
        seconds = self._options.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError:
            msg = f"{self.label}: no connection within {seconds:g} s"
            raise TargetUnavailable(msg, result="timeout") from None
        await self._introduce(connection)

    async def _located(self) -> Address:
        """Where the primary is now, and with which password.

        Raises:
            TargetUnavailable, TargetRejected: the sentinels do not say, or a secret cannot be read.
        """
        if self._address is not None:
            return self._address
        options = self._options
        try:
            address = parse(await credentials.read(options.url.get_secret_value(), what="url"))
            if password := options.password.get_secret_value():
                address = address.with_password(await credentials.read(password, what="password"))
        except SecretUnavailableError as error:
            msg = f"{self.label}: {error}"
            raise TargetUnavailable(msg, result="connection") from None
        except (ConfigError, ValueError) as error:
            msg = f"{self.label}: {error}"
            raise TargetRejected(msg) from None
        self._place = None
        sentinels = await self._asked(address)
        if sentinels is not None:
            self._place = await sentinels.primary()
            address = address.at(*self._place)
        self.label = address.label
        return address

    async def _asked(self, address: Address) -> Sentinels | None:
        """The sentinels of this address, if it has any; those of a URL that was another one are left."""
        from invalidator.net.sentinel import Sentinels

        before = self._sentinels
        if before is None or before.address != address:
            # First, so that ``run`` asks those no more while they are being closed.
            self._sentinels = Sentinels(address, self._options) if address.sentinels else None
            if before is not None:
                await before.close()
        return self._sentinels

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
            msg = f"{self.label}: is a replica, which cannot be written to"
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
