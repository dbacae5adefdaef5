"""Publishes what is stale to in-process caches over Redis Pub/Sub (layer L1).

Pub/Sub forgets: a subscriber that is not there misses the message. So every message has a number; a subscriber that
sees a hole, a new epoch, or was disconnected, clears its cache. A number is never used for two contents: after a
publication whose fate is unknown, the same names go out again under new numbers, and the hole (if it is one) makes
subscribers clear. Heartbeats carry the current number, so that the loss of a last message is noticed too.

The format is specified in docs/reference/l1-messages.md.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import ClassVar, Final, Literal

from pydantic import Field, model_validator

from invalidator.errors import TargetError, TargetRejected
from invalidator.model import Applied, Batch, Layer
from invalidator.net.clock import SystemClock
from invalidator.net.redis import RedisClient, RedisOptions, as_integer, as_list
from invalidator.ports import Clock, Probe
from invalidator.targets import _l1_messages as messages
from invalidator.targets._redis_server import about, timed

Part = Literal["l1", "keys", "tags"]

MESSAGES_PER_EXCHANGE: Final = 100
"""So many messages go out before their replies are read: bounds the memory that a large batch takes."""


class Settings(RedisOptions):
    """A Redis (or Valkey, KeyDB, Dragonfly ...) that in-process caches are subscribed to."""

    type: Literal["redis_bus"]
    channel: str = Field(default="cache:invalidate", min_length=1)
    """What subscribers are subscribed to."""
    format: Literal["invalidator", "pattern"] = "invalidator"
    """``invalidator``: numbered messages with lists, and heartbeats. ``pattern``: one message
    ``{"pattern": "user:42:*", "timestamp": 1795379811136}`` for each glob, from which a loss cannot be noticed."""
    include: list[Part] = Field(default=["l1", "tags"], min_length=1)
    """Which parts of an invalidation are published: ``l1`` (the globs that rules write for this layer), ``keys``
    (the L2 keys), ``tags`` (the L2 tags). With format ``pattern``: ``l1`` and ``keys``, by default ``l1``."""
    heartbeat_seconds: float = Field(default=1, gt=0)
    """After so long without a message the current number is published. Format ``invalidator`` only."""
    heartbeat_lapse_seconds: float = Field(default=30, gt=0)
    """Heartbeats end when the source has given nothing for so long (its own heartbeats count; they are at most 10 s
    apart by default): then this process reads no changes, and must not tell caches that they are fresh. The
    standby of two daemons is silent for the same reason."""
    max_message_bytes: int = Field(default=65536, ge=1024)
    """More goes out as several messages. A single name that does not fit is widened."""

    @model_validator(mode="before")
    @classmethod
    def _include_what_the_format_can_say(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("format") == "pattern" and "include" not in values:
            return {**values, "include": ["l1"]}
        return values

    @model_validator(mode="after")
    def _is_sayable(self) -> Settings:
        if self.format == "pattern" and "tags" in self.include:
            msg = "format 'pattern' has no place for tags: leave them out of 'include', or take format 'invalidator'"
            raise ValueError(msg)
        return self


def build(name: str, settings: Settings) -> RedisBus:
    """Make the target; no connection is opened yet."""
    return RedisBus(name, settings)


class RedisBus:
    """The target; see the module.

    Args:
        name: of the target in the settings.
        settings: its options.
        clock: turned by tests.
    """

    layer: ClassVar[Layer] = Layer.L1

    def __init__(self, name: str, settings: Settings, *, clock: Clock | None = None) -> None:
        self.name = name
        self.epoch = str(uuid.uuid4())
        self._settings = settings
        self._channel = settings.channel.encode()
        self._client = RedisClient(settings)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._lock = asyncio.Lock()  # numbers must go out in their order
        self._sequence = 0
        self._published_at = self._clock.monotonic()
        self._receivers = 0
        self._source_seen_at: float | None = None

    def __repr__(self) -> str:
        return f"<RedisBus {self.name} {self._client!r}>"

    async def apply(self, batch: Batch) -> Applied:
        """Publish what the batch names; see ``ports.Target`` for what is guaranteed.

        ``receivers`` is the smallest number of subscribers that a message reached; none is no failure.

        Raises:
            TargetUnavailable: no answer, or one that says "not now".
            TargetRejected: credentials, permissions or the kind of server are wrong.
        """
        if not batch.is_repeat:
            self._source_seen_at = self._clock.monotonic()
        content = messages.content(batch.invalidation, frozenset(self._settings.include))
        if self._settings.format == "pattern":
            return await self._apply_patterns(batch, content)
        if not content and batch.heartbeat is None:
            return Applied(receivers=self._receivers)
        parts, widened = messages.split(content, self._settings.max_message_bytes)
        async with self._lock:
            await self._publish(self._numbered(part, batch) for part in parts)
        return self._applied(content, content.widened + widened)

    async def run(self) -> None:
        """Publish heartbeats, if the format has them, and follow the sentinels, if there are any."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._client.run())
            group.create_task(self._keep_beating())

    async def _keep_beating(self) -> None:
        interval = self._settings.heartbeat_seconds
        while self._settings.format == "invalidator":
            wait = self._published_at + interval - self._clock.monotonic()
            if wait > 0 or not self._is_source_alive():
                await self._clock.sleep(wait if wait > 0 else interval)
                continue
            try:
                await self._beat()
            except TargetError:
                # Not heard is what tells subscribers. Deliveries and the heartbeat through Postgres report the
                # failure to the operator.
                await self._clock.sleep(interval)

    async def probe(self) -> Probe:
        """See whether the server answers and who listens; nothing is published. See ``ports.Probing``."""
        took = await timed(self._client, b"PING")
        server = await about(self._client)
        try:
            _, count = as_list(await self._client.execute(b"PUBSUB", b"NUMSUB", self._channel))
            heard = f"{as_integer(count)} subscribers on {self._settings.channel}"
        except TargetRejected:  # publishing may be allowed all the same
            heard = f"subscribers on {self._settings.channel} not known"
        return Probe((server.version, took, heard))

    async def close(self) -> None:
        """Release the connection."""
        await self._client.close()

    def _is_source_alive(self) -> bool:
        seen = self._source_seen_at
        return seen is not None and self._clock.monotonic() - seen < self._settings.heartbeat_lapse_seconds

    async def _beat(self) -> None:
        async with self._lock:
            await self._publish(iter([self._numbered(messages.Content(), Batch(messages.NOTHING))]))

    async def _apply_patterns(self, batch: Batch, content: messages.Content) -> Applied:
        if content:
            now = self._now()
            patterns, widened = messages.patterns(content, self._settings.max_message_bytes)
            await self._publish(messages.pattern_message(pattern, now) for pattern in patterns)
            return self._applied(content, content.widened + widened)
        if batch.heartbeat is not None:
            await self._client.execute(b"PING")
        return Applied(receivers=self._receivers)

    def _numbered(self, content: messages.Content, batch: Batch) -> bytes:
        self._sequence += 1
        position = None if batch.end is None else str(batch.end)
        return messages.message(
            content, epoch=self.epoch, sequence=self._sequence, position=position, timestamp=self._now()
        )

    async def _publish(self, payloads: Iterator[bytes]) -> None:
        fewest: int | None = None
        for chunk in _chunks(payloads, MESSAGES_PER_EXCHANGE):
            commands = [(b"PUBLISH", self._channel, payload) for payload in chunk]
            replies = await self._client.pipeline(commands, at_primary=True)
            # crash point: published
            fewest = min(map(as_integer, replies)) if fewest is None else min(fewest, *map(as_integer, replies))
        self._published_at = self._clock.monotonic()
        self._receivers = fewest or 0

    def _applied(self, content: messages.Content, widened: int) -> Applied:
        return Applied(
            keys=len(content.keys),
            tags=len(content.tags),
            patterns=len(content.patterns) + content.clear,
            receivers=self._receivers,
            widened=widened,
        )

    def _now(self) -> int:
        return int(self._clock.time() * 1000)


def _chunks(payloads: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for payload in payloads:
        chunk.append(payload)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
