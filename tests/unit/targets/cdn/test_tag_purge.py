"""The shared base on a provider as plain as HTTP allows: only what no contract can ask of every CDN."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, MutableMapping
from typing import Any, ClassVar, Literal

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from invalidator.errors import ConfigError, TargetError, TargetRejected, TargetThrottled, TargetUnavailable
from invalidator.model import Applied, Invalidation
from invalidator.net.http import Request
from invalidator.ports import TagGrammar
from invalidator.targets.cdn._capabilities import Capabilities, Rate
from invalidator.targets.cdn._settings import CdnOptions, HeaderSecret
from invalidator.targets.cdn._tag_purge import MAX_REFUSED_TAGS, TagPurge
from tests.support.cdn import tags_batch
from tests.support.clock import ManualClock
from tests.support.http import Received, Reply, ScriptedServer, accepted
from tests.support.processes import DEADLINE_SECONDS


class Settings(CdnOptions):
    type: Literal["plain"] = "plain"
    url: str


class Plain(TagPurge[Settings]):
    tag_grammar: ClassVar = TagGrammar("Plain", re.compile(rb"[a-z0-9-]+"), 64, "lower case")
    capabilities: ClassVar = Capabilities(max_tags=16, rate=Rate(per_second=1, burst=2), everything=True)

    def purge(self, tags: list[str], *, soft: bool) -> Request:
        return Request("POST", f"{self.settings.url}/purge", body=json.dumps({"tags": list(tags)}).encode())

    def purge_everything(self) -> Request:
        return Request("POST", f"{self.settings.url}/everything")


class PlainPerTag(Plain):
    capabilities: ClassVar = Capabilities(
        max_tags=16, rate=Rate(per_second=8, burst=16), charged_per="tag", concurrency=1
    )


@pytest.fixture
async def edge(http_server: ScriptedServer) -> AsyncIterator[Plain]:
    target = Plain("edge", Settings(url=http_server.url, rate_per_second=1e6, rate_burst=1e6))
    yield target
    await target.close()


def refusing(*poison: str) -> Any:
    def reply(request: Received) -> Reply:
        return Reply(400) if set(poison) & set(request.tags()) else accepted()

    return reply


TAGS = [f"tag-{number:03}" for number in range(40)]


async def test_one_poisoned_tag_is_found_and_all_others_are_purged(edge: Plain, http_server: ScriptedServer) -> None:
    http_server.otherwise = refusing("tag-021")
    with pytest.raises(TargetRejected, match="does not take 1 of the tags") as caught:
        await edge.apply(tags_batch(*TAGS))
    assert caught.value.remaining == Invalidation(cdn={b"tag-021"})
    taken = [tag for request in http_server.requests if "tag-021" not in request.tags() for tag in request.tags()]
    assert sorted(taken) == [tag for tag in TAGS if tag != "tag-021"]
    # 16 tags are halved four times: the poisoned half each time, and the other one.
    assert len(http_server.requests) <= 3 + 2 * 4
    assert "tag-021" not in str(caught.value)


async def test_the_poisoned_tag_goes_with_everything_where_that_is_consented_to(
    http_server: ScriptedServer, quiet_logs: list[MutableMapping[str, Any]]
) -> None:
    edge = Plain("edge", Settings(url=http_server.url, rate_per_second=1e6, purge_all_on_gap=True))
    http_server.otherwise = refusing("tag-000", "tag-039")
    assert await edge.apply(tags_batch(*TAGS)) == Applied(cdn_tags=38, widened=2)
    assert http_server.requests[-1].path == "/everything"
    assert [len(entry["sha256"]) for entry in quiet_logs] == [2]
    assert "tag-0" not in str(quiet_logs)
    await edge.close()


async def test_a_provider_that_refuses_every_tag_is_not_asked_for_each(
    edge: Plain, http_server: ScriptedServer
) -> None:
    http_server.otherwise = Reply(400)
    with pytest.raises(TargetRejected, match="it is the request that is wrong") as caught:
        await edge.apply(tags_batch(*TAGS))
    assert caught.value.remaining == Invalidation(cdn={tag.encode() for tag in TAGS})
    assert len(http_server.requests) <= 3 + 2 * 16 + MAX_REFUSED_TAGS


async def test_with_consent_a_provider_that_refuses_every_tag_gets_one_call_for_everything(
    http_server: ScriptedServer, quiet_logs: list[MutableMapping[str, Any]]
) -> None:
    edge = Plain("edge", Settings(url=http_server.url, rate_per_second=1e6, purge_all_on_gap=True))
    http_server.otherwise = lambda request: accepted() if request.path == "/everything" else Reply(400)
    await edge.apply(tags_batch(*(f"t{number}" for number in range(16 * 100))))
    assert [request.path for request in http_server.requests].count("/everything") == 1
    assert http_server.requests[-1].path == "/everything"
    assert len(http_server.requests) <= 3 + 2 * 16 + MAX_REFUSED_TAGS
    await edge.close()


async def test_a_single_tag_that_is_too_large_is_refused_instead_of_being_halved_for_ever(
    edge: Plain, http_server: ScriptedServer
) -> None:
    http_server.otherwise = Reply(413)
    with pytest.raises(TargetRejected):
        await edge.apply(tags_batch("tag-000"))
    assert len(http_server.requests) == 1


async def test_calls_leave_at_the_rate_and_not_faster(http_server: ScriptedServer) -> None:
    clock = ManualClock()
    edge = Plain("edge", Settings(url=http_server.url), clock=clock)
    applying = asyncio.create_task(edge.apply(tags_batch(*(f"t{number}" for number in range(16 * 6)))))
    await http_server.received(2)
    for sent in range(2, 6):
        await clock_has_sleepers(clock)
        assert len(http_server.requests) == sent
        await clock.advance(1)
        await http_server.received(sent + 1)
    assert (await applying).cdn_tags == 96
    # Two may wait at a time, so some of the seconds are waited by both.
    assert edge.rate_limit_wait_seconds >= 4
    await edge.close()


async def test_ten_thousand_tags_take_as_long_as_their_rate_says(http_server: ScriptedServer) -> None:
    clock = ManualClock()
    edge = PlainPerTag("edge", Settings(url=http_server.url), clock=clock)
    started = clock.monotonic()
    applying = asyncio.create_task(edge.apply(tags_batch(*(f"t{number}" for number in range(10_000)))))
    while not applying.done():
        if clock.sleepers:
            await clock.advance(1)
        else:
            await asyncio.wait([applying], timeout=0.001)
    assert (await applying).cdn_tags == 10_000
    assert clock.monotonic() - started == pytest.approx((10_000 - 16) / 8, abs=2)
    await edge.close()


async def test_throttling_stops_the_calls_that_wait_for_their_turn(http_server: ScriptedServer) -> None:
    clock = ManualClock()
    edge = Plain("edge", Settings(url=http_server.url, rate_burst=1), clock=clock)
    release = asyncio.Event()
    http_server.script(Reply(429, {"Retry-After": "60"}, hold=release))
    applying = asyncio.create_task(edge.apply(tags_batch(*TAGS)))
    await http_server.received(1)
    await clock_has_sleepers(clock)
    release.set()
    with pytest.raises(TargetThrottled) as caught:
        await applying
    assert caught.value.remaining == Invalidation(cdn={tag.encode() for tag in TAGS})
    assert len(http_server.requests) == 1
    await edge.close()


async def test_of_several_failures_the_one_that_asks_for_most_is_reported(http_server: ScriptedServer) -> None:
    failures: list[TargetError] = [
        TargetUnavailable("later"),
        TargetThrottled("slower", retry_after_seconds=9),
        TargetThrottled("slow", retry_after_seconds=3),
    ]

    class Failing(Plain):
        capabilities: ClassVar = Capabilities(max_tags=1, rate=Rate(1, 1), concurrency=4)

        def purge(self, tags: list[str], *, soft: bool) -> Request:
            raise failures[int(tags[0])]

    edge = Failing("edge", Settings(url=http_server.url))
    with pytest.raises(TargetThrottled, match="slower") as caught:
        await edge.apply(tags_batch("0", "1", "2"))
    assert caught.value.remaining == Invalidation(cdn={b"0", b"1", b"2"})
    failures.append(TargetRejected("never"))
    with pytest.raises(TargetRejected, match="never"):
        await edge.apply(tags_batch("0", "1", "2", "3"))


async def test_a_provider_bug_is_not_mistaken_for_a_failed_delivery(http_server: ScriptedServer) -> None:
    class Broken(Plain):
        def purge(self, tags: list[str], *, soft: bool) -> Request:
            raise ZeroDivisionError

    edge = Broken("edge", Settings(url=http_server.url))
    with pytest.raises(BaseExceptionGroup) as caught:
        await edge.apply(tags_batch("a"))
    assert caught.value.subgroup(ZeroDivisionError) is not None


def test_consent_to_a_call_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="Plain has no call that purges everything"):
        PlainPerTag("edge", Settings(url="http://host", purge_all_on_gap=True))


@pytest.mark.parametrize("value", ["", "  ", "a\r\nX: 1", "a\nb", "pässword", "\x00"])
def test_a_secret_that_would_break_a_header_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(HeaderSecret, config={"hide_input_in_errors": True}).validate_python(value)
    assert not value.strip() or value not in str(caught.value)


def test_the_newline_of_a_secret_file_is_taken_off() -> None:
    secret: SecretStr = TypeAdapter(HeaderSecret).validate_python("s3cret\n")
    assert secret.get_secret_value() == "s3cret"


def test_repeats_are_positive() -> None:
    assert Settings(url="x", repeat_after_seconds=(2.0, 30.0)).repeat_after_seconds == (2.0, 30.0)
    with pytest.raises(ValidationError):
        Settings(url="x", repeat_after_seconds=(0.0,))


async def clock_has_sleepers(clock: ManualClock) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not clock.sleepers:  # noqa: ASYNC110  (the clock has no event for it)
            await asyncio.sleep(0)
