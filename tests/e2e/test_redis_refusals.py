"""A Redis that answers, and refuses: nothing is lost, the position is held, and all is done when that is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from invalidator.demo.servers import KeyValueServer
from tests.support.daemon import Stack
from tests.support.watched import Watched

ALLOW = "ACL SETUSER daemon on resetpass >pw ~* &* +@all"
WAYS = [
    ("unavailable", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ("unavailable", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ("unavailable", "BGSAVE", "CONFIG SET stop-writes-on-bgsave-error no"),
    ("rejected", "ACL SETUSER daemon -unlink -eval -evalsha", ALLOW),
    ("rejected", "ACL SETUSER daemon resetpass >changed", ALLOW),
    ("rejected", "ACL DELUSER daemon", ALLOW),
]
"""What it is counted as, what makes it, and what ends it."""


@pytest.fixture
def closed_folder(own_redis: KeyValueServer) -> Iterator[Path]:
    """The server's folder, into which it cannot write a snapshot."""
    folder = own_redis._base.path
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    yield folder
    folder.chmod(mode)


@pytest.fixture
def admin(own_redis: KeyValueServer, closed_folder: Path) -> Iterator[redis.Redis]:
    """Somebody who may do everything, also while the daemon may not."""
    with redis.Redis(host="127.0.0.1", port=own_redis.port) as client:
        client.config_set("save", "3600 1")
        say(client, ALLOW)
        yield client


def say(client: redis.Redis, line: str) -> None:
    client.execute_command(*line.split())  # type: ignore[no-untyped-call]
    if line == "BGSAVE":
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass


async def test_a_redis_that_refuses_in_any_way_holds_the_position_and_gets_everything_afterwards(
    stack: Stack, own_redis: KeyValueServer, admin: redis.Redis
) -> None:
    url = own_redis.url.replace("://", "://daemon:pw@")
    stack.targets = {"redis": {"type": "redis_keys", "url": url, "retry": {"max_delay_seconds": 0.2}}}
    watched = Watched(await stack.start())

    for number, (result, spoil, heal) in enumerate(WAYS, 1):
        key = f"item:{number}"
        admin.set(key, "stale")
        say(admin, spoil)
        admin.client_kill_filter(_type="normal", skipme=True)  # what is open would not hear of a changed password

        await stack.sql("INSERT INTO item VALUES (%s)", number)

        position = await stack.position()
        await watched.until_failing("redis", result)
        assert admin.get(key) == b"stale", spoil
        assert not stack.has_confirmed(position), spoil
        say(admin, heal)
        await stack.until(lambda: not admin.exists(key), f"{key} is gone after {spoil}")  # noqa: B023
        await stack.until(lambda: stack.has_confirmed(position), f"{position} is confirmed after {spoil}")  # noqa: B023
