"""What is made of the sentinels' answers, given here by script; and a primary that stands still."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from invalidator.errors import TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation
from invalidator.net.redis import client as door
from invalidator.net.redis.sentinels import Sentinels
from invalidator.net.redis.url import parse
from invalidator.targets import redis_bus, redis_keys
from tests.support.processes import DEADLINE_SECONDS
from tests.support.resp import Answer, Command, ScriptedRedis, Silence, well

DEAD = "127.0.0.1:1"
BATCH = Batch(Invalidation(keys={b"k"}))


@pytest.fixture
async def servers() -> AsyncIterator[list[ScriptedRedis]]:
    """Three sentinels, then two servers."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ScriptedRedis()) for _ in range(5)]


def place(server: ScriptedRedis) -> str:
    return server.url.removeprefix("redis://").removesuffix("/0")


def naming(server: ScriptedRedis | None) -> Any:
    """Answers as a sentinel that names this server; None: it knows none."""

    def answer(command: Command) -> Answer:
        if command[0] != b"SENTINEL":
            return well(command)
        assert command[1:] == (b"GET-MASTER-ADDR-BY-NAME", b"my master")
        if server is None:
            return b"*-1\r\n"
        host, port = place(server).split(":")
        return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(host), host.encode(), len(port), port.encode())

    return answer


def target(sentinels: Sequence[str], **options: object) -> redis_keys.RedisKeys:
    url = f"redis+sentinel://user:pw@{','.join(sentinels)}/my%20master/2?sentinel_password=spw"
    given = {"type": "redis_keys", "url": url, "connect_timeout_seconds": 60, "timeout_seconds": 60, **options}
    return redis_keys.build("cache", redis_keys.Settings.model_validate(given))


async def test_the_primary_is_what_most_sentinels_name_whoever_answers_first(servers: list[ScriptedRedis]) -> None:
    *sentinels, old, new = servers
    sentinels[0].answer = naming(old)
    sentinels[1].answer = sentinels[2].answer = naming(new)
    cache = target([place(each) for each in sentinels])

    assert await cache.apply(BATCH) == Applied(keys=1)

    assert ([each[0] for each in old.commands], [each[0] for each in new.commands]) == ([], [b"UNLINK"])
    assert (b"AUTH", b"user", b"pw") in new.introductions
    assert (b"SELECT", b"2") in new.introductions
    assert (b"AUTH", b"spw") in sentinels[1].introductions
    await cache.close()


async def test_sentinels_that_are_dead_or_silent_are_not_waited_for_when_the_others_agree(
    servers: list[ScriptedRedis],
) -> None:
    silent, *sentinels, _, new = servers
    silent.answer = lambda command: Silence()
    for each in sentinels:
        each.answer = naming(new)
    cache = target([place(silent), DEAD, *map(place, sentinels)])
    with pytest.raises(TimeoutError):  # two of four are not more than half: it waits for the silent one
        await asyncio.wait_for(cache.apply(BATCH), 0.5)
    await cache.close()

    cache = target([place(silent), *map(place, sentinels)], timeout_seconds=600)
    assert await asyncio.wait_for(cache.apply(BATCH), DEADLINE_SECONDS) == Applied(keys=1)
    await cache.close()


async def test_without_most_of_them_agreeing_nothing_is_written_and_what_they_say_is_told(
    servers: list[ScriptedRedis],
) -> None:
    *sentinels, old, new = servers
    sentinels[0].answer, sentinels[1].answer = naming(old), naming(new)
    cache = target([*map(place, sentinels[:2]), DEAD])
    with pytest.raises(TargetUnavailable, match="must be said by 2 of 3 sentinels") as caught:
        await cache.apply(BATCH)
    for part in (f"{place(old)} is named by 1", f"{place(new)} is named by 1", f"sentinel {DEAD}: "):
        assert part in str(caught.value)
    assert "pw" not in str(caught.value)
    assert not old.commands
    assert not new.commands
    await cache.close()


async def test_a_primary_that_most_sentinels_do_not_know_is_a_mistake(servers: list[ScriptedRedis]) -> None:
    *sentinels, _, _ = servers
    for each in sentinels:
        each.answer = naming(None)
    cache = target([place(each) for each in sentinels])
    with pytest.raises(TargetRejected, match="knows no such primary"):
        await cache.apply(BATCH)
    await cache.close()


async def test_a_server_that_is_no_primary_by_its_own_word_is_not_written_to(servers: list[ScriptedRedis]) -> None:
    *sentinels, _, new = servers
    for each in sentinels:
        each.answer = naming(new)
    new.answer = lambda command: b"*1\r\n$5\r\nslave\r\n" if command[0] == b"ROLE" else well(command)
    cache = target([place(each) for each in sentinels])
    with pytest.raises(TargetUnavailable, match=r"my master at .*: is a replica"):
        await cache.apply(BATCH)
    assert [each[0] for each in new.commands] == []
    await cache.close()


