"""After a failure a lookup is not asked for a while, longer each time."""

from __future__ import annotations

import pytest

from invalidator.errors import LookupFailed
from invalidator.model import WidenReason
from invalidator.postgres.lookup_breaker import FIRST_SECONDS, MAX_SECONDS, Breaker
from invalidator.postgres.lookup_sessions import LookupNotAskedError

SLOW = LookupFailed("no answer within 2 s", reason=WidenReason.LOOKUP_TIMEOUT)


def is_open(breaker: Breaker, now: float) -> bool:
    try:
        breaker.check(now)
    except LookupNotAskedError:
        return True
    return False


def test_a_question_waits_out_the_back_off_and_says_what_the_last_one_met() -> None:
    breaker = Breaker()
    breaker.check(100)
    breaker.failed(SLOW, 100)
    with pytest.raises(LookupNotAskedError, match="no answer within 2 s") as caught:
        breaker.check(100 + FIRST_SECONDS * 0.4)
    assert caught.value.reason is WidenReason.LOOKUP_TIMEOUT
    breaker.check(100 + FIRST_SECONDS)


def test_each_failure_doubles_the_back_off_up_to_a_bound() -> None:
    breaker = Breaker()
    for failures in range(30):
        bound = min(MAX_SECONDS, FIRST_SECONDS * 2**failures)
        breaker.failed(SLOW, 0)
        assert is_open(breaker, bound * 0.49)
        assert not is_open(breaker, bound)


def test_an_answer_closes_it_and_forgets_the_failures() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(SLOW, 0)
    breaker.answered()
    assert not is_open(breaker, 0)
    breaker.failed(SLOW, 0)
    assert not is_open(breaker, FIRST_SECONDS)


def test_a_question_that_had_no_turn_opens_nothing() -> None:
    breaker = Breaker()
    breaker.failed(LookupNotAskedError("no connection was free", reason=WidenReason.LOOKUP_TIMEOUT), 0)
    assert not is_open(breaker, 0)
