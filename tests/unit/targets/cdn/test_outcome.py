from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from invalidator.net.http import Answer
from invalidator.targets.cdn._outcome import (
    Done,
    OperatorMustAct,
    Outcome,
    RejectTags,
    RetryAfter,
    Split,
    Unavailable,
    judge_status,
    retry_after,
)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Done()),
        (202, Done()),
        (204, Done()),
        (400, RejectTags()),
        (408, Unavailable("answered 408", "http_4xx")),
        (413, Split()),
        (414, Split()),
        (422, RejectTags()),
        (429, RetryAfter()),
        (431, Split()),
        (500, Unavailable("answered 500")),
        (503, Unavailable("answered 503")),
        (599, Unavailable("answered 599")),
    ],
)
def test_a_status_has_one_meaning(status: int, outcome: Outcome) -> None:
    assert judge_status(Answer(status, {})) == outcome


@pytest.mark.parametrize(
    ("status", "hint"),
    [(301, "redirects"), (401, "credentials"), (403, "credentials"), (404, "URL"), (405, "URL"), (418, "request")],
)
def test_what_the_operator_must_mend_is_said(status: int, hint: str) -> None:
    outcome = judge_status(Answer(status, {}))
    assert isinstance(outcome, OperatorMustAct)
    assert hint in outcome.message


@given(st.integers(100, 999))
def test_only_a_status_in_the_200s_is_success(status: int) -> None:
    assert (judge_status(Answer(status, {})) == Done()) is (200 <= status < 300)


def test_an_overloaded_server_that_names_a_time_is_given_it() -> None:
    assert judge_status(Answer(503, {"Retry-After": "30"})) == RetryAfter(seconds=30)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"Retry-After": "Sun, 22 Nov 2026 22:00:30 GMT"}, 30),
        ({"Retry-After": "Sunday, 22-Nov-26 22:00:30 GMT"}, 30),
        ({"Retry-After": "Sun Nov 22 22:00:30 2026"}, 30),
        ({"Retry-After": "Sun, 22 Nov 2026 21:00:00 GMT"}, 0),
        ({"Retry-After": "Sun, 22 Nov 2099 21:00:00 GMT"}, 3600),
        ({"Retry-After": "86400"}, 3600),
        ({"Retry-After": "later"}, 5),
        ({"Retry-After": "-1"}, 5),
        ({"Ratelimit": '"default";r=0;t=42'}, 42),
        ({"Retry-After": "7", "Ratelimit": '"default";r=0;t=42'}, 7),
        ({"Ratelimit": '"default";r=0'}, 5),
        ({}, 5),
    ],
)
def test_the_wait_comes_from_the_headers_and_stays_sane(headers: dict[str, str], seconds: float) -> None:
    now = 1_795_384_800.0  # Sun, 22 Nov 2026 22:00:00 GMT
    assert retry_after(CIMultiDict(headers)).wait_seconds(now) == pytest.approx(seconds)


@given(st.text(), st.text())
def test_no_header_makes_reading_it_fail(after: str, limit: str) -> None:
    wait = retry_after({"Retry-After": after, "RateLimit": limit}).wait_seconds(1_795_384_800.0)
    assert 0 <= wait <= 3600


def test_a_retry_after_that_no_clock_can_show_is_none_at_all() -> None:
    headers = CIMultiDict({"Retry-After": "Mon, 01 Jan 2026 00:00:00 +99999999999999999999"})
    assert retry_after(headers) == RetryAfter()
