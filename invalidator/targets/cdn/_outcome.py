"""What an answer of a provider means: values, and the reading of HTTP that all providers share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invalidator.net.http import Answer

DEFAULT_RETRY_AFTER_SECONDS: Final = 5.0
"""When a provider throttles without saying for how long."""
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""A longer wait than the longest window we know (Fastly counts purges by the hour) is a broken header."""


@dataclass(frozen=True, slots=True)
class Done:
    """The provider took the call; ``removed`` objects were there, if it says so."""

    removed: int = 0


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The provider asks us to slow down: for ``seconds``, or until ``at`` (Unix seconds), or it did not say."""

    seconds: float | None = None
    at: float | None = None

    def wait_seconds(self, now: float) -> float:
        """Seconds from ``now`` (Unix seconds) that are sane to wait."""
        seconds = self.at - now if self.seconds is None and self.at is not None else self.seconds
        if seconds is None or not math.isfinite(seconds):
            return DEFAULT_RETRY_AFTER_SECONDS
        return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The provider cannot do it now; ``result`` is the metric label."""

    message: str
    result: str = "http_5xx"


@dataclass(frozen=True, slots=True)
class Split:
    """The call was too large: the same in two halves."""


@dataclass(frozen=True, slots=True)
class RejectTags:
    """A tag in the call is not acceptable: these, or one that has to be found when none is named."""

    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OperatorMustAct:
    """No call of this kind can succeed before somebody changes the settings; no secret, no tag in the message."""

    message: str


Outcome = Done | RetryAfter | Unavailable | Split | RejectTags | OperatorMustAct


def judge_status(answer: Answer) -> Outcome:
    """What the status alone says, by RFC 9110; enough for a provider that uses HTTP as it was meant."""
    match answer.status:
        case status if 200 <= status < 300:
            return Done()
        case 429:
            return retry_after(answer.headers)
        case 503 if "Retry-After" in answer.headers:
            return retry_after(answer.headers)
        case 413 | 414 | 431:
            return Split()
        case 400 | 422:
            return RejectTags()
        case status if status >= 500:
            return Unavailable(f"answered {status}", "http_5xx")
        case 408 | 425 as status:
            return Unavailable(f"answered {status}", "http_4xx")
        case status:
            return OperatorMustAct(f"answered {status}: {_what_to_check(status)}")


def _what_to_check(status: int) -> str:
    match status:
        case 401 | 403:
            return "check the credentials and what they are allowed to do"
        case 404 | 405 | 410:
            return "check the URL and the name of the service or zone in it"
        case status if 300 <= status < 400:
            return "redirects are not followed, give the final URL"
        case _:
            return "the request itself is wrong"


def retry_after(headers: Mapping[str, str]) -> RetryAfter:
    """When to come back, from ``Retry-After`` (seconds or a date) or ``RateLimit: ...;r=0;t=30``.

    The latter is what Cloudflare sends; its form is that of draft-ietf-httpapi-ratelimit-headers.
    """
    text = headers.get("Retry-After", "").strip()
    if text:
        if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", text):
            return RetryAfter(seconds=float(text))
        try:
            date = parsedate_to_datetime(text)
            return RetryAfter(at=(date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            return RetryAfter()
    reset = re.search(r";\s*t=([0-9]{1,10})", headers.get("RateLimit", ""))
    return RetryAfter(seconds=float(reset[1])) if reset else RetryAfter()
