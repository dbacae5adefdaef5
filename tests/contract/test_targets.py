"""What every target guarantees (``ports.Target``): found by file, so that a new one is tested by itself."""

from __future__ import annotations

import asyncio
import copy
import traceback
from pathlib import Path

import pydantic
import pytest

from invalidator.errors import TargetError, TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Layer, Lsn
from invalidator.ports import Options, Probing, Target, TargetOptions
from tests.contract.conftest import ROW_VALUE, SECRET, Candidate, Peer

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def everything() -> Invalidation:
    """Something for each kind of target, without what needs consent."""
    value = ROW_VALUE.encode()
    return Invalidation(
        keys={b"product:" + value, b"product:2"},
        tags={b"product:" + value, b"catalog"},
        key_patterns={b"page:*"},
        tag_patterns={b"list:*"},
        l1={b"product:" + value + b":*", b"product:2"},
        cdn={b"product-" + value, b"product-2"},
        cdn_soft={b"catalog"},
    )


def batch() -> Batch:
    return Batch(everything(), Lsn.parse("0/16B3748"), oldest_commit_time=1.0)


def is_part(part: Invalidation, whole: Invalidation) -> bool:
    kinds = ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn", "cdn_soft")
    return all(getattr(part, kind) <= getattr(whole, kind) | whole.cdn for kind in kinds)


def test_the_type_is_the_name_of_the_file(candidate: Candidate) -> None:
    assert candidate.settings().type == candidate.type_name
    with pytest.raises(pydantic.ValidationError, match="type"):
        candidate.settings(type="something_else")


def test_a_misspelled_option_is_refused(candidate: Candidate) -> None:
    with pytest.raises(pydantic.ValidationError, match="requird"):
        candidate.settings(requird=True)


def test_every_option_is_explained_beside_itself(candidate: Candidate) -> None:
    assert issubclass(candidate.module.Settings, TargetOptions)
    fields = candidate.module.Settings.model_fields
    assert [name for name, field in fields.items() if not field.description and name != "type"] == []


def test_the_type_is_documented(target_type: str) -> None:
    pages = [page.name for page in sorted(DOCS.glob("*.md")) if f"`{target_type}`" in page.read_text()]
    assert pages, f"no page in docs/reference names `{target_type}`"


def test_a_target_knows_its_name_and_its_layer(target: Target) -> None:
    assert target.name == "under-test"
    assert isinstance(target.layer, Layer)


async def test_building_and_closing_makes_no_call(candidate: Candidate, peer: Peer) -> None:
    target = candidate.build()
    await target.close()
    await target.close()
    assert peer.calls == 0


def test_secrets_are_in_no_repr(candidate: Candidate) -> None:
    target, settings = candidate.build(), candidate.settings()
    shown = f"{target!r} {target} {settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET not in shown
    assert isinstance(settings, Options)


def test_secrets_are_in_no_message_about_wrong_options(candidate: Candidate) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        candidate.settings(required=SECRET, url=f"http://user:{SECRET}@host", api_url=f"gopher://user:{SECRET}@host")
    assert "required" in str(caught.value)
    if candidate.peer is not None:
        assert SECRET not in str(caught.value)


async def test_an_empty_batch_makes_no_call(target: Target, peer: Peer) -> None:
    await target.apply(Batch(Invalidation(), Lsn(1)))
    assert peer.calls == 0


async def test_a_heartbeat_is_at_most_one_call(target: Target, peer: Peer) -> None:
    await target.apply(Batch(Invalidation(), Lsn(1), heartbeat=1.0))
    assert peer.calls <= 1


async def test_a_batch_makes_calls(target: Target, peer: Peer) -> None:
    await target.apply(batch())
    assert peer.calls > 0


async def test_applying_twice_is_applying_once_twice(target: Target) -> None:
    first = await target.apply(batch())
    assert first != Applied()
    assert await target.apply(batch()) == first


async def test_the_batch_is_left_as_it_was(target: Target) -> None:
    given = batch()
    before = copy.deepcopy(given)
    await target.apply(given)
    assert given == before


async def test_silence_is_a_timeout_and_the_next_application_works(candidate: Candidate, peer: Peer) -> None:
    target = candidate.build(timeout_seconds=1.5)  # a busy machine must not make a timeout of the answer
    peer.fall_silent()
    with pytest.raises(TargetUnavailable) as caught:
        await target.apply(batch())
    assert caught.value.result == "timeout"
    peer.recover()
    assert await target.apply(batch()) != Applied()
    await target.close()


