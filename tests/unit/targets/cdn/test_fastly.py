from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from invalidator.net.http import Answer
from invalidator.targets.cdn._outcome import Done, RejectTags, RetryAfter, Split, Unavailable
from invalidator.targets.cdn.fastly import Fastly, Settings, build

EDGE: Fastly = build("edge", Settings.model_validate({"type": "fastly", "service_id": "SU1Z0", "api_token": "tok"}))


def test_a_batch_of_tags_is_one_post_to_the_service() -> None:
    request = EDGE.purge(["product/42", 'a"b'], soft=False)
    assert (request.method, request.url) == ("POST", "https://api.fastly.com/service/SU1Z0/purge")
    assert json.loads(request.body) == {"surrogate_keys": ["product/42", 'a"b']}
    assert request.headers["Fastly-Key"] == "tok"
    assert "Fastly-Soft-Purge" not in request.headers


def test_a_soft_purge_differs_by_one_header() -> None:
    hard, soft = EDGE.purge(["a"], soft=False), EDGE.purge(["a"], soft=True)
    assert dict(soft.headers) == {**hard.headers, "Fastly-Soft-Purge": "1"}
    assert (soft.url, soft.body) == (hard.url, hard.body)


def test_everything_is_never_soft() -> None:
    request = EDGE.purge_everything()
    assert request.url == "https://api.fastly.com/service/SU1Z0/purge_all"
    assert "Fastly-Soft-Purge" not in request.headers


def test_a_map_from_tag_to_purge_id_is_success() -> None:
    assert EDGE.judge(Answer(200, {}, b'{"product-42": "108-1391560174-974124"}')) == Done()
    assert EDGE.judge(Answer(200, {}, b'{"status": "ok", "id": "1"}')) == Done()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"a": "1"', b"[" * 100_000])
def test_a_200_that_is_not_from_the_api_is_no_success(body: bytes) -> None:
    assert isinstance(EDGE.judge(Answer(200, {}, body)), Unavailable)


def test_too_many_tags_are_halved_and_other_bad_requests_are_searched() -> None:
    body = b'{"status": "fail", "reason": "Batch surrogate key request only supports up to 256 surrogate keys"}'
    assert EDGE.judge(Answer(400, {}, body)) == Split()
    assert EDGE.judge(Answer(400, {}, b'{"msg": "Bad request"}')) == RejectTags()


def test_throttling_ends_when_the_header_of_fastly_says() -> None:
    assert EDGE.judge(Answer(429, {"Fastly-RateLimit-Reset": "1795384830"})) == RetryAfter(at=1795384830)
    assert EDGE.judge(Answer(429, {"Fastly-RateLimit-Reset": "soon"})) == RetryAfter()
    assert EDGE.judge(Answer(429, {"Retry-After": "3", "Fastly-RateLimit-Reset": "1"})) == RetryAfter(seconds=3)


@given(st.integers(100, 599), st.binary())
def test_no_answer_breaks_the_judge(status: int, body: bytes) -> None:
    outcome = EDGE.judge(Answer(status, {}, body))
    assert not isinstance(outcome, Done) or status < 300


@pytest.mark.parametrize("tag", [b"two words", b"", b"\xc3\xa9", b"a\n", b"a" * 1025])
def test_the_grammar_refuses_what_would_be_another_tag(tag: bytes) -> None:
    assert not EDGE.tag_grammar.allows(tag)
    assert EDGE.tag_grammar.allows(b"a,b" + b"x" * 1021)


@pytest.mark.parametrize("service_id", ["", "a/b", "a\n", "..", "é", "a b"])
def test_a_service_id_cannot_change_the_path(service_id: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"type": "fastly", "service_id": service_id, "api_token": "tok"})
