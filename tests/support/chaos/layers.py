"""The outer cache layers of the world: one process that caches in memory (L1), and an edge (L3).

Tests fill them from other threads: what is looked through here is a copy, which one step makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, Self

import redis.asyncio
from aiohttp import web

CHANNEL = "cache:invalidate"


class Processes:
    """An in-process cache that follows docs/reference/l1-messages.md to the letter.

    Args:
        url: of the Redis to listen to, as it is at the moment.
    """

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._epoch = ""
        self._number = 0
        self.cache: dict[str, str] = {}
        self.messages = 0

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            url = self._url()
            client = redis.asyncio.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2)
            with contextlib.suppress(redis.RedisError, OSError):
                async with client, client.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    while self._url() == url:
                        self._hear(await subscription.get_message(timeout=0.2))
            await asyncio.sleep(0.05)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        if message["type"] == "subscribe":  # also after a reconnection that the client library made by itself
            self.cache.clear()
        elif message["type"] == "message":
            self._apply(json.loads(message["data"]))

    def _apply(self, message: dict[str, Any]) -> None:
        self.messages += 1
        if message["epoch"] != self._epoch or message["seq"] != self._number + 1 or message["clear"]:
            self.cache.clear()
        self._epoch, self._number = message["epoch"], message["seq"]
        for key in message["keys"]:
            self.cache.pop(key, None)
        for pattern in message["patterns"]:
            for key in [key for key in list(self.cache) if fnmatchcase(key, pattern)]:
                self.cache.pop(key, None)


class Mood(Enum):
    """How the edge treats a purge."""

    GOOD = "does it"
    FAILING = "answers 503, and does nothing"
    BUSY = "answers 429, and does nothing"
    SPEECHLESS = "does it, and hangs up without an answer"


class Edge:
    """A cache by tag that speaks the PURGE protocol of deploy/varnish."""

    def __init__(self) -> None:
        self.mood = Mood.GOOD
        self.pages: dict[str, tuple[str, frozenset[str]]] = {}
        self.purges = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_route("PURGE", "/{path:.*}", self._purge)
        application.router.add_get("/{path:.*}", self._alive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def store(self, path: str, value: str, *tags: str) -> None:
        """Keep a page under its tags."""
        self.pages[path] = (value, frozenset(tags))

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.mood is Mood.FAILING else 200)

    async def _purge(self, request: web.Request) -> web.StreamResponse:
        if self.mood is Mood.FAILING:
            return web.Response(status=503)
        if self.mood is Mood.BUSY:
            return web.Response(status=429, headers={"Retry-After": "1"})
        wanted = set(request.headers.get("xkey-purge", "").split())
        found = [path for path, (_, tags) in list(self.pages.items()) if not wanted.isdisjoint(tags)]
        for path in found:
            self.pages.pop(path, None)
        self.purges += 1
        if self.mood is Mood.SPEECHLESS and request.transport is not None:
            request.transport.abort()
        return web.Response(headers={"X-Purged": str(len(found))})
