"""An in-process cache that hears of stale entries by message: what an application needs to take part."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from invalidator.demo.pages import Rendered

CHANNEL = "cache:invalidate"
_RECONNECT_SECONDS = 0.1
_SILENCE_SECONDS = 5.0
"""The daemon publishes at least once a second: after this long without a word, the connection or the daemon is gone."""


class L1Cache:
    """Entries of this process, dropped by the messages of ``redis_bus`` (format ``invalidator``).

    Pub/Sub delivers at most once. Whatever may have been missed (a hole in ``seq``, a new ``epoch``, a lost
    connection) clears the cache: that costs fills, never truth.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Rendered] = {}
        self._epoch: str | None = None
        self._sequence = 0
        self.generation = 0
        """Grows with each message that drops anything."""
        self.clears: Counter[str] = Counter()
        """How often everything was dropped, by reason."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Rendered | None:
        """The entry, if there is one."""
        return self._entries.get(key)

    def put(self, key: str, value: Rendered, generation: int) -> bool:
        """Store what was read since ``generation``; refused when anything was dropped meanwhile.

        Otherwise a value read before a commit could be stored after the message about it, and stay.
        """
        if generation != self.generation:
            return False
        self._entries[key] = value
        return True

    def connected(self) -> None:
        """The subscription stands, but what was said before is not known."""
        self._epoch = None
        self.clear("connected")

    def clear(self, reason: str) -> None:
        """Drop everything."""
        self.clears[reason] += 1
        self.generation += 1
        self._entries.clear()

    def apply(self, message: Mapping[str, Any]) -> None:
        """Drop what the message names; everything, if a message before it is missing."""
        epoch, sequence = message["epoch"], message["seq"]
        if self._epoch is not None and epoch != self._epoch:
            self.clear("epoch")
        elif self._epoch is not None and sequence != self._sequence + 1:
            self.clear("hole")
        self._epoch, self._sequence = epoch, sequence
        if message.get("clear"):
            self.clear("asked")
        keys, patterns, tags = (message.get(field) or () for field in ("keys", "patterns", "tags"))
        if keys or patterns or tags:
            self.generation += 1
            self._drop(set(keys), list(patterns), set(tags))

    def _drop(self, keys: set[str], patterns: list[str], tags: set[str]) -> None:
        for key in [
            key
            for key, value in self._entries.items()
            if key in keys or not tags.isdisjoint(value.tags) or any(fnmatchcase(key, pattern) for pattern in patterns)
        ]:
            del self._entries[key]


async def subscribe(
    url: str, cache: L1Cache, on_message: Callable[[dict[str, Any]], None], ready: asyncio.Event
) -> None:
    """Feed the cache from the channel until cancelled; after a lost connection subscribe again and clear."""
    while True:
        # No retries inside the client: it would subscribe again without telling us that messages were lost.
        client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        with contextlib.suppress(RedisError, OSError):
            async with client, client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                while message := await subscription.get_message(timeout=_SILENCE_SECONDS):
                    if message["type"] == "subscribe":
                        cache.connected()
                        ready.set()
                    elif message["type"] == "message":
                        on_message(json.loads(message["data"]))
        cache.clear("silent")
        await asyncio.sleep(_RECONNECT_SECONDS)
