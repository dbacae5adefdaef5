"""What real servers refuse, provoked really: it is classed, nothing of a batch is lost, and it ends with its cause."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import redis

from invalidator.demo.servers import KeyValueServer, find_redis, find_valkey
from invalidator.errors import TargetError, TargetRejected, TargetUnavailable
from invalidator.model import Batch, Invalidation
from invalidator.targets import redis_keys
from invalidator.targets.redis_keys import RedisKeys

BATCH = Batch(Invalidation(keys={b"user:1"}, tags={b"all"}))
HEARTBEAT = Batch(Invalidation(), heartbeat=1.0)
CUT = re.compile(r"closed by server|Connection reset|Broken pipe")


@pytest.fixture(params=[find_valkey, find_redis], ids=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[KeyValueServer]:
    """One of each family, of the test's own."""
    with KeyValueServer(request.param()) as made:
        yield made


@contextmanager
def filled(server: KeyValueServer) -> Iterator[redis.Redis]:
    """A client of it, with what the batch names."""
    with redis.Redis(host="127.0.0.1", port=server.port) as store:
        store.mset({"user:1": "v", "user:2": "v"})
        store.sadd("tag:all", "user:2")
        yield store


@asynccontextmanager
async def opened(server: KeyValueServer, user: str = "") -> AsyncIterator[RedisKeys]:
    url = server.url.replace("://", f"://{user}@") if user else server.url
    cache = redis_keys.build("cache", redis_keys.Settings.model_validate({"type": "redis_keys", "url": url}))
    try:
        yield cache
    finally:
        await cache.close()


async def refusal(cache: RedisKeys, batch: Batch) -> TargetError:
    """What the server says to it. It cuts what a deleted user holds open a moment after it says OK to the deletion."""
    with pytest.raises(TargetError) as caught:
        await cache.apply(batch)
    assert (caught.value.remaining or batch.invalidation) == batch.invalidation
    return await refusal(cache, batch) if CUT.search(str(caught.value)) else caught.value


async def refused(cache: RedisKeys, kind: type[TargetError], code: str) -> None:
    """Keys, tags and heartbeat are refused in this way; the batch is still to be done."""
    for batch in (BATCH, Batch(Invalidation(tags={b"all"})), HEARTBEAT):
        error = await refusal(cache, batch)
        assert isinstance(error, kind)
        assert re.search(code, str(error))


async def applied(cache: RedisKeys) -> None:
    """It works again, and drops what it could not before."""
    assert (await cache.apply(BATCH)).removed == 2
    kept = await cache.load_record("shop")
    assert (await cache.keep_record("shop", b"mine", expected=kept.content)).content == b"mine"


async def test_a_server_that_cannot_write_its_snapshot_is_tried_again(server: KeyValueServer) -> None:
    folder = server._base.path
    with filled(server) as store:
        mode = folder.stat().st_mode
        try:
            folder.chmod(0o555)
            store.config_set("save", "3600 1000000")
            store.bgsave()
            while store.info("persistence")["rdb_bgsave_in_progress"]:
                pass
            async with opened(server) as cache:
                await refused(cache, TargetUnavailable, "MISCONF")
                with pytest.raises(TargetUnavailable, match="MISCONF"):
                    await cache.keep_record("shop", b"mine", expected=None)
                assert store.get("user:1") == b"v", "readers are served from it meanwhile"
                store.config_set("stop-writes-on-bgsave-error", "no")
                await applied(cache)
        finally:
            folder.chmod(mode)


async def test_a_full_server_keeps_the_record_too(server: KeyValueServer) -> None:
    with filled(server) as store:
        store.config_set("maxmemory-policy", "noeviction")
        store.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            store.set("user:3", "v")
        async with opened(server) as cache:
            await applied(cache)
            assert await cache.claim_record("shop", "7", before="", seconds=60) == "7"


async def test_a_refusal_does_not_make_a_full_server_refuse_the_record_afterwards(server: KeyValueServer) -> None:
    with filled(server) as store:
        allow(store, f"on >pw {FULL} -eval -evalsha")
        async with opened(server, "daemon:pw") as cache:
            with pytest.raises(TargetRejected):
                await cache.keep_record("shop", b"mine", expected=None)
            allow(store, "+@all")
            store.config_set("maxmemory-policy", "noeviction")
            store.config_set("maxmemory", 1)
            await applied(cache)


async def test_a_replica_that_has_lost_its_primary_is_tried_again(server: KeyValueServer) -> None:
    with filled(server) as store:
        async with opened(server) as cache:
            await cache.load_record("shop")
            store.config_set("replica-serve-stale-data", "no")
            store.replicaof("127.0.0.1", "1")
            with pytest.raises(TargetUnavailable, match="MASTERDOWN"):
                await cache.load_record("shop")
            await refused(cache, TargetUnavailable, "READONLY|MASTERDOWN|is a replica")
            store.replicaof("NO", "ONE")
            await applied(cache)


async def test_a_cluster_that_is_down_is_tried_again(server: KeyValueServer) -> None:
    with KeyValueServer(server._binary, "--cluster-enabled", "yes") as node:
        async with opened(node) as cache:
            await refused(cache, TargetUnavailable, "CLUSTERDOWN")


async def test_a_server_that_has_forgotten_the_scripts_gets_them_again(server: KeyValueServer) -> None:
    with filled(server) as store:
        async with opened(server) as cache:
            await cache.keep_record("shop", b"before", expected=None)
            store.script_flush()
            await applied(cache)


FULL = "~* &* +@all"


def allow(store: redis.Redis, words: str) -> None:
    """Change what the daemon's user may do."""
    store.execute_command("ACL", "SETUSER", "daemon", *words.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("spoil", "code", "heal"),
    [
        ("-unlink -eval -evalsha -get", "NOPERM|permission", "+@all"),
        ("resetkeys ~other:*", "NOPERM|permission|can't access", "~*"),
        ("resetpass >changed", "WRONGPASS", "resetpass >pw"),
        ("off", "WRONGPASS", "on"),
    ],
)
async def test_a_user_who_may_not_any_more_is_for_the_operator_and_goes_on_when_it_may(
    server: KeyValueServer, spoil: str, code: str, heal: str
) -> None:
    """On the connection that is open, and on those that the server has cut because of it."""

    with filled(server) as store:
        allow(store, f"on >pw {FULL}")
        async with opened(server, "daemon:pw") as cache:
            await cache.load_record("shop")
            allow(store, spoil)
            if code == "WRONGPASS":  # a changed password concerns new connections alone
                store.client_kill_filter(user="daemon")
            await refused(cache, TargetRejected, code)
            with pytest.raises(TargetRejected, match=code):
                await cache.load_record("shop")
            allow(store, heal)
            await applied(cache)


async def test_a_user_who_is_deleted_and_made_again_goes_on(server: KeyValueServer) -> None:
    with filled(server) as store:
        allow(store, f"on >pw {FULL}")
        async with opened(server, "daemon:pw") as cache:
            await cache.load_record("shop")
            store.acl_deluser("daemon")
            await refused(cache, TargetRejected, "WRONGPASS")
            allow(store, f"on >pw {FULL}")
            await applied(cache)


async def test_a_password_that_is_demanded_from_now_on_is_for_the_operator(server: KeyValueServer) -> None:
    """What is open stays open; a new connection finds it out."""
    with filled(server) as store:
        async with opened(server) as cache:
            await cache.load_record("shop")
            store.config_set("requirepass", "secret")
            store.client_kill_filter(_type="normal", skipme=True)
            await refused(cache, TargetRejected, "NOAUTH")
            store.config_set("requirepass", "")
            await applied(cache)