async def test_a_cut_connection_is_not_applied_and_the_next_application_works(target: Target, peer: Peer) -> None:
    peer.hang_up()
    with pytest.raises(TargetUnavailable) as caught:
        await target.apply(batch())
    assert caught.value.result == "connection"
    peer.recover()
    assert await target.apply(batch()) != Applied()


async def test_a_refusal_is_for_the_operator_and_nothing_is_dropped(target: Target, peer: Peer) -> None:
    peer.refuse()
    with pytest.raises(TargetRejected) as caught:
        await target.apply(batch())
    assert caught.value.result == "rejected"
    remaining = caught.value.remaining
    assert remaining is None or (remaining and is_part(remaining, everything()))


async def test_not_now_is_no_refusal(target: Target, peer: Peer) -> None:
    peer.be_unable()
    with pytest.raises(TargetUnavailable):
        await target.apply(batch())


async def test_what_remains_can_be_applied(target: Target, peer: Peer) -> None:
    peer.be_unable()
    with pytest.raises(TargetUnavailable) as caught:
        await target.apply(batch())
    peer.recover()
    rest = caught.value.remaining or everything()
    assert is_part(rest, everything())
    assert await target.apply(Batch(rest, Lsn(1))) != Applied()


async def test_a_heartbeat_that_asks_the_server_fails_with_it(hasty: Target, peer: Peer) -> None:
    peer.fall_silent()
    has_failed = False
    try:
        await hasty.apply(Batch(Invalidation(), heartbeat=2.0))
    except TargetUnavailable:
        has_failed = True
    assert has_failed == (peer.calls > 0)


async def test_no_error_tells_a_secret_or_a_row_value(hasty: Target, peer: Peer) -> None:
    texts: list[str] = []
    for fail in (peer.refuse, peer.be_unable, peer.hang_up, peer.fall_silent):
        fail()
        with pytest.raises(TargetError) as caught:
            await hasty.apply(batch())
        texts += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
    assert SECRET not in "".join(texts)
    assert ROW_VALUE not in "".join(texts)


async def test_cancelling_leaves_nothing_running(target: Target, peer: Peer) -> None:
    tasks = asyncio.all_tasks()
    peer.fall_silent()
    applying = asyncio.create_task(target.apply(batch()))
    await peer.called()
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    await peer.idle()
    assert asyncio.all_tasks() <= tasks
    peer.recover()
    assert await target.apply(batch()) != Applied()


async def test_names_that_are_no_text_are_never_left_out_in_silence(target: Target) -> None:
    name = b"\xff\xfe *?[\\\r\n\x01" + b"x" * 20_000
    hostile = Invalidation(keys={name}, tags={name}, l1={name}, cdn={name})
    done = Applied()
    rest: Invalidation | None = None
    try:
        done = await target.apply(Batch(hostile, Lsn(1)))
    except TargetRejected as error:
        rest = error.remaining
    assert rest or done.keys + done.tags + done.patterns + done.cdn_tags > 0


async def test_a_cancellation_at_any_moment_is_obeyed(target: Target, peer: Peer) -> None:
    assert peer.calls == 0
    finished, steps = 0, 0
    while finished < 3:
        applying = asyncio.create_task(target.apply(batch()))
        for _ in range(steps):
            await asyncio.sleep(0)
        steps += 1
        if applying.done():
            finished += 1
            continue
        applying.cancel()
        await asyncio.wait([applying])
        assert applying.cancelled(), f"a cancellation after {steps} steps was lost"
    assert await target.apply(batch()) != Applied()


async def test_a_probe_of_a_target_that_is_well_finds_nothing_and_says_what_it_saw(target: Target, peer: Peer) -> None:
    assert isinstance(target, Probing)
    probe = await target.probe()
    assert probe.findings == ()
    assert probe.facts
    assert peer.calls


async def test_a_probe_tells_a_refusal_from_silence(target: Target, hasty: Target, peer: Peer) -> None:
    assert isinstance(target, Probing)
    assert isinstance(hasty, Probing)
    peer.refuse()
    with pytest.raises(TargetRejected):
        await target.probe()
    peer.recover()
    assert (await target.probe()).findings == ()
    peer.fall_silent()
    with pytest.raises(TargetUnavailable):
        await hasty.probe()