@pytest.mark.parametrize("kind", ["keys", "bus"])
async def test_a_primary_that_was_replaced_is_left_even_in_the_middle_of_a_command(
    servers: list[ScriptedRedis], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(door, "SENTINEL_SECONDS", 0.02)
    *sentinels, old, new = servers
    for each in sentinels:
        each.answer = naming(old)
    stuck = {b"UNLINK", b"PUBLISH"}
    old.answer = lambda command: Silence() if command[0] in stuck else well(command)
    url = f"redis+sentinel://{','.join(map(place, sentinels))}/my%20master"
    given = {"type": f"redis_{kind}", "url": url, "timeout_seconds": 600}
    cache: redis_keys.RedisKeys | redis_bus.RedisBus
    if kind == "keys":
        cache = redis_keys.build("cache", redis_keys.Settings.model_validate(given))
    else:
        cache = redis_bus.build("bus", redis_bus.Settings.model_validate(given))
    batch = Batch(Invalidation(keys={b"k"}, l1={b"k"}))
    running = asyncio.create_task(cache.run())
    applying = asyncio.create_task(cache.apply(batch))
    await old.received(1)

    for each in sentinels:
        each.answer = naming(new)
    with pytest.raises(TargetUnavailable):
        await asyncio.wait_for(applying, DEADLINE_SECONDS)
    await cache.apply(batch)

    assert {each[0] for each in new.commands} <= stuck | {b"ROLE"}
    assert new.commands
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await cache.close()


@pytest.mark.parametrize("has_sentinels", [True, False])
async def test_a_url_that_was_rotated_leaves_the_sentinels_of_the_one_before(
    servers: list[ScriptedRedis], tmp_path: Path, has_sentinels: bool
) -> None:
    first, second, third, old, new = servers
    first.answer, second.answer = naming(old), naming(new)
    secret = tmp_path / "url"
    secret.write_text(f"redis+sentinel://{place(first)}/my%20master")
    cache = redis_keys.build(
        "cache", redis_keys.Settings.model_validate({"type": "redis_keys", "url": f"file:{secret}"})
    )
    await cache.apply(BATCH)
    assert [each[0] for each in old.commands] == [b"UNLINK"]

    secret.write_text(f"redis+sentinel://{place(second)}/my%20master" if has_sentinels else new.url)
    await old.hang_up()
    with contextlib.suppress(TargetUnavailable):  # it need not have heard of that yet
        await cache.apply(BATCH)
    await cache.apply(BATCH)

    assert {each[0] for each in new.commands} == {b"UNLINK"}
    await first.idle()
    assert not third.introductions
    await cache.close()
    await second.idle()


async def test_sentinels_that_are_left_are_asked_no_more_whoever_was_about_to(servers: list[ScriptedRedis]) -> None:
    sentinel, _, _, server, _ = servers
    sentinel.answer = naming(server)
    url = f"redis+sentinel://{place(sentinel)}/my%20master"
    options = redis_keys.Settings.model_validate({"type": "redis_keys", "url": url})
    sentinels = Sentinels(parse(url), options)
    assert await sentinels.primary() == ("127.0.0.1", int(place(server).split(":")[1]))

    asking = asyncio.create_task(sentinels.primary())
    await sentinels.close()
    with pytest.raises(TargetUnavailable):
        await asking
    with pytest.raises(TargetUnavailable, match="is asked no more"):
        await sentinels.primary()

    await sentinel.idle()


async def test_a_command_behind_a_close_asks_the_sentinels_anew(servers: list[ScriptedRedis]) -> None:
    sentinel, _, _, server, _ = servers
    sentinel.answer = naming(server)
    url = f"redis+sentinel://{place(sentinel)}/my%20master"
    client = door.RedisClient(redis_keys.Settings.model_validate({"type": "redis_keys", "url": url}))
    await client.execute(b"PING")
    await client.close()

    await client.execute(b"PING")

    await client.close()
    await sentinel.idle()


async def test_a_connection_that_is_closed_while_it_is_being_opened_is_closed(servers: list[ScriptedRedis]) -> None:
    server = servers[0]
    client = door.RedisClient(redis_keys.Settings.model_validate({"type": "redis_keys", "url": server.url}))
    asking = asyncio.create_task(client.execute(b"PING"))
    await asyncio.sleep(0)
    assert client._connection is not None
    assert not client._connection.is_connected

    await client.close()

    with pytest.raises(TargetUnavailable):
        await asking
    await server.idle()
