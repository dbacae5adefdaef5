"""What every CDN target guarantees beyond what every target does: found by file, driven by its own capabilities."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import inspect
import re
import socket
import traceback
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from invalidator import registry
from invalidator.errors import TargetError, TargetRejected, TargetThrottled, TargetUnavailable
from invalidator.model import Batch, Invalidation
from invalidator.ports import Pacing, Repeating, TagPurging
from invalidator.targets.cdn._tag_purge import TagPurge
from tests.support.cdn import SECRET, build_cdn, cdn_types, tags_batch
from tests.support.http import Received, Reply, ScriptedServer, accepted

HOSTILE = {
    "space": "two words",
    "header line": "a\r\nX-Evil: 1",
    "carriage return": "a\rX-Evil: 1",
    "line feed": "a\nX-Evil: 1",
    "second request": "a\r\n\r\nPURGE /evil HTTP/1.1",
    "tab": "tab\there",
    "nothing": "",
    "not ascii": "é",
    "too long": "a" * 10_000,
    "delete": "\x7f",
    "nul": "\x00",
}


@pytest.fixture(params=cdn_types())
def cdn_type(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=[name for name in cdn_types() if build_cdn(name, "http://host").capabilities.everything])
def cdn_type_with_everything(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def consenting(cdn_type_with_everything: str, http_server: ScriptedServer) -> AsyncIterator[TagPurge[Any]]:
    target = build_cdn(cdn_type_with_everything, http_server.url, purge_all_on_gap=True)
    yield target
    await target.close()


@pytest.fixture
async def edge(cdn_type: str, http_server: ScriptedServer) -> AsyncIterator[TagPurge[Any]]:
    target = build_cdn(cdn_type, http_server.url)
    yield target
    await target.close()


def short_tags(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def purged(server: ScriptedServer) -> list[str]:
    return [tag for request in server.requests for tag in request.tags()]


def all_tags(invalidation: Invalidation | None) -> set[str]:
    assert invalidation is not None
    return {tag.decode() for tag in invalidation.cdn | invalidation.cdn_soft}


def test_a_cdn_declares_what_the_rules_and_the_delivery_ask_for(cdn_type: str) -> None:
    edge = build_cdn(cdn_type, "http://127.0.0.1:1")
    assert isinstance(edge, TagPurging)
    assert isinstance(edge, Repeating)
    assert isinstance(edge, Pacing)
    assert edge.repeat_after_seconds == (2.0,)
    assert not edge.consents_to_purge_all
    assert edge.tag_grammar.allows(b"product-42")
    assert not edge.tag_grammar.allows(b"two words")


async def test_a_batch_without_tags_makes_no_call(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    await edge.apply(Batch(Invalidation(keys={b"k"}, tags={b"t"}, l1={b"*"})))
    assert http_server.requests == []


async def test_as_many_tags_as_a_call_takes_are_one_call(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    tags = short_tags(edge.capabilities.max_tags)
    applied = await edge.apply(tags_batch(*tags))
    assert len(http_server.requests) == 1
    assert sorted(purged(http_server)) == sorted(tags)
    assert applied.cdn_tags == len(tags)


async def test_one_tag_more_is_a_second_call(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    tags = short_tags(edge.capabilities.max_tags + 1)
    await edge.apply(tags_batch(*tags))
    assert len(http_server.requests) == 2
    assert sorted(purged(http_server)) == sorted(tags)


async def test_long_tags_are_chunked_by_their_bytes(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    length = edge.tag_grammar.max_bytes
    limit = edge.capabilities.max_bytes or length * 1000
    tags = [f"{number:0{length}}" for number in range(min(2 * limit // length, edge.capabilities.max_tags) + 1)]
    await edge.apply(tags_batch(*tags))
    assert sorted(purged(http_server)) == sorted(tags)
    assert len(http_server.requests) > 1
    for request in http_server.requests:
        assert sum(edge.capabilities.size(tag) for tag in request.tags()) <= limit


async def test_calls_at_the_same_time_are_as_many_as_declared(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    limit = edge.capabilities.concurrency
    release = asyncio.Event()
    http_server.script(*[Reply(**_fields(accepted()), hold=release)] * limit)
    tags = short_tags(edge.capabilities.max_tags * (limit + 2))
    applying = asyncio.create_task(edge.apply(tags_batch(*tags)))
    await http_server.received(limit)
    release.set()
    await applying
    assert http_server.most_at_once == limit
    assert sorted(purged(http_server)) == sorted(tags)


async def test_soft_tags_are_purged_softly_where_that_exists(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    await edge.apply(tags_batch("hard", "both", soft=("soft", "both")))
    calls = {tag: _shape(request) for request in http_server.requests for tag in request.tags()}
    assert sorted(purged(http_server)) == ["both", "hard", "soft"]
    assert calls["both"] == calls["hard"]
    assert (calls["soft"] != calls["hard"]) is edge.capabilities.soft


async def test_the_same_batch_again_is_purged_again(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    first = await edge.apply(tags_batch("product-42"))
    assert await edge.apply(tags_batch("product-42")) == first
    assert purged(http_server) == ["product-42", "product-42"]


async def test_throttled_with_seconds(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    http_server.script(Reply(429, {"Retry-After": "17"}))
    with pytest.raises(TargetThrottled) as caught:
        await edge.apply(tags_batch("product-42"))
    assert caught.value.retry_after_seconds == 17
    assert caught.value.result == "rate_limited"
    assert all_tags(caught.value.remaining) == {"product-42"}


async def test_throttled_until_a_date(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    http_server.script(Reply(429, {"Retry-After": email.utils.format_datetime(date, usegmt=True)}))
    with pytest.raises(TargetThrottled) as caught:
        await edge.apply(tags_batch("product-42"))
    assert 80 < caught.value.retry_after_seconds <= 90


@pytest.mark.parametrize("value", ["", "soon", "-5", "nan", "1e99", "99999999999999999999", "Mon, 99 Foo 2026"])
async def test_a_retry_after_that_makes_no_sense_is_a_sane_wait(
    edge: TagPurge[Any], http_server: ScriptedServer, value: str
) -> None:
    http_server.script(Reply(429, {"Retry-After": value}))
    with pytest.raises(TargetThrottled) as caught:
        await edge.apply(tags_batch("product-42"))
    assert 0 < caught.value.retry_after_seconds <= 3600


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_leaves_everything_to_do(
    edge: TagPurge[Any], http_server: ScriptedServer, status: int
) -> None:
    http_server.otherwise = Reply(status, body=b"<html>oops</html>")
    with pytest.raises(TargetUnavailable) as caught:
        await edge.apply(tags_batch("product-42", soft=("category-7",)))
    assert caught.value.result == "http_5xx"
    assert all_tags(caught.value.remaining) == {"product-42", "category-7"}


async def test_no_answer_in_time_is_a_timeout(cdn_type: str, http_server: ScriptedServer) -> None:
    edge = build_cdn(cdn_type, http_server.url, timeout_seconds=0.1)
    http_server.script(Reply(hold=asyncio.Event()))
    with pytest.raises(TargetUnavailable, match=r"no answer within 0\.1 s") as caught:
        await edge.apply(tags_batch("product-42"))
    assert caught.value.result == "timeout"
    await edge.close()


@pytest.mark.parametrize("cut_after", [-1, 0, 3])
async def test_a_connection_that_is_cut_leaves_everything_to_do(
    edge: TagPurge[Any], http_server: ScriptedServer, cut_after: int
) -> None:
    http_server.script(Reply(**_fields(accepted()), cut_after=cut_after))
    with pytest.raises(TargetUnavailable) as caught:
        await edge.apply(tags_batch("product-42"))
    assert caught.value.result == "connection"
    assert all_tags(caught.value.remaining) == {"product-42"}
    await edge.apply(tags_batch("product-42"))


async def test_nobody_listens(cdn_type: str) -> None:
    with socket.socket() as taken:  # nobody else can listen there meanwhile
        taken.bind(("127.0.0.1", 0))
        edge = build_cdn(cdn_type, f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TargetUnavailable, match="cannot connect"):
            await edge.apply(tags_batch("product-42"))
        await edge.close()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_only_the_operator_can_mend_is_rejected(
    edge: TagPurge[Any], http_server: ScriptedServer, status: int
) -> None:
    http_server.script(Reply(status))
    with pytest.raises(TargetRejected, match=f"answered {status}: check") as caught:
        await edge.apply(tags_batch("product-42"))
    assert all_tags(caught.value.remaining) == {"product-42"}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(edge: TagPurge[Any], http_server: ScriptedServer, status: int) -> None:
    http_server.script(Reply(status, {"Location": f"{http_server.url}/elsewhere"}))
    with pytest.raises(TargetRejected, match="redirects are not followed"):
        await edge.apply(tags_batch("product-42"))
    assert len(http_server.requests) == 1


async def test_a_call_that_is_too_large_is_halved_until_it_fits(
    edge: TagPurge[Any], http_server: ScriptedServer
) -> None:
    fits = max(1, edge.capabilities.max_tags // 5)
    http_server.otherwise = lambda request: Reply(413) if len(request.tags()) > fits else accepted()
    tags = short_tags(edge.capabilities.max_tags)
    applied = await edge.apply(tags_batch(*tags))
    taken = [request.tags() for request in http_server.requests if len(request.tags()) <= fits]
    assert sorted(tag for call in taken for tag in call) == sorted(tags)
    assert applied.cdn_tags == len(tags)


async def test_what_was_purged_before_a_failure_does_not_remain(
    edge: TagPurge[Any], http_server: ScriptedServer
) -> None:
    limit, fail = edge.capabilities.concurrency, asyncio.Event()
    held = [Reply(hold=asyncio.Event())] * (limit - 1)
    http_server.script(accepted(), Reply(500, hold=fail), *held)
    tags = short_tags(edge.capabilities.max_tags * (limit + 1))
    applying = asyncio.create_task(edge.apply(tags_batch(*tags)))
    # One more request than there are at a time: the first has been answered.
    await http_server.received(limit + 1)
    fail.set()
    with pytest.raises(TargetUnavailable) as caught:
        await applying
    assert all_tags(caught.value.remaining) == set(tags) - set(http_server.requests[0].tags())


async def test_cancelling_leaves_no_connection_behind(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    http_server.script(Reply(hold=asyncio.Event()))
    applying = asyncio.create_task(edge.apply(tags_batch("product-42")))
    await http_server.received(1)
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    await http_server.idle()
    await edge.apply(tags_batch("product-42"))


@pytest.mark.parametrize("tag", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_tag_never_reaches_the_wire(edge: TagPurge[Any], http_server: ScriptedServer, tag: str) -> None:
    with pytest.raises(TargetRejected, match="does not take 1 of the tags") as caught:
        await edge.apply(tags_batch("product-42", tag))
    assert purged(http_server) == ["product-42"]
    assert b"evil" not in b"".join(request.raw_head for request in http_server.requests).lower()
    assert all_tags(caught.value.remaining) == {tag if edge.capabilities.case_sensitive else tag.lower()}
    assert tag not in str(caught.value) or not tag


async def test_bytes_that_are_no_text_are_refused_like_any_other_tag(
    edge: TagPurge[Any], http_server: ScriptedServer
) -> None:
    with pytest.raises(TargetRejected) as caught:
        await edge.apply(Batch(Invalidation(cdn={b"\xff\xfe", b"product-42"})))
    assert caught.value.remaining == Invalidation(cdn={b"\xff\xfe"})
    assert purged(http_server) == ["product-42"]


async def test_a_tag_that_cannot_be_purged_widens_with_consent(
    consenting: TagPurge[Any], http_server: ScriptedServer, quiet_logs: list[MutableMapping[str, Any]]
) -> None:
    applied = await consenting.apply(tags_batch("product-42", "two words"))
    assert applied.widened == 1
    tagged, everything = http_server.requests
    assert tagged.tags() == ["product-42"]
    assert b"two" not in everything.raw_head + everything.body
    assert [entry["event"] for entry in quiet_logs] == ["tags.refused"]
    assert "two words" not in str(quiet_logs)


async def test_everything_is_purged_by_one_call_with_consent(
    consenting: TagPurge[Any], http_server: ScriptedServer
) -> None:
    await consenting.apply(tags_batch("product-42", everything=True))
    (request,) = http_server.requests
    assert b"product-42" not in request.raw_head + request.body


async def test_a_purge_of_everything_that_fails_remains(consenting: TagPurge[Any], http_server: ScriptedServer) -> None:
    for status in (500, 400, 413, 401, 429):
        http_server.script(Reply(status))
        with pytest.raises(TargetError) as caught:
            await consenting.apply(tags_batch("product-42", everything=True))
        assert caught.value.remaining == Invalidation(cdn_all=True)


async def test_everything_is_not_purged_without_consent(edge: TagPurge[Any], http_server: ScriptedServer) -> None:
    with pytest.raises(TargetRejected, match="purge_all_on_gap") as caught:
        await edge.apply(tags_batch("product-42", everything=True))
    assert [request.tags() for request in http_server.requests] == [["product-42"]]
    assert caught.value.remaining == Invalidation(cdn_all=True)


async def test_secrets_and_row_values_are_in_no_error_and_no_repr(
    cdn_type: str, http_server: ScriptedServer, quiet_logs: list[MutableMapping[str, Any]]
) -> None:
    edge = build_cdn(cdn_type, http_server.url, timeout_seconds=0.2)
    http_server.otherwise = _echo(Reply(400))
    http_server.script(
        *[Reply(status) for status in (301, 401, 403, 404, 409, 413, 429, 500, 503)],
        Reply(200, body=b"what?"),
        Reply(cut_after=-1),
        Reply(hold=asyncio.Event()),
    )
    seen = [repr(edge), repr(edge.settings), str(edge.settings), repr(edge.purge(["t"], soft=False))]
    for _ in range(13):
        try:
            await edge.apply(tags_batch("row-value-4711"))
        except TargetError as error:
            seen += [repr(error), "".join(traceback.format_exception(error))]
    assert len(seen) > 10
    assert SECRET not in f"{seen} {quiet_logs}"
    assert "row-value-4711" not in "".join(
        line for text in seen for line in text.splitlines() if "tags_batch" not in line
    )
    await edge.close()


def test_a_url_with_more_than_scheme_host_and_path_is_refused(cdn_type: str) -> None:
    for url in ("ftp://x", "https://user:pw@host", "https://host?x=1", "https://host/#f", "https://h\r\nX: 1", "host"):
        with pytest.raises(ValueError, match="must be like https://host"):
            build_cdn(cdn_type, url)


def test_a_cdn_knows_no_other_cdn(cdn_type: str) -> None:
    module = registry.load("targets", cdn_type)
    imported = re.findall(r"^\s*(?:from|import) invalidator\.targets\.(\S+)", inspect.getsource(module), re.MULTILINE)
    assert imported
    assert [name for name in imported if not name.startswith("cdn._")] == []


def _fields(reply: Reply) -> dict[str, Any]:
    return {"status": reply.status, "headers": reply.headers, "body": reply.body}


def _shape(request: Received) -> tuple[str, frozenset[str]]:
    """What tells a soft call from a hard one: the path or the names of the headers."""
    return request.path, frozenset(request.headers)


def _echo(reply: Reply) -> Any:
    """A provider that repeats in its error what it was sent."""
    return lambda request: Reply(reply.status, {"X-Echo": "row-value-4711"}, request.raw_head + request.body)
