"""Keys, tag sets and patterns in real servers of the Redis family, and what goes wrong with those."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from invalidator.demo.servers import KeyValueServer, ServerMissing, find_redis, find_valkey
from invalidator.errors import TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation
from invalidator.targets.redis_keys import RedisKeys, Settings, build
from tests.support.processes import DEADLINE_SECONDS
from tests.support.redis import SharedServer
from tests.support.services import missing

HOSTILE = [
    b"", b"*", b"a?b", b"[x]", b"new\nline\r\n", b"two words", b"a,b", b"\xff\xfe", "é€𝄞".encode(), b"\x01\x7f",
    b"{tag}", b"$5\r\nhello", b"x" * 10_000, b"tag", b"\\", b"'\"",
]  # fmt: skip


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisKeys]:
    target = build("cache", Settings.model_validate({"type": "redis_keys", "url": url, **options}))
    try:
        yield target
    finally:
        await target.close()


@pytest.fixture
async def cache(redis_flavour: SharedServer) -> AsyncIterator[RedisKeys]:
    async with opened(redis_flavour.url) as target:
        yield target


@pytest.fixture
def store(redis_flavour: SharedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_flavour.url) as client:
        yield client


def fill(store: redis.Redis, kind: str, tag: bytes, members: list[bytes]) -> None:
    """Put values under the members, and the members into a tag set of that kind."""
    pipeline = store.pipeline(transaction=False)
    name = b"tag:" + tag
    for start in range(0, len(members), 1000):
        chunk = members[start : start + 1000]
        pipeline.mset(dict.fromkeys(chunk, b"v"))
        match kind:
            case "set":
                pipeline.sadd(name, *chunk)
            case "zset":
                pipeline.zadd(name, {member: number for number, member in enumerate(chunk, start)})
            case _:
                pipeline.hset(name, mapping=dict.fromkeys(chunk, b"1"))
    pipeline.execute()


def tags(*names: bytes) -> Batch:
    return Batch(Invalidation(tags=set(names)))


def keys(*names: bytes) -> Batch:
    return Batch(Invalidation(keys=set(names)))


async def until(condition: Callable[[], bool], *, within_seconds: float = DEADLINE_SECONDS) -> None:
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110  (the server's state has no event)
            await asyncio.sleep(0.005)


async def applied_in_the_end(apply: Callable[[Batch], Awaitable[Applied]], batch: Batch) -> Applied:
    """Apply again what remains until it works, as the delivery does."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return await apply(batch)
            except TargetUnavailable as error:
                batch = Batch(error.remaining or batch.invalidation)
                await asyncio.sleep(0.02)


