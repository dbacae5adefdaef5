"""URLs of Redis, taken apart: one server, or what the sentinels of one call their primary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio import connection as driver

_SCHEMES: Final = ("redis", "rediss", "unix")
_SENTINEL: Final = "+sentinel"
_LATER: Final = ("redis+cluster", "rediss+cluster")
_QUERY: Final = frozenset(
    {"db", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)
_OF_SENTINELS: Final = frozenset({"sentinel_username", "sentinel_password"})
_SENTINEL_PORT: Final = 26379


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart; the password is only in ``arguments``, which is never shown."""

    label: str
    connection: type[driver.AbstractConnection]
    arguments: Mapping[str, Any] = field(repr=False)
    sentinels: tuple[Address, ...] = ()
    """Whom to ask where the primary is; empty: it is here."""
    service: str = ""
    """What they call it."""

    def at(self, host: str, port: int) -> Address:
        """The primary, once the sentinels have named it."""
        label = f"{self.service} at {host}:{port}"
        return replace(self, label=label, arguments={**self.arguments, "host": host, "port": port}, sentinels=())

    def with_password(self, password: str) -> Address:
        """The same with another password."""
        return replace(self, arguments={**self.arguments, "password": password})


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        ValueError: it is no URL of a Redis; the message does not repeat it, because it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme in _LATER:
        msg = "Redis Cluster is not supported yet: name one primary by redis:// or rediss://"
        raise ValueError(msg)
    scheme = parts.scheme.removesuffix(_SENTINEL)
    is_sentinel = scheme != parts.scheme
    if scheme not in _SCHEMES or (is_sentinel and scheme == "unix"):
        msg = "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
        raise ValueError(msg)
    _check_query(parts.query, _QUERY | _OF_SENTINELS if is_sentinel else _QUERY)
    if is_sentinel:
        return _with_sentinels(scheme, url)
    database = parts.path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():
        msg = "the path must be the number of a database, such as /0"  # redis-py would silently take 0
        raise ValueError(msg)
    try:
        arguments = dict(driver.parse_url(url))
    except ValueError:
        # Its text may be half of a password with an unescaped "/" in it.
        msg = "port or db is not a number in its range (write special characters of a password as %2F and so on)"
        raise ValueError(msg) from None
    connection = cast("type[driver.AbstractConnection]", arguments.pop("connection_class", driver.Connection))
    return Address(_label(scheme, arguments), connection, arguments)


def _check_query(query: str, known: frozenset[str]) -> None:
    if unknown := sorted(parse_qs(query, keep_blank_values=True).keys() - known):
        # What stands there may be half of a password with an unescaped "?" in it.
        name = f"option '{unknown[0]}'" if unknown[0].isidentifier() else "text"
        msg = f"unknown {name} in the query: known are {', '.join(sorted(known))}"
        raise ValueError(msg)


def _with_sentinels(scheme: str, url: str) -> Address:
    """``redis+sentinel://user:password@host:26379,host:26379/mymaster/0``."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not hosts or not service:
        msg = "must name sentinels and their primary: redis+sentinel://host:26379,host:26379/mymaster/0"
        raise ValueError(msg)
    query = parse_qsl(parts.query, keep_blank_values=True)
    own = dict(pair for pair in query if pair[0] in _OF_SENTINELS)
    shared = urlencode([pair for pair in query if pair[0] not in _OF_SENTINELS])
    primary = parse(f"{scheme}://{credentials}{at}primary/{database}?{shared}")
    kept = {name: value for name, value in primary.arguments.items() if name not in {"username", "password", "db"}}
    kept |= {name.removeprefix("sentinel_"): value for name, value in own.items()}
    sentinels = []
    for entry in hosts.split(","):
        host, port = _host(entry)
        label = f"sentinel {host}:{port}"
        sentinels.append(Address(label, primary.connection, {**kept, "host": host, "port": port}))
    label = f"{parts.scheme}://{hosts}/{service}"
    return replace(primary, label=label, sentinels=tuple(sentinels), service=unquote(service))


def _host(entry: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        msg = "each sentinel must be host:port, with a comma between two"
        raise ValueError(msg)
    return host, port or _SENTINEL_PORT


def _label(scheme: str, arguments: Mapping[str, Any]) -> str:
    """Where it is, for messages: without user, password and options."""
    where = arguments.get("path") if scheme == "unix" else None
    if where is None:
        where = f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
    return f"{scheme}://{where}"
