"""A stand-in for Varnish with vmod xkey, for machines without it: speaks the PURGE protocol of deploy/varnish.

It holds responses in memory under their tags, removes them or marks them stale when told, and says how many it
found. It is no HTTP cache for any other purpose.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

_CACHED_FOREVER = "s-maxage"
_ALIVE = "/.well-known/invalidator"


@dataclass(slots=True)
class _Stored:
    status: int
    body: bytes
    content_type: str
    tags: frozenset[str]
    is_stale: bool = False


class StandInEdge:
    """A cache by tag in front of an origin.

    Args:
        origin: its base URL.
        on_purge: told the tags of each purge.
        ignore_purges: answer as if purged, and keep everything: an edge that is broken, to see what that looks like.
    """

    def __init__(self, origin: str, on_purge: Callable[[list[str]], None], *, ignore_purges: bool = False) -> None:
        self._origin = origin
        self._on_purge = on_purge
        self._ignore_purges = ignore_purges
        self._stored: dict[str, _Stored] = {}
        self._purges = 0
        self._refreshes: set[asyncio.Task[_Stored]] = set()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where visitors and the daemon reach it."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._session = aiohttp.ClientSession()
        application = web.Application()
        application.router.add_get(_ALIVE, self._alive)
        application.router.add_get("/{path:.*}", self._get)
        application.router.add_route("PURGE", "/{path:.*}", self._purge)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="Alive\n")

    async def _get(self, request: web.Request) -> web.Response:
        path = request.path
        stored = self._stored.get(path)
        verdict = "HIT"
        if stored is None:
            verdict, stored = "MISS", await self._fetch(path)
        elif stored.is_stale:
            self._refresh(path)
        headers = {"X-Cache": verdict, "Content-Type": stored.content_type}
        return web.Response(status=stored.status, body=stored.body, headers=headers)

    def _refresh(self, path: str) -> None:
        """Serve stale once more while a new response is fetched, as Varnish does within the grace."""
        task = asyncio.create_task(self._fetch(path))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _fetch(self, path: str) -> _Stored:
        if self._session is None:
            raise RuntimeError
        purges = self._purges
        async with self._session.get(self._origin + path) as answer:
            tags = frozenset(answer.headers.get("xkey", "").split())
            stored = _Stored(answer.status, await answer.read(), answer.content_type, tags)
            is_shared = _CACHED_FOREVER in answer.headers.get("Cache-Control", "")
        if is_shared and purges == self._purges:  # a response that was under way during a purge may be stale
            self._stored[path] = stored
        return stored

    async def _purge(self, request: web.Request) -> web.Response:
        headers = request.headers
        tags = (headers.get("xkey-purge") or headers.get("xkey-softpurge") or "").split()
        everything = "xkey-purge-all" in headers
        if not tags and not everything:
            return web.Response(status=400, text="No tags\n")
        self._on_purge(["everything"] if everything else tags)
        wanted = set(tags)
        hit = [path for path, stored in self._stored.items() if everything or not wanted.isdisjoint(stored.tags)]
        if not self._ignore_purges:
            self._drop(hit, soft="xkey-purge" not in headers and not everything)
        return web.Response(text="Purged\n", headers={"X-Purged": str(len(hit))})

    def _drop(self, paths: list[str], *, soft: bool) -> None:
        self._purges += 1
        for path in paths:
            if soft:
                self._stored[path].is_stale = True
            else:
                del self._stored[path]