async def applied_while(running: asyncio.Task[Any], cache: RedisKeys) -> None:
    """Apply something again and again until it fails or the task has ended."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not running.done():
            await cache.apply(keys(b"nobody"))


# Keys


async def test_keys_are_unlinked_and_counted(cache: RedisKeys, store: redis.Redis) -> None:
    store.mset({"user:1": 1, "user:2": 2, "other": 3})
    applied = await cache.apply(keys(b"user:1", b"user:2", b"user:3"))
    assert applied == Applied(keys=3, removed=2)
    assert store.keys() == [b"other"]


async def test_hostile_names_reach_redis_byte_for_byte(cache: RedisKeys, store: redis.Redis) -> None:
    names = [b"user:" + value for value in HOSTILE]
    store.mset(dict.fromkeys([*names, b"user:innocent"], b"v"))
    applied = await cache.apply(keys(*names))
    assert applied.removed == len(names)
    assert store.keys() == [b"user:innocent"]


async def test_fifty_thousand_keys_are_ten_commands(cache: RedisKeys, store: redis.Redis) -> None:
    names = [b"user:%d" % number for number in range(50_000)]
    for start in range(0, len(names), 10_000):
        store.mset(dict.fromkeys(names[start : start + 10_000], b"v"))
    store.config_resetstat()
    applied = await cache.apply(keys(*names))
    assert applied == Applied(keys=50_000, removed=50_000)
    assert store.dbsize() == 0
    assert calls(store, "unlink") == 10


async def test_a_heartbeat_proves_that_writes_are_taken(cache: RedisKeys, store: redis.Redis) -> None:
    store.config_resetstat()
    assert await cache.apply(Batch(Invalidation(), heartbeat=1.0)) == Applied()
    assert calls(store, "unlink") == 1
    assert await cache.apply(Batch(Invalidation())) == Applied()
    assert calls(store, "unlink") == 1


# Tag sets


@pytest.mark.parametrize("kind", ["set", "zset", "hash"])
async def test_a_tag_set_of_a_hundred_thousand_members_goes_with_them(
    cache: RedisKeys, store: redis.Redis, kind: str
) -> None:
    fill(store, kind, b"all", [b"user:%d" % number for number in range(100_000)])
    store.set("user:other", "v")
    store.slowlog_reset()
    applied = await cache.apply(tags(b"all"))
    assert applied == Applied(tags=1, removed=100_000)
    assert store.keys() == [b"user:other"]


@pytest.mark.parametrize("kind", ["set", "zset", "hash"])
async def test_members_with_hostile_names_go_too(cache: RedisKeys, store: redis.Redis, kind: str) -> None:
    members = [b"user:" + value for value in HOSTILE]
    fill(store, kind, b"\xff *?[", members)
    applied = await cache.apply(tags(b"\xff *?["))
    assert applied == Applied(tags=1, removed=len(members))
    assert store.dbsize() == 0


async def test_many_tags_share_calls(cache: RedisKeys, store: redis.Redis) -> None:
    for number in range(3000):
        fill(store, ("set", "zset", "hash")[number % 3], b"%d" % number, [b"a:%d" % number, b"b:%d" % number])
    store.config_resetstat()
    applied = await cache.apply(tags(*(b"%d" % number for number in range(3500))))
    assert applied == Applied(tags=3500, removed=6000)
    assert store.dbsize() == 0
    assert calls(store, "evalsha") <= 15


async def test_sets_of_all_sizes_around_the_budget_go_completely(cache: RedisKeys, store: redis.Redis) -> None:
    sizes = [0, 1, 2, 497, 499, 500, 501, 996, 997, 998, 999, 1000, 1001, 1002, 1999, 2000, 2001, 3, 600, 600, 600]
    for number, size in enumerate(sizes):
        fill(store, ("set", "zset", "hash")[number % 3], b"%d" % number, [b"%d:%d" % (number, i) for i in range(size)])
    applied = await cache.apply(tags(*(b"%d" % number for number in range(len(sizes)))))
    assert applied == Applied(tags=len(sizes), removed=sum(sizes))
    assert store.dbsize() == 0


async def test_a_name_that_holds_no_set_is_unlinked_and_told(cache: RedisKeys, store: redis.Redis) -> None:
    store.set("tag:string", "v")
    store.rpush("tag:list", "user:1")
    store.set("user:1", "v")
    applied = await cache.apply(tags(b"string", b"list"))
    assert applied == Applied(tags=2, removed=2, widened=2)
    assert store.keys() == [b"user:1"]


async def test_expanding_ends_and_is_complete_while_a_reader_keeps_adding(
    redis_flavour: SharedServer, cache: RedisKeys, store: redis.Redis
) -> None:
    before = [b"user:%d" % number for number in range(20_000)]
    fill(store, "set", b"all", before)
    adding, added = True, 0

    async def add() -> None:
        nonlocal added
        async with redis.asyncio.Redis.from_url(redis_flavour.url) as client:
            while adding:
                # More in one step than the script takes away in one.
                names = [b"new:%d" % (added + number) for number in range(3000)]
                await client.sadd("tag:all", *names)
                added += len(names)

    adder = asyncio.create_task(add())
    await until(lambda: added > 0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        applied = await cache.apply(tags(b"all"))
    adding = False
    await adder
    assert added > 3000
    assert applied.removed >= 20_000 or store.exists(*before) == 0
    assert store.exists(*before) == 0
    # What came after the cut is still known, so the next invalidation finds it.
    await cache.apply(tags(b"all"))
    assert store.keys("tag:*") == []


async def test_a_set_cut_by_a_crashed_daemon_is_finished_by_the_next_one(cache: RedisKeys, store: redis.Redis) -> None:
    fill(store, "set", b"all", [b"old:%d" % number for number in range(1500)])
    store.rename("tag:all", b"tag:all\0drain")
    fill(store, "set", b"all", [b"new:%d" % number for number in range(1500)])
    applied = await cache.apply(tags(b"all"))
    assert applied.removed == 3000
    assert store.dbsize() == 0


async def test_the_script_travels_again_after_the_server_forgot_it(cache: RedisKeys, store: redis.Redis) -> None:
    fill(store, "set", b"1", [b"user:1"])
    await cache.apply(tags(b"1"))
    store.script_flush()
    fill(store, "set", b"1", [b"user:1"])
    assert (await cache.apply(tags(b"1"))).removed == 1


# Patterns


async def test_patterns_find_keys_and_nothing_else(cache: RedisKeys, store: redis.Redis) -> None:
    store.mset({f"user:{number}": "v" for number in range(5000)} | {"order:1": "v", "user": "v", "user:*": "v"})
    applied = await cache.apply(Batch(Invalidation(key_patterns={b"user:*", b"user:1*"})))
    assert applied.removed == 5001
    assert applied.patterns == 1
    assert sorted(store.keys()) == [b"order:1", b"user"]


async def test_an_escaped_star_is_a_star(cache: RedisKeys, store: redis.Redis) -> None:
    store.mset({"user:*": "v", "user:1": "v", "user:[x]": "v", "user:x": "v"})
    await cache.apply(Batch(Invalidation(key_patterns={b"user:[*]", b"user:[[]x]"})))
    assert sorted(store.keys()) == [b"user:1", b"user:x"]


async def test_a_tag_set_that_a_key_pattern_matches_is_expanded(
    redis_flavour: SharedServer, store: redis.Redis
) -> None:
    async with opened(redis_flavour.url, tag_prefix="shop:tag:") as cache:
        store.mset({"shop:1": "v", "elsewhere:1": "v", "elsewhere:2": "v"})
        store.sadd("shop:tag:a", "elsewhere:1")
        await cache.apply(Batch(Invalidation(key_patterns={b"shop:*"})))
    assert store.keys() == [b"elsewhere:2"]


async def test_tag_patterns_expand_every_matching_set(cache: RedisKeys, store: redis.Redis) -> None:
    for number in range(700):
        fill(store, "set", b"user:%d" % number, [b"page:%d" % number])
    fill(store, "set", b"user:cut", [b"page:cut"])
    store.rename("tag:user:cut", b"tag:user:cut\0drain")
    fill(store, "set", b"order:1", [b"page:order"])
    applied = await cache.apply(Batch(Invalidation(tag_patterns={b"user:*"})))
    assert applied.removed == 701
    assert sorted(store.keys()) == [b"page:order", b"tag:order:1"]


async def test_a_tag_prefix_with_glob_characters_is_literal(redis_flavour: SharedServer, store: redis.Redis) -> None:
    async with opened(redis_flavour.url, tag_prefix="t*[x]:") as cache:
        store.sadd("t*[x]:a", "page:1")
        store.sadd("to[x]:a", "page:2")
        store.mset({"page:1": "v", "page:2": "v"})
        await cache.apply(Batch(Invalidation(tag_patterns={b"*"})))
    assert sorted(store.keys()) == [b"page:2", b"to[x]:a"]


async def test_keys_there_from_beginning_to_end_are_found_while_others_come_and_go(
    redis_flavour: SharedServer, store: redis.Redis
) -> None:
    store.mset({f"user:{number}": "v" for number in range(3000)})

    is_over = False

    async def churn() -> None:
        async with redis.asyncio.Redis.from_url(redis_flavour.url) as client:
            for number in itertools.takewhile(lambda _: not is_over, itertools.count()):
                await client.mset({f"noise:{number % 7}:{i}": "v" for i in range(50)})
                await client.unlink(*(f"noise:{(number + 3) % 7}:{i}" for i in range(50)))

    noise = asyncio.create_task(churn())
    await until(lambda: store.exists("noise:6:1") == 1)
    async with opened(redis_flavour.url, scan_count=10) as cache:
        await cache.apply(Batch(Invalidation(key_patterns={b"user:*"})))
    is_over = True
    await noise
    assert store.keys("user:*") == []


# What goes wrong


@pytest.fixture(params=[find_valkey, find_redis], ids=["valkey", "redis"])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., KeyValueServer]]:
    """Starts servers of the test's own with more arguments; they end with it."""
    try:
        binary: Path = request.param()
    except ServerMissing as error:
        missing(str(error))
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(KeyValueServer(binary, *arguments))


