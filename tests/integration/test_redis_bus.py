"""Messages to in-process caches as a real subscriber of a real server sees them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import hiredis
import pytest
import redis.asyncio

from invalidator.demo.servers import KeyValueServer
from invalidator.errors import TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Lsn
from invalidator.ports import Background
from invalidator.targets.redis_bus import RedisBus, Settings, build
from tests.support.clock import ManualClock
from tests.support.processes import DEADLINE_SECONDS
from tests.support.proxy import Fault, FaultProxy
from tests.support.redis import SharedServer

CHANNEL = b"cache:invalidate"
ProxyTo = Callable[[str], Awaitable[FaultProxy]]


class Subscriber:
    """Keeps the bytes of every message, by a socket of its own: no client library between."""

    def __init__(self, url: str, channel: bytes = CHANNEL) -> None:
        self._address = urlsplit(url)
        self._channel = channel
        self._came = asyncio.Condition()
        self._replies = hiredis.Reader()
        self.messages: list[bytes] = []
        self.subscribed = asyncio.Event()

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        self._writer.write(b"SUBSCRIBE %s\r\n" % self._channel)
        self._task = asyncio.create_task(self._listen(reader))
        await asyncio.wait_for(self.subscribed.wait(), DEADLINE_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()

    async def heard(self, name: bytes) -> None:
        """Return when a message with this text in it has come: what was published before it has come too."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._came:
            await self._came.wait_for(lambda: any(name in message for message in self.messages[-1:]))

    async def received(self, count: int, *, within_seconds: float = DEADLINE_SECONDS) -> list[bytes]:
        """All messages, when there are at least so many."""
        async with asyncio.timeout(within_seconds), self._came:
            await self._came.wait_for(lambda: len(self.messages) >= count)
        return self.messages

    def parsed(self) -> list[dict[str, Any]]:
        return [json.loads(message.decode("utf-8", "strict")) for message in self.messages]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                kind, _, content = reply
                if kind == b"subscribe":
                    self.subscribed.set()
                    continue
                async with self._came:
                    self.messages.append(content)
                    self._came.notify_all()


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisBus]:
    target = build("bus", Settings.model_validate({"type": "redis_bus", "url": url, **options}))
    try:
        yield target
    finally:
        await target.close()


