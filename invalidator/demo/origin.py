"""The shop's server: L1 in front of Redis in front of Postgres, as most applications have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from invalidator.demo import pages
from invalidator.demo.pages import Page, Rendered

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from invalidator.demo.l1 import L1Cache
    from invalidator.demo.pages import Connection

_LIFETIME_SECONDS = 3600
"""So long would a page be stale if nobody dropped it."""


class Origin:
    """Serves pages from the nearest cache that has them (cache-aside).

    Args:
        connection: to the database.
        redis: the shared cache (L2): values, and tag sets ``tag:NAME`` of their keys.
        l1: this process's own cache.
    """

    def __init__(self, connection: Connection, redis: Redis, l1: L1Cache) -> None:
        self._connection = connection
        self._redis = redis
        self.l1 = l1
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def page(self, page: Page) -> Rendered:
        """The page from L1, from Redis, or from the database, filled into what missed it."""
        generation = self.l1.generation
        found = self.l1.get(page.key)
        if found is not None:
            return found
        stored = await self._redis.get(page.key)
        if stored is not None:
            found = Rendered.decode(stored)
        else:
            found = await pages.render(self._connection, page)
            await self._store(page.key, found)
        self.l1.put(page.key, found, generation)
        return found

    async def start(self) -> None:
        """Listen on a free loopback port."""
        application = web.Application()
        application.router.add_get("/{kind}/{name}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _store(self, key: str, value: Rendered) -> None:
        async with self._redis.pipeline(transaction=False) as commands:
            commands.set(key, value.encode(), ex=_LIFETIME_SECONDS)
            for tag in value.tags:
                commands.sadd(f"tag:{tag}", key)
            await commands.execute()

    async def _serve(self, request: web.Request) -> web.Response:
        page = Page(request.match_info["kind"], request.match_info["name"])
        rendered = await self.page(page)
        control = "private" if page.is_private else f"public, s-maxage={_LIFETIME_SECONDS}"
        headers = {"Cache-Control": control, "Content-Type": "application/json"}
        if rendered.cdn_tags:
            headers["xkey"] = " ".join(rendered.cdn_tags)
        return web.Response(status=rendered.status, body=rendered.body.encode(), headers=headers)