def client_of(server: KeyValueServer, **options: Any) -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=server.port, **options)


async def test_a_wrong_password_is_for_the_operator_and_stays_secret(start: Callable[..., KeyValueServer]) -> None:
    server = start("--requirepass", "the-right-one")
    for url in (server.url, server.url.replace("://", "://:the-wrong-one@")):
        async with opened(url) as cache:
            with pytest.raises(TargetRejected, match=r"NOAUTH|WRONGPASS") as caught:
                await cache.apply(keys(b"user:1"))
            assert "the-wrong-one" not in f"{caught.value} {cache!r}"
    async with opened(server.url.replace("://", "://:the-right-one@")) as cache:
        assert (await cache.apply(keys(b"user:1"))).keys == 1


async def test_the_documented_permissions_are_enough(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    page = (Path(__file__).parents[2] / "docs" / "reference" / "targets-redis.md").read_text()
    rule = next(line for line in page.splitlines() if line.startswith("ACL SETUSER invalidator"))
    with client_of(server) as store:
        store.execute_command(*rule.replace("the-password", "pw").split(" "))
        async with opened(server.url.replace("://", "://invalidator:pw@")) as cache:
            for kind in ("set", "zset", "hash"):
                for size in (10, 3000):
                    fill(store, kind, b"all", [b"cache:%d" % number for number in range(size)])
                    assert (await cache.apply(tags(b"all"))).removed == size
            store.mset({"cache:1": "v", "cache:2": "v"})
            assert (await cache.apply(keys(b"cache:1"))).removed == 1
            assert (await cache.apply(Batch(Invalidation(key_patterns={b"cache:*"})))).removed == 1
            await cache.apply(Batch(Invalidation(), heartbeat=1.0))
            assert store.dbsize() == 0
            assert (await cache.keep_record("shop", b"mine", expected=None)).content == b"mine"
            assert (await cache.load_record("shop")).content == b"mine"
            assert await cache.claim_record("shop", "7", before="", seconds=60) == "7"


async def test_what_is_forbidden_of_the_record_comes_with_the_command_that_allows_it(
    redis_flavour: SharedServer,
) -> None:
    with redis.Redis.from_url(redis_flavour.url) as store:
        try:
            store.execute_command("ACL", "SETUSER", "inv", "reset", "on", ">pw", "~mine[1]:shop", "+@all", "-set")
            url = redis_flavour.url.replace("://", "://inv:pw@")
            async with opened(url, record_prefix="mine[1]:") as cache:
                fixes = [
                    await forbidden(cache.load_record("shop")),
                    await forbidden(cache.claim_record("shop", "", before="", seconds=0)),
                    await forbidden(cache.keep_record("shop", b"x", expected=None)),
                ]
                assert len(set(fixes)) == 1
                store.execute_command(*fixes[0].replace("NAME", "inv").split())
                assert (await cache.keep_record("shop", b"x", expected=None)).content == b"x"
                assert await cache.claim_record("shop", "7", before="", seconds=60) == "7"
        finally:
            store.execute_command("ACL", "DELUSER", "inv")


async def forbidden(asking: Awaitable[object]) -> str:
    """What to type so that it is allowed."""
    with pytest.raises(TargetRejected) as caught:
        await asking
    assert caught.value.fix is not None
    return caught.value.fix


@pytest.mark.parametrize("size", [10, 3000])
async def test_a_member_that_may_not_be_unlinked_stays_in_its_set(
    start: Callable[..., KeyValueServer], size: int
) -> None:
    server = start()
    with client_of(server) as store:
        fill(store, "set", b"all", [*(b"cache:%d" % number for number in range(size)), b"private:1"])
        store.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["tag:*", "cache:*"], categories=["+@all"])
        async with opened(server.url.replace("://", "://narrow:pw@")) as cache:
            with pytest.raises(TargetRejected, match=r"permission|can't access") as caught:
                await cache.apply(tags(b"all"))
            assert caught.value.remaining == Invalidation(tags={b"all"})
            assert b"private:1" in store.smembers("tag:all") | store.smembers(b"tag:all\0drain")
            store.acl_setuser("narrow", keys=["private:*"])
            await cache.apply(tags(b"all"))
        assert store.dbsize() == 0


