"""The stand-in edge speaks the same protocol as Varnish with the shipped VCL: the same tests hold for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web

from invalidator.demo.edge import StandInEdge
from invalidator.demo.servers import ServerMissing
from invalidator.demo.servers.varnish import VarnishServer, find_varnish
from invalidator.demo.stage import resource
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import missing


@dataclass
class Origin:
    port: int = 0
    version: int = 1
    visits: int = 0

    async def serve(self, request: web.Request) -> web.Response:
        self.visits += 1
        control = "private" if request.path.startswith("/users") else "public, s-maxage=600"
        tag = request.path.strip("/").replace("/", "-")
        headers = {"Cache-Control": control, "xkey": f"{tag} everything-{tag[:1]}"}
        return web.Response(text=f"{request.path} {self.version}", headers=headers)


@dataclass
class Edge:
    url: str
    origin: Origin
    session: aiohttp.ClientSession

    async def get(self, path: str) -> str:
        async with self.session.get(self.url + path) as answer:
            return f"{answer.headers['X-Cache']} {await answer.text()}"

    async def purge(self, **headers: str) -> tuple[int, str | None]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request("PURGE", self.url + "/", headers=named) as answer:
            return answer.status, answer.headers.get("X-Purged")


@asynccontextmanager
async def _origin() -> AsyncIterator[Origin]:
    origin = Origin()
    application = web.Application()
    application.router.add_get("/{path:.*}", origin.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin.port = runner.addresses[0][1]
    try:
        yield origin
    finally:
        await runner.cleanup()


@pytest.fixture(params=["stand-in", "varnish"])
async def edge(request: pytest.FixtureRequest) -> AsyncIterator[Edge]:
    async with _origin() as origin, aiohttp.ClientSession() as session:
        if request.param == "varnish":
            try:
                find_varnish()
            except ServerMissing as error:
                missing(str(error))
            with VarnishServer(origin.port, resource("deploy/varnish")) as varnish:
                yield Edge(varnish.url, origin, session)
        else:
            stand_in = StandInEdge(f"http://127.0.0.1:{origin.port}", lambda _: None)
            await stand_in.start()
            yield Edge(stand_in.url, origin, session)
            await stand_in.close()


async def test_a_purge_removes_what_carries_one_of_the_tags_and_counts_it(edge: Edge) -> None:
    for path in ("/a/1", "/a/2", "/b/1"):
        await edge.get(path)
    edge.origin.version = 2
    assert await edge.get("/a/1") == "HIT /a/1 1"

    assert await edge.purge(xkey_purge="a-1 b-1 unknown") == (200, "2")

    assert await edge.get("/a/1") == "MISS /a/1 2"
    assert await edge.get("/a/2") == "HIT /a/2 1"
    assert await edge.get("/b/1") == "MISS /b/1 2"


async def test_a_soft_purge_shows_the_old_page_until_the_new_one_is_there(edge: Edge) -> None:
    await edge.get("/a/1")
    edge.origin.version = 2

    assert await edge.purge(xkey_softpurge="a-1") == (200, "1")

    assert (await edge.get("/a/1")).endswith("/a/1 1")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (await edge.get("/a/1")).endswith("/a/1 2"):  # noqa: ASYNC110  (another server's state)
            await asyncio.sleep(0.01)


async def test_everything_can_be_purged(edge: Edge) -> None:
    await edge.get("/a/1")
    edge.origin.version = 2
    status, count = await edge.purge(xkey_purge_all="1")
    assert (status, count is not None) == (200, True)
    assert await edge.get("/a/1") == "MISS /a/1 2"


async def test_a_private_page_is_not_kept(edge: Edge) -> None:
    await edge.get("/users/1")
    edge.origin.version = 2
    assert (await edge.get("/users/1")).endswith("/users/1 2")


async def test_a_purge_without_tags_is_refused(edge: Edge) -> None:
    assert await edge.purge() == (400, None)


async def test_the_edge_itself_says_that_it_is_alive(edge: Edge) -> None:
    async with edge.session.get(edge.url + "/.well-known/invalidator") as answer:
        assert answer.status == 200
    assert edge.origin.visits == 0
