"""The varnish target and the VCL that we ship, against a real varnishd with vmod xkey."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator

import pytest

from invalidator.demo.servers.varnish import VarnishServer
from invalidator.errors import TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation
from invalidator.net.http import Answer, HttpClient, Request
from invalidator.targets.cdn import varnish as varnish_module
from tests.support.cdn import tags_batch
from tests.support.processes import DEADLINE_SECONDS
from tests.support.varnish import Origin, start_varnish


def make_target(url: str, **options: object) -> varnish_module.Varnish:
    settings = varnish_module.Settings.model_validate({"type": "varnish", "url": url, **options})
    return varnish_module.build("edge", settings)


class Site:
    """A few pages of one test: paths and tags that no other test has."""

    def __init__(self, origin: Origin, url: str) -> None:
        self._origin = origin
        self._url = url
        self._id = uuid.uuid4().hex
        self.client = HttpClient(timeout_seconds=DEADLINE_SECONDS)

    def path(self, name: str) -> str:
        return f"/{self._id}/{name}"

    def tag(self, name: str) -> str:
        return f"{name}-{self._id}"

    def put(self, name: str, body: str, *tags: str) -> None:
        self._origin.put(self.path(name), body, " ".join(map(self.tag, tags)))

    async def get(self, name: str) -> tuple[str, str]:
        """The body, and HIT or MISS."""
        answer = await self.answer(name)
        return answer.body.decode(), answer.headers["X-Cache"]

    async def answer(self, name: str) -> Answer:
        return await self.client.send(Request("GET", self._url + self.path(name)))


@pytest.fixture
async def site(origin: Origin, varnish: VarnishServer) -> AsyncIterator[Site]:
    site = Site(origin, varnish.url)
    yield site
    await site.client.close()


@pytest.fixture
async def edge(varnish: VarnishServer) -> AsyncIterator[varnish_module.Varnish]:
    target = make_target(varnish.url, purge_all_on_gap=True)
    yield target
    await target.close()


async def test_a_purged_tag_makes_its_pages_miss_and_leaves_the_others(
    site: Site, edge: varnish_module.Varnish
) -> None:
    site.put("a", "a1", "product-1", "category")
    site.put("b", "b1", "product-2", "category")
    assert [await site.get("a"), await site.get("b")] == [("a1", "MISS"), ("b1", "MISS")]
    site.put("a", "a2", "product-1", "category")
    assert [await site.get("a"), await site.get("b")] == [("a1", "HIT"), ("b1", "HIT")]

    assert await edge.apply(tags_batch(site.tag("product-1"))) == Applied(cdn_tags=1, removed=1)

    assert [await site.get("a"), await site.get("b")] == [("a2", "MISS"), ("b1", "HIT")]


async def test_several_tags_go_in_one_call_and_an_object_counts_for_each_of_them(
    site: Site, edge: varnish_module.Varnish
) -> None:
    site.put("a", "a1", "product-1", "category")
    site.put("b", "b1", "product-2", "category")
    await site.get("a")
    await site.get("b")
    applied = await edge.apply(tags_batch(*map(site.tag, ("category", "product-1", "never-seen"))))
    assert applied == Applied(cdn_tags=3, removed=3)  # xkey counts a page again for its second tag
    assert [await site.get("a"), await site.get("b")] == [("a1", "MISS"), ("b1", "MISS")]


async def test_a_soft_purge_serves_the_old_page_once_while_the_new_one_is_fetched(
    site: Site, edge: varnish_module.Varnish
) -> None:
    site.put("a", "a1", "product-1")
    await site.get("a")
    site.put("a", "a2", "product-1")
    assert (await edge.apply(tags_batch(soft=(site.tag("product-1"),)))).removed == 1
    assert await site.get("a") == ("a1", "HIT")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await site.get("a"))[0] != "a2":
            pass


async def test_a_page_rendered_during_the_purge_stays_stale_until_the_repeat(
    origin: Origin, site: Site, edge: varnish_module.Varnish
) -> None:
    site.put("a", "a1", "product-1")
    page = origin.pages[site.path("a")]
    page.release.clear()
    fetching = asyncio.create_task(site.get("a"))
    await asyncio.to_thread(page.asked.acquire)
    site.put("a", "a2", "product-1")

    assert (await edge.apply(tags_batch(site.tag("product-1")))).removed == 0
    page.release.set()
    await fetching
    assert await site.get("a") == ("a1", "HIT")

    assert edge.repeat_after_seconds == (2.0,)
    assert (await edge.apply(tags_batch(site.tag("product-1")))).removed == 1
    assert await site.get("a") == ("a2", "MISS")


async def test_a_hostile_tag_is_refused_and_purges_nothing_else(site: Site, varnish: VarnishServer) -> None:
    edge = make_target(varnish.url)
    site.put("a", "a1", "product-1")
    site.put("b", "b1", "product-2")
    await site.get("a")
    await site.get("b")
    hostile = f"x {site.tag('product-1')}\r\nxkey-purge-all: 1"
    with pytest.raises(TargetRejected) as caught:
        await edge.apply(tags_batch(hostile, site.tag("product-2")))
    assert caught.value.remaining == Invalidation(cdn={hostile.encode()})
    assert [await site.get("a"), await site.get("b")] == [("a1", "HIT"), ("b1", "MISS")]
    await edge.close()


async def test_every_character_that_the_grammar_allows_is_one_tag_to_xkey(
    origin: Origin, site: Site, edge: varnish_module.Varnish
) -> None:
    tag = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != ",") + site.tag("")
    assert edge.tag_grammar.allows(tag.encode())
    origin.put(site.path("a"), "a1", tag)
    site.put("b", "b1", "product-1")
    await site.get("a")
    await site.get("b")
    assert await edge.apply(tags_batch(tag)) == Applied(cdn_tags=1, removed=1)
    assert [await site.get("a"), await site.get("b")] == [("a1", "MISS"), ("b1", "HIT")]


async def test_thousands_of_tags_are_taken_in_calls_that_varnish_accepts(
    site: Site, edge: varnish_module.Varnish
) -> None:
    site.put("a", "a1", "last")
    await site.get("a")
    tags = [site.tag(f"product-{number:06}") for number in range(3000)]
    assert await edge.apply(tags_batch(*tags, site.tag("last"))) == Applied(cdn_tags=3001, removed=1)


async def test_a_header_that_is_too_long_for_this_varnish_is_halved(
    site: Site, edge: varnish_module.Varnish, monkeypatch: pytest.MonkeyPatch
) -> None:
    generous = dataclasses.replace(edge.capabilities, max_bytes=12_000, max_tags=1000)
    monkeypatch.setattr(varnish_module.Varnish, "capabilities", generous)
    site.put("a", "a1", "product-000249")
    await site.get("a")
    tags = [site.tag(f"product-{number:06}") for number in range(250)]
    assert await edge.apply(tags_batch(*tags)) == Applied(cdn_tags=250, removed=1)


async def test_everything_goes_with_consent(site: Site, edge: varnish_module.Varnish) -> None:
    site.put("a", "a1", "product-1")
    await site.get("a")
    await edge.apply(tags_batch(everything=True))
    assert await site.get("a") == ("a1", "MISS")


async def test_the_client_never_sees_the_tags(site: Site) -> None:
    site.put("a", "a1", "product-1")
    for _ in range(2):
        assert "xkey" not in (await site.answer("a")).headers


async def test_only_the_right_secret_may_purge(origin: Origin, guarded_varnish: VarnishServer) -> None:
    site = Site(origin, guarded_varnish.url)
    site.put("a", "a1", "product-1")
    await site.get("a")
    for options in ({}, {"secret": "wrong"}, {"secret": "open-sesame", "secret_header": "X-Other"}):
        edge = make_target(guarded_varnish.url, **options)
        with pytest.raises(TargetRejected, match="answered 401: check the credentials") as caught:
            await edge.apply(tags_batch(site.tag("product-1")))
        assert caught.value.remaining == Invalidation(cdn={site.tag("product-1").encode()})
        await edge.close()
    assert await site.get("a") == ("a1", "HIT")
    edge = make_target(guarded_varnish.url, secret="open-sesame\n")  # noqa: S106  (as read from a file)
    assert (await edge.apply(tags_batch(site.tag("product-1")))).removed == 1
    await edge.close()
    await site.client.close()


async def test_a_purge_that_came_through_a_proxy_is_refused(site: Site, varnish: VarnishServer) -> None:
    site.put("a", "a1", "product-1")
    await site.get("a")
    headers = {"X-Forwarded-For": "203.0.113.7", "xkey-purge": site.tag("product-1")}
    answer = await site.client.send(Request("PURGE", f"{varnish.url}/", headers))
    assert answer.status == 403
    assert await site.get("a") == ("a1", "HIT")


async def test_a_purge_without_tags_is_refused(site: Site, varnish: VarnishServer) -> None:
    site.put("a", "a1", "product-1")
    await site.get("a")
    answer = await site.client.send(Request("PURGE", varnish.url + site.path("a")))
    assert answer.status == 400
    assert await site.get("a") == ("a1", "HIT")


async def test_a_server_that_is_no_varnish_of_ours_is_not_believed(origin: Origin, site: Site) -> None:
    site.put("a", "a1", "product-1")
    edge = make_target(f"http://127.0.0.1:{origin.port}")
    with pytest.raises(TargetUnavailable, match="answered 501"):
        await edge.apply(tags_batch("product-1"))
    await edge.close()


async def test_a_heartbeat_tells_a_living_varnish_from_a_dead_one(origin: Origin, varnish: VarnishServer) -> None:
    heartbeat = Batch(Invalidation(), heartbeat=1.0)
    edge = make_target(varnish.url)
    assert await edge.apply(heartbeat) == Applied()
    await edge.close()

    server = start_varnish(origin)
    edge = make_target(server.url)
    await edge.apply(heartbeat)
    server.close()
    with pytest.raises(TargetUnavailable):
        await edge.apply(heartbeat)
    await edge.close()


async def test_an_empty_secret_is_no_secret(origin: Origin) -> None:
    server = start_varnish(origin, secret="")
    edge = make_target(server.url)
    assert await edge.apply(tags_batch("product-1")) == Applied(cdn_tags=1)
    await edge.close()
    server.close()


async def test_the_secret_of_another_varnish_is_not_taken_over(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVALIDATOR_PURGE_SECRET", "of another one")
    server = start_varnish(origin)
    edge = make_target(server.url)
    assert await edge.apply(tags_batch("product-1")) == Applied(cdn_tags=1)
    await edge.close()
    server.close()
