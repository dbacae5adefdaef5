from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from invalidator.net.http import Answer
from invalidator.targets.cdn._capabilities import Rate
from invalidator.targets.cdn._outcome import Done, OperatorMustAct, RejectTags, RetryAfter, Unavailable
from invalidator.targets.cdn.cloudflare import Cloudflare, Settings, build
from tests.support.cdn import build_cdn, tags_batch
from tests.support.http import ScriptedServer

ZONE = "023e105f4ecef8ad9ca31a8372d0c353"
OPTIONS = {"type": "cloudflare", "zone_id": ZONE, "api_token": "tok"}
EDGE: Cloudflare = build("edge", Settings.model_validate(OPTIONS))


def failure(*codes: object, status: int = 200) -> Answer:
    errors = [{"code": code, "message": "Tag exceeds maximum length: row-value"} for code in codes]
    return Answer(status, {}, json.dumps({"success": False, "errors": errors, "result": None}).encode())


def test_a_purge_is_one_post_to_the_zone() -> None:
    request = EDGE.purge(["product-42", "a"], soft=False)
    assert (request.method, request.url) == ("POST", f"https://api.cloudflare.com/client/v4/zones/{ZONE}/purge_cache")
    assert json.loads(request.body) == {"tags": ["product-42", "a"]}
    assert request.headers["Authorization"] == "Bearer tok"


def test_a_soft_purge_is_the_same_to_invalidate_cache() -> None:
    hard, soft = EDGE.purge(["a"], soft=False), EDGE.purge(["a"], soft=True)
    assert soft.url == f"https://api.cloudflare.com/client/v4/zones/{ZONE}/invalidate_cache"
    assert (soft.body, soft.headers) == (hard.body, hard.headers)


def test_everything_has_a_body_of_its_own() -> None:
    assert json.loads(EDGE.purge_everything().body) == {"purge_everything": True}


def test_only_success_true_is_success() -> None:
    assert EDGE.judge(Answer(200, {}, b'{"success": true, "errors": [], "result": {"id": "1"}}')) == Done()
    for body in (b"", b"{}", b"<html>", b'{"success": "true"}', b'{"success": 1}', b'{"success": null}', b"[true]"):
        assert isinstance(EDGE.judge(Answer(200, {}, body)), Unavailable)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", [1100, 1315])
def test_a_tag_it_does_not_take_is_searched_for(status: int, code: int) -> None:
    assert EDGE.judge(failure(code, 1016, status=status)) == RejectTags()


def test_success_false_with_200_names_its_codes_and_not_its_messages() -> None:
    outcome = EDGE.judge(failure(1016))
    assert outcome == Unavailable("answered 200 without success (error codes 1016)", "rejected")


@pytest.mark.parametrize(("status", "code"), [(400, 6003), (403, 10000), (404, 7003), (401, 10000)])
def test_a_wrong_token_or_zone_is_for_the_operator(status: int, code: int) -> None:
    outcome = EDGE.judge(failure(code, status=status))
    assert isinstance(outcome, OperatorMustAct)
    assert f"error codes {code}" in outcome.message
    assert "row-value" not in outcome.message


def test_throttling_is_known_by_status_and_by_code() -> None:
    assert EDGE.judge(Answer(429, {"Retry-After": "3"})) == RetryAfter(seconds=3)
    assert EDGE.judge(failure(971)) == RetryAfter()


@pytest.mark.parametrize("codes", [["1100"], [None], [{}], [True], [1.5], [[1]]])
def test_codes_that_are_no_numbers_are_ignored(codes: list[object]) -> None:
    assert isinstance(EDGE.judge(failure(*codes)), Unavailable)


@given(st.integers(100, 599), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_no_errors_field_breaks_the_judge(status: int, errors: object) -> None:
    outcome = EDGE.judge(Answer(status, {}, json.dumps({"success": False, "errors": errors}).encode()))
    assert not isinstance(outcome, Done)


async def test_tags_that_differ_only_in_case_are_one(http_server: ScriptedServer) -> None:
    edge = build_cdn("cloudflare", http_server.url)
    await edge.apply(tags_batch("Product-42", "product-42", "PRODUCT-42", soft=("product-42", "Other")))
    assert [request.tags() for request in http_server.requests] == [["product-42"], ["other"]]
    await edge.close()


def test_the_plan_sets_the_rate_and_paid_ones_stay_below_the_general_limit() -> None:
    rates = {
        plan: build("edge", Settings.model_validate({**OPTIONS, "plan": plan})).default_rate()
        for plan in ("free", "pro", "business", "enterprise")
    }
    assert rates["free"] == Rate(5 / 60, 25)
    assert all(rate.per_second * 300 <= 1200 for rate in rates.values())
    assert EDGE.default_rate() == rates["free"]


@pytest.mark.parametrize("zone", ["", "abc", ZONE.upper(), ZONE + "\n", ZONE[:-1] + "/", "../" + ZONE])
def test_a_zone_id_cannot_change_the_path(zone: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({**OPTIONS, "zone_id": zone})


def test_an_unknown_plan_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({**OPTIONS, "plan": "premium"})