@asynccontextmanager
async def running(target: RedisBus) -> AsyncIterator[asyncio.Task[None]]:
    """The target with its background task, as the daemon runs it."""
    assert isinstance(target, Background)
    task = asyncio.create_task(target.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def subscriber(redis_flavour: SharedServer) -> AsyncIterator[Subscriber]:
    async with Subscriber(redis_flavour.url) as listening:
        yield listening


@pytest.fixture
async def bus(redis_flavour: SharedServer) -> AsyncIterator[RedisBus]:
    async with opened(redis_flavour.url) as target:
        yield target


def stale(*globs: bytes, tags: tuple[bytes, ...] = (), end: Lsn | None = None) -> Batch:
    return Batch(Invalidation(l1=set(globs), tags=set(tags)), end)


def numbers(subscriber: Subscriber) -> list[int]:
    return [message["seq"] for message in subscriber.parsed()]


async def test_a_message_arrives_byte_for_byte(bus: RedisBus, subscriber: Subscriber) -> None:
    applied = await bus.apply(stale(b"user:42", b"list:user:42:*", tags=(b"user:42",), end=Lsn.parse("0/16B3748")))
    assert applied == Applied(keys=1, patterns=1, tags=1, receivers=1)
    (raw,) = await subscriber.received(1)
    timestamp = subscriber.parsed()[0]["timestamp"]
    assert raw.decode() == (
        f'{{"v":1,"epoch":"{bus.epoch}","seq":1,"lsn":"0/16B3748","timestamp":{timestamp},'
        '"keys":["user:42"],"patterns":["list:user:42:*"],"tags":["user:42"],"clear":false}'
    )
    assert uuid.UUID(bus.epoch).version == 4
    assert 1.7e12 < timestamp < 4e12


async def test_a_batch_inside_a_transaction_has_no_position(bus: RedisBus, subscriber: Subscriber) -> None:
    await bus.apply(stale(b"user:1"))
    await subscriber.received(1)
    assert subscriber.parsed()[0]["lsn"] is None


async def test_numbers_grow_by_one_within_an_epoch_and_each_process_has_its_own(
    redis_flavour: SharedServer, bus: RedisBus, subscriber: Subscriber
) -> None:
    for number in range(3):
        await bus.apply(stale(b"user:%d" % number))
    await bus.apply(Batch(Invalidation(), heartbeat=1.0))
    async with opened(redis_flavour.url) as other:
        await other.apply(stale(b"user:1"))
    await subscriber.received(5)
    assert numbers(subscriber) == [1, 2, 3, 4, 1]
    assert [message["epoch"] for message in subscriber.parsed()] == [bus.epoch] * 4 + [other.epoch]


async def test_a_large_batch_is_split_and_numbered(redis_flavour: SharedServer, subscriber: Subscriber) -> None:
    names = [b"user:%d" % number for number in range(20_000)]
    async with opened(redis_flavour.url, max_message_bytes=1024) as bus:
        applied = await bus.apply(stale(*names))
        await bus.apply(stale(b"the last"))
    assert applied.keys == 20_000
    assert applied.receivers == 1
    await subscriber.heard(b"the last")
    count = len(subscriber.messages)
    assert count > 300
    assert max(map(len, subscriber.messages)) <= 1024
    assert numbers(subscriber) == list(range(1, count + 1))
    keys = [key.encode() for message in subscriber.parsed() for key in message["keys"]]
    assert sorted(keys) == sorted([*names, b"the last"])


async def test_hostile_names_arrive_as_what_they_are(bus: RedisBus, subscriber: Subscriber) -> None:
    await bus.apply(stale(b"user:[*]", b"line\nbreak\r\n", "é€𝄞".encode(), b'"[\\\\]', b"\x01", b"user:\xff:1"))
    await subscriber.received(1)
    (message,) = subscriber.parsed()
    assert sorted(message["keys"]) == sorted(["user:*", "line\nbreak\r\n", "é€𝄞", '"\\', "\x01"])
    assert message["patterns"] == ["user:*:1"]


async def test_a_name_too_long_for_a_message_clears(redis_flavour: SharedServer, subscriber: Subscriber) -> None:
    async with opened(redis_flavour.url, max_message_bytes=1024) as bus:
        applied = await bus.apply(stale(b"user:1", b"x" * 2000))
    assert applied.widened == 1
    await subscriber.received(1)
    (message,) = subscriber.parsed()
    assert message["clear"] is True
    assert message["keys"] == message["patterns"] == message["tags"] == []


async def test_nobody_listening_is_no_failure(bus: RedisBus) -> None:
    assert (await bus.apply(stale(b"user:1"))).receivers == 0


async def test_the_pattern_format_is_exact_and_one_message_each(
    redis_flavour: SharedServer, subscriber: Subscriber
) -> None:
    async with opened(redis_flavour.url, format="pattern", include=["l1", "keys"]) as bus:
        batch = Batch(Invalidation(l1={b"user:42:*"}, keys={b"page:*"}, tags={b"t"}))
        applied = await bus.apply(batch)
        assert applied == Applied(keys=1, patterns=1, receivers=1)
        assert await bus.apply(Batch(Invalidation(), heartbeat=1.0)) == Applied(receivers=1)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await bus.run()  # has no heartbeats to publish
    first, second = await subscriber.received(2)
    timestamp = subscriber.parsed()[0]["timestamp"]
    assert first == b'{"pattern": "page:[*]", "timestamp": %d}' % timestamp
    assert second == b'{"pattern": "user:42:*", "timestamp": %d}' % timestamp
    assert 1.7e12 < timestamp < 4e12


async def test_another_channel_is_obeyed(redis_flavour: SharedServer) -> None:
    async with (
        opened(redis_flavour.url, channel="caches:é") as bus,
        Subscriber(redis_flavour.url, "caches:é".encode()) as subscriber,
    ):
        await bus.apply(stale(b"user:1"))
        await subscriber.received(1)


async def test_heartbeats_carry_the_number_on(redis_flavour: SharedServer, subscriber: Subscriber) -> None:
    async with opened(redis_flavour.url, heartbeat_seconds=0.02) as bus, running(bus):
        await bus.apply(stale(b"user:1"))
        await subscriber.received(4)
    assert numbers(subscriber)[:4] == [1, 2, 3, 4]
    assert [message["keys"] for message in subscriber.parsed()[:4]] == [["user:1"], [], [], []]
    assert subscriber.parsed()[1]["clear"] is False


async def turn(clock: ManualClock, seconds: int) -> None:
    """Let time pass second by second, each time after the bus has done its real exchange and sleeps again."""
    for _ in range(seconds):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not clock.sleepers:  # noqa: ASYNC110  (the socket has no event)
                await asyncio.sleep(0.001)
        await clock.advance(1)


async def test_a_process_that_reads_no_changes_is_silent(redis_flavour: SharedServer, subscriber: Subscriber) -> None:
    clock = ManualClock()
    settings = Settings.model_validate(
        {"type": "redis_bus", "url": redis_flavour.url, "heartbeat_seconds": 1, "heartbeat_lapse_seconds": 30}
    )
    bus = RedisBus("bus", settings, clock=clock)
    async with running(bus):
        await turn(clock, 100)  # a standby: no batch ever came
        await bus.apply(stale(b"user:1"))
        await turn(clock, 60)  # the source falls silent after this batch
        await bus.apply(Batch(Invalidation(l1={b"user:2"}), is_repeat=True))  # says nothing of the source
        await turn(clock, 10)
        await bus.apply(stale(b"user:3"))
        await turn(clock, 3)
        await subscriber.received(33)
    await bus.close()
    said = [message["keys"] for message in subscriber.parsed()]
    assert said[0] == ["user:1"]
    silent_at = said.index(["user:2"])
    assert said[1:silent_at] == [[]] * 29
    assert said[silent_at + 1] == ["user:3"]
    assert said[silent_at + 2 : silent_at + 4] == [[], []]


async def test_a_heartbeat_that_cannot_be_published_ends_nothing(redis_url: str, proxy_to: ProxyTo) -> None:
    proxy = await proxy_to(redis_url)
    url = proxy.through(redis_url)
    async with (
        Subscriber(redis_url) as subscriber,
        opened(url, heartbeat_seconds=0.02, timeout_seconds=1, connect_timeout_seconds=1) as bus,
        running(bus) as task,
    ):
        await bus.apply(stale(b"user:1"))
        await subscriber.received(3)
        proxy.fault = Fault.BLACK_HOLE
        with pytest.raises(TargetUnavailable):
            await bus.apply(stale(b"user:2"))
        proxy.fault = Fault.NONE
        seen = len(subscriber.messages)
        await subscriber.received(seen + 3)
        assert not task.done()


async def test_a_publication_of_unknown_fate_is_made_again_under_new_numbers(redis_url: str, proxy_to: ProxyTo) -> None:
    proxy = await proxy_to(redis_url)
    url = proxy.through(redis_url)
    async with Subscriber(redis_url) as subscriber, opened(url, timeout_seconds=1) as bus:
        await bus.apply(stale(b"user:1"))
        proxy.fault = Fault.DROP_REPLIES
        with pytest.raises(TargetUnavailable) as caught:
            await bus.apply(stale(b"user:2"))
        assert caught.value.result == "timeout"
        await subscriber.received(2)  # it did arrive; we cannot know
        proxy.fault = Fault.NONE
        await bus.apply(stale(b"user:2"))
        await subscriber.received(3)
    assert numbers(subscriber) == [1, 2, 3]
    assert [message["keys"] for message in subscriber.parsed()] == [["user:1"], ["user:2"], ["user:2"]]


async def test_a_publication_that_never_arrived_leaves_a_hole_for_subscribers_to_see(
    redis_url: str, proxy_to: ProxyTo
) -> None:
    proxy = await proxy_to(redis_url)
    url = proxy.through(redis_url)
    async with Subscriber(redis_url) as subscriber, opened(url) as bus:
        await bus.apply(stale(b"user:1"))
        proxy.reset_connections()
        proxy.fault = Fault.REFUSE
        with pytest.raises(TargetUnavailable):
            await bus.apply(stale(b"user:2"))
        proxy.fault = Fault.NONE
        await bus.apply(stale(b"user:2"))
        await subscriber.received(2)
    first, second = numbers(subscriber)
    assert second > first + 1


async def test_batches_and_heartbeats_at_once_keep_the_numbers_in_order(
    redis_flavour: SharedServer, subscriber: Subscriber
) -> None:
    async with opened(redis_flavour.url, heartbeat_seconds=0.001, max_message_bytes=1024) as bus, running(bus):
        for number in range(50):
            await bus.apply(stale(*(b"user:%d:%d" % (number, i) for i in range(200))))
            await asyncio.sleep(0)
    count = len(await subscriber.received(200))
    assert numbers(subscriber) == list(range(1, count + 1))


async def test_a_replica_is_not_published_to(own_redis: KeyValueServer) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client, opened(own_redis.url) as bus:
        await client.replicaof("127.0.0.1", "1")
        with pytest.raises(TargetUnavailable, match="is a replica"):
            await bus.apply(stale(b"user:1"))
        await client.replicaof("NO", "ONE")
        await bus.apply(stale(b"user:1"))


async def test_a_primary_that_becomes_a_replica_under_an_open_connection_is_not_published_to(
    own_redis: KeyValueServer,
) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client, opened(own_redis.url) as bus:
        await bus.apply(stale(b"user:1"))
        await client.replicaof("127.0.0.1", "1")
        with pytest.raises(TargetUnavailable, match="is a replica"):
            await bus.apply(stale(b"user:1"))
        await client.replicaof("NO", "ONE")
        await bus.apply(stale(b"user:1"))


async def test_a_user_who_may_only_publish_is_enough(own_redis: KeyValueServer) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.acl_setuser("publisher", enabled=True, passwords=["+pw"], channels=["*"], commands=["+publish"])
        async with opened(own_redis.url.replace("://", "://publisher:pw@")) as bus:
            assert await bus.apply(stale(b"user:1")) == Applied(keys=1)


async def test_a_channel_that_is_forbidden_is_for_the_operator(own_redis: KeyValueServer) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.acl_setuser("narrow", enabled=True, passwords=["+pw"], channels=["other"], categories=["+@all"])
        async with opened(own_redis.url.replace("://", "://narrow:pw@")) as bus:
            with pytest.raises(TargetRejected, match="NOPERM"):
                await bus.apply(stale(b"user:1"))
