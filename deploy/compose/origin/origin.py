"""A small web application with every cache layer: its own memory, Redis, and headers for Varnish.

``GET /products/1`` answers from the first layer that has the product; ``X-Answered-By`` says which. Nothing in
here drops a stale entry when a product changes: that is the daemon's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psycopg
import redis.asyncio
from aiohttp import web
from psycopg.rows import dict_row

CHANNEL = "cache:invalidate"
SECONDS_IN_REDIS = 3600
SECONDS_OF_SILENCE = 5
"""Without a message for so long (the daemon sends one each second) nobody vouches for the memory."""


@dataclass
class Memory:
    """L1: what this process holds, and the number of the newest message that it has obeyed."""

    entries: dict[str, str] = field(default_factory=dict)
    epoch: str = ""
    sequence: int = 0
    heard_at: float = 0.0

    def get(self, key: str) -> str | None:
        """The entry, unless nobody vouches for it."""
        return self.entries.get(key) if time.monotonic() - self.heard_at < SECONDS_OF_SILENCE else None

    def obey(self, message: dict[str, object]) -> None:
        """Drop what the message names; drop everything if a message before it is missing."""
        epoch, sequence = str(message["epoch"]), int(str(message["seq"]))
        is_next = epoch == self.epoch and sequence == self.sequence + 1
        self.epoch, self.sequence, self.heard_at = epoch, sequence, time.monotonic()
        if message.get("clear") or not is_next:
            self.entries.clear()
            return
        for part in ("keys", "patterns"):
            names = message.get(part)
            for name in names if isinstance(names, list) else []:
                for key in [key for key in self.entries if fnmatch.fnmatchcase(key, name)]:
                    del self.entries[key]


async def listen(memory: Memory, url: str) -> None:
    """Obey the daemon's messages; whatever was missed while disconnected, the memory is emptied for."""
    while True:
        memory.entries.clear()
        with contextlib.suppress(redis.RedisError):
            async with redis.asyncio.Redis.from_url(url) as client, client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                async for message in subscription.listen():
                    if message["type"] == "message":
                        memory.obey(json.loads(message["data"]))
        await asyncio.sleep(1)


class Products:
    """The application: reads through memory and Redis to Postgres, and stores on the way back."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.memory = Memory()
        self._database_url = database_url
        self._redis_url = redis_url
        self._redis = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Listen while the application runs."""
        listening = asyncio.create_task(listen(self.memory, self._redis_url))
        yield
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        await self._redis.aclose()

    async def show(self, request: web.Request) -> web.Response:
        """``GET /products/{id}``."""
        product = request.match_info["id"]
        body, layer = await self._read(product)
        if body is None:
            raise web.HTTPNotFound
        headers = {
            "X-Answered-By": layer,
            "Cache-Control": "s-maxage=3600, max-age=0",  # shared caches may keep it: they are told when it changes
            "xkey": f"product-{product} products",
        }
        return web.Response(text=body, content_type="application/json", headers=headers)

    async def _read(self, product: str) -> tuple[str | None, str]:
        key = f"product:{product}"
        held = self.memory.get(key)
        if held is not None:
            return held, "memory"
        stored = await self._redis.get(key)
        if stored is not None:
            self.memory.entries[key] = str(stored)
            return str(stored), "redis"
        body = await self._query(product)
        if body is not None:
            await self._redis.set(key, body, ex=SECONDS_IN_REDIS)
            self.memory.entries[key] = body
        return body, "postgres"

    async def _query(self, product: str) -> str | None:
        async with await psycopg.AsyncConnection.connect(self._database_url, row_factory=dict_row) as connection:
            cursor = await connection.execute("SELECT * FROM products WHERE id = %s", [int(product)])
            row = await cursor.fetchone()
        return None if row is None else json.dumps(row, default=str) + "\n"


async def health(_request: web.Request) -> web.Response:
    """``GET /healthz``."""
    return web.Response(text="ok\n")


def application(database_url: str, redis_url: str) -> web.Application:
    """Make the web application."""
    products = Products(database_url, redis_url)
    app = web.Application()
    app.cleanup_ctx.append(products.running)
    app.add_routes([web.get(r"/products/{id:\d+}", products.show), web.get("/healthz", health)])
    return app


if __name__ == "__main__":
    web.run_app(application(os.environ["DATABASE_URL"], os.environ["REDIS_URL"]), port=8080)