async def test_a_demoted_primary_is_not_written_to_and_a_promoted_one_is(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    with client_of(server) as store:
        store.set("user:1", "v")
        async with opened(server.url) as cache:
            await cache.apply(keys(b"other"))
            store.replicaof("127.0.0.1", "1")
            with pytest.raises(TargetUnavailable, match="READONLY") as caught:
                await cache.apply(keys(b"user:1"))
            assert caught.value.result == "unavailable"
            with pytest.raises(TargetUnavailable, match="is a replica"):
                await cache.apply(keys(b"user:1"))
            with pytest.raises(TargetUnavailable, match="is a replica"):
                await cache.apply(Batch(Invalidation(), heartbeat=1.0))
            store.replicaof("NO", "ONE")
            assert (await cache.apply(keys(b"user:1"))).removed == 1


async def test_a_primary_that_misses_its_replicas_is_tried_again(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    with client_of(server) as store:
        fill(store, "set", b"all", [b"user:1"])
        store.config_set("min-replicas-to-write", 1)
        async with opened(server.url) as cache:
            for batch in (keys(b"user:1"), tags(b"all"), Batch(Invalidation(), heartbeat=1.0)):
                with pytest.raises(TargetUnavailable, match="NOREPLICAS") as caught:
                    await cache.apply(batch)
                assert caught.value.result == "unavailable"
            store.config_set("min-replicas-to-write", 0)
            assert (await cache.apply(tags(b"all"))).removed == 1


async def test_a_full_server_is_no_obstacle(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    with client_of(server) as store:
        for kind, size in (("set", 3000), ("zset", 3000), ("hash", 3000), ("set", 10)):
            fill(store, kind, f"{kind}-{size}".encode(), [f"{kind}-{size}:{i}".encode() for i in range(size)])
        store.set("user:1", "v")
        store.config_set("maxmemory-policy", "noeviction")
        store.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            store.set("user:2", "v")
        async with opened(server.url) as cache:
            assert (await cache.apply(keys(b"user:1"))).removed == 1
            applied = await cache.apply(tags(b"set-3000", b"zset-3000", b"hash-3000", b"set-10"))
            assert applied.removed == 9010
        assert store.dbsize() == 0


async def test_a_server_that_is_loading_is_tried_again(start: Callable[..., KeyValueServer]) -> None:
    server = start("--enable-debug-command", "local", "--loading-process-events-interval-bytes", "1024")
    with client_of(server) as store:
        store.mset({f"user:{number}": "v" * 100 for number in range(5000)})
        store.config_set("key-load-delay", 200)
        reload = asyncio.create_task(asyncio.to_thread(store.execute_command, "DEBUG", "RELOAD"))
        async with opened(server.url) as cache:
            with pytest.raises(TargetUnavailable, match="LOADING") as caught:
                await applied_while(reload, cache)
            assert caught.value.result == "unavailable"
            assert (await applied_in_the_end(cache.apply, keys(b"user:7"))).removed == 1
        await reload


async def test_a_busy_server_is_tried_again(start: Callable[..., KeyValueServer]) -> None:
    server = start("--lua-time-limit", "10")
    with client_of(server) as store, client_of(server) as other:
        store.set("user:1", "v")
        busy = asyncio.create_task(asyncio.to_thread(other.eval, "while true do end", 0))
        async with opened(server.url) as cache:
            with pytest.raises(TargetUnavailable, match="BUSY") as caught:
                await applied_while(busy, cache)
            assert caught.value.result == "unavailable"
            store.script_kill()
            with pytest.raises(redis.ResponseError):
                await busy
            assert (await applied_in_the_end(cache.apply, keys(b"user:1"))).removed == 1


async def test_a_stopped_server_is_a_timeout_and_applied_when_it_goes_on(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    with client_of(server) as store:
        fill(store, "set", b"all", [b"user:1"])
        async with opened(server.url, timeout_seconds=0.2, connect_timeout_seconds=0.2) as cache:
            await applied_in_the_end(cache.apply, keys(b"nobody"))
            os.kill(server.pid, signal.SIGSTOP)
            for _ in range(2):  # on the open connection, and on a new one
                with pytest.raises(TargetUnavailable) as caught:
                    await cache.apply(tags(b"all"))
                assert caught.value.result == "timeout"
            os.kill(server.pid, signal.SIGCONT)
            await applied_in_the_end(cache.apply, tags(b"all"))
        assert store.dbsize() == 0


async def test_a_server_killed_in_the_middle_of_a_set_loses_nothing(start: Callable[..., KeyValueServer]) -> None:
    server = start("--appendonly", "yes", "--appendfsync", "always")
    members = [b"user:%d" % number for number in range(60_000)]
    with client_of(server) as store:
        fill(store, "zset", b"all", members)
        async with opened(server.url) as cache:
            applying = asyncio.create_task(cache.apply(Batch(Invalidation(tags={b"all"}, keys={b"k"}))))
            await until(lambda: store.dbsize() < 55_000)
            server.kill()
            with pytest.raises(TargetUnavailable) as caught:
                await applying
            assert caught.value.result == "connection"
            assert caught.value.remaining == Invalidation(tags={b"all"})
            server.start()
            left = store.dbsize()
            assert 1 < left < 55_000
            applied = await applied_in_the_end(cache.apply, Batch(caught.value.remaining))
        assert applied.removed == left - 1  # the set itself is no member
        assert store.dbsize() == 0


async def test_a_daemon_that_ends_in_the_middle_of_a_set_loses_nothing(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    with client_of(server) as store:
        fill(store, "set", b"all", [b"user:%d" % number for number in range(60_000)])
        async with opened(server.url) as first:
            applying = asyncio.create_task(first.apply(tags(b"all")))
            await until(lambda: store.dbsize() < 55_000)
            applying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await applying
        assert store.dbsize() > 1
        async with opened(server.url) as second:
            await second.apply(tags(b"all"))
        assert store.dbsize() == 0


async def test_a_restarted_server_costs_one_failure_at_most(start: Callable[..., KeyValueServer]) -> None:
    server = start()
    async with opened(server.url) as cache:
        await cache.apply(keys(b"user:1"))
        server.stop()
        with pytest.raises(TargetUnavailable) as caught:
            await cache.apply(keys(b"user:1"))
        assert caught.value.result == "connection"
        server.start()
        assert (await cache.apply(keys(b"user:1"))).keys == 1


async def test_a_server_that_hung_up_on_an_idle_connection_costs_no_failure(
    start: Callable[..., KeyValueServer],
) -> None:
    server = start()
    with client_of(server) as store:
        async with opened(server.url) as cache:
            await cache.apply(keys(b"user:1"))
            assert store.client_kill_filter(_type="normal", skipme=True) == 1
            connection: Any = cache._client._connection
            await until(connection._reader.at_eof)
            assert (await cache.apply(keys(b"user:1"))).keys == 1


async def test_a_cluster_node_is_named_as_what_is_not_supported(start: Callable[..., KeyValueServer]) -> None:
    server = start("--cluster-enabled", "yes")
    with client_of(server) as store:
        store.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: "cluster_state:ok" in str(store.execute_command("CLUSTER", "INFO")))
        async with opened(server.url) as cache:
            with pytest.raises(TargetRejected, match="Cluster"):
                await cache.apply(keys(b"a", b"b"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder with a short name (paths of sockets are limited to 107 bytes) that servers of other users may use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


async def test_a_unix_socket_and_a_database_number_are_obeyed(
    start: Callable[..., KeyValueServer], open_folder: Path
) -> None:
    path = open_folder / "s"
    server = start("--unixsocket", str(path), "--unixsocketperm", "777")
    with client_of(server, db=3) as third, client_of(server) as store:
        for url in (f"unix://{path}?db=3", server.url.removesuffix("/0") + "/3"):
            third.set("user:1", "v")
            store.set("user:1", "v")
            async with opened(url) as cache:
                assert (await cache.apply(keys(b"user:1"))).removed == 1
                assert {entry["name"] for entry in store.client_list() if entry["db"] == "3"} == {"invalidator", ""}
            assert store.exists("user:1")
            assert not third.exists("user:1")


def calls(store: redis.Redis, command: str) -> int:
    """How often the server carried the command out since its statistics were reset."""
    statistics: dict[str, dict[str, int]] = store.info("commandstats")
    return statistics.get(f"cmdstat_{command}", {}).get("calls", 0)


@pytest.mark.parametrize(
    ("policy", "seconds", "codes"),
    [
        ("noeviction", None, []),
        ("volatile-lru", None, []),
        ("volatile-lru", 60, ["eviction-evicts-tags"]),
        ("allkeys-lru", None, ["eviction-evicts-tags"]),
        ("allkeys-random", None, ["eviction-evicts-tags"]),
    ],
)
async def test_a_probe_warns_of_memory_that_is_won_by_throwing_tag_sets_away(
    own_redis: KeyValueServer, policy: str, seconds: int | None, codes: list[str]
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.sadd("tag:product:7", "product:7")
        if seconds is not None:
            client.expire("tag:product:7", seconds)
        client.config_set("maxmemory-policy", policy)
        async with opened(own_redis.url) as target:
            assert (await target.probe()).findings == ()  # nothing bounds the memory
            client.config_set("maxmemory", "100mb")
            assert [finding.code for finding in (await target.probe()).findings] == codes


async def test_a_probe_drops_nothing_and_names_the_server(cache: RedisKeys, store: redis.Redis) -> None:
    fill(store, "set", b"product:7", [b"product:7"])
    before = store.dbsize()
    probe = await cache.probe()
    assert store.dbsize() == before
    assert probe.facts[0].split()[0] in {"Redis", "Valkey"}
    assert probe.facts[1].startswith("UNLINK ")


async def test_a_probe_goes_without_what_a_role_may_not_ask(own_redis: KeyValueServer) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "inv", "on", ">pw", "~*", "+unlink", "+ping")
        url = own_redis.url.replace("redis://", "redis://inv:pw@")
        async with opened(url) as target:
            assert (await target.probe()).facts[0] == "Redis"


async def test_a_record_is_whose_it_was_first_until_that_one_is_silent(cache: RedisKeys, store: redis.Redis) -> None:
    def claim(owner: str, before: str = "", seconds: float = 60) -> Awaitable[str]:
        return cache.claim_record("shop", owner, before=before, seconds=seconds)

    assert await claim("7") == "7"
    assert await claim("8") == "7"
    assert await claim("7") == "7", "said again"
    assert await claim("7/1", before="7") == "7/1", "the same daemon, led to another database"
    assert await claim("8", before="9") == "7/1"
    assert 0 < store.pttl("invalidator:shop:owner") <= 60_000
    assert await claim("7/1", seconds=0.01) == "7/1"
    while store.exists("invalidator:shop:owner"):
        pass
    assert await claim("8", seconds=0) == ""
    assert await claim("8") == "8"
    assert await claim("7", seconds=0) == "8"
    assert store.get("invalidator:shop") is None
