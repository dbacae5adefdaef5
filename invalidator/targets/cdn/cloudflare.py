"""Cloudflare: purge by cache tag, and since 2026-09 its soft form.

https://developers.cloudflare.com/cache/how-to/purge-cache/purge-by-tags/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from pydantic import Field

from invalidator.net.http import Answer, Request
from invalidator.ports import TagGrammar
from invalidator.targets.cdn._capabilities import Capabilities, Rate
from invalidator.targets.cdn._outcome import (
    Done,
    OperatorMustAct,
    Outcome,
    RejectTags,
    Unavailable,
    judge_status,
    retry_after,
)
from invalidator.targets.cdn._settings import ApiUrl, CdnOptions, HeaderSecret
from invalidator.targets.cdn._tag_purge import TagPurge

Plan = Literal["free", "pro", "business", "enterprise"]

# Calls per account, by plan: https://developers.cloudflare.com/cache/how-to/purge-cache/#availability-and-limits
# (5 a minute, 5, 10 and 50 a second). The paid ones are held below 4 a second, because purges may also count for
# the general 1200 requests in 5 minutes, and exceeding that blocks every call of the user for 5 minutes:
# https://developers.cloudflare.com/fundamentals/api/reference/limits/
_RATES: Final[Mapping[Plan, Rate]] = {
    "free": Rate(5 / 60, 25),
    "pro": Rate(4, 25),
    "business": Rate(4, 50),
    "enterprise": Rate(4, 500),
}

# Seen with status 200 and success false: "Tag exceeds maximum length of 1024 characters", "Non-printable
# characters are forbidden in tags" (https://github.com/opennextjs/opennextjs-cloudflare/pull/655).
_BAD_TAG: Final = frozenset({1100, 1315})
# "Please wait and consider throttling your request speed"
# (https://github.com/cloudflare/workers-sdk/issues/10025).
_THROTTLED: Final = frozenset({971})


class Settings(CdnOptions):
    """Options of one Cloudflare zone."""

    type: Literal["cloudflare"]
    zone_id: str = Field(pattern=r"^[0-9a-f]{32}$", examples=["023e105f4ecef8ad9ca31a8372d0c353"])
    """The zone whose cache is purged."""
    api_token: HeaderSecret = Field(examples=["a-token"])
    """A token with the permission "Cache Purge" for this zone."""
    plan: Plan = "free"
    """What the account may ask for: free, pro, business or enterprise. Sets the rate."""
    api_url: ApiUrl = "https://api.cloudflare.com/client/v4"


class Cloudflare(TagPurge[Settings]):
    """Purges cache tags of one zone. Tags that differ only in case are one tag there."""

    # Printable ASCII without spaces, separated by commas, at most 1024 characters in a call:
    # https://developers.cloudflare.com/cache/how-to/purge-cache/purge-by-tags/
    tag_grammar: ClassVar = TagGrammar(
        "Cloudflare", re.compile(rb"[!-+\--~]+"), 1024, "printable ASCII without space and comma"
    )
    capabilities: ClassVar = Capabilities(
        # "Max operations per request: 100" for tags on all plans:
        # https://developers.cloudflare.com/cache/how-to/purge-cache/#availability-and-limits
        max_tags=100,
        rate=_RATES["free"],
        soft=True,
        everything=True,
        case_sensitive=False,
    )

    def default_rate(self) -> Rate:
        """What the plan allows."""
        return _RATES[self.settings.plan]

    def purge(self, tags: list[str], *, soft: bool) -> Request:
        """``purge_cache``, or ``invalidate_cache``, which marks stale and takes the same body."""
        return self._request("invalidate_cache" if soft else "purge_cache", {"tags": tags})

    def purge_everything(self) -> Request:
        """``purge_cache`` with ``purge_everything``."""
        return self._request("purge_cache", {"purge_everything": True})

    def judge(self, answer: Answer) -> Outcome:
        """Only ``success: true`` is success, whatever the status; otherwise the error codes decide."""
        outcome = judge_status(answer)
        reply = answer.json_object()
        codes = _error_codes(reply)
        if codes & _THROTTLED:
            return retry_after(answer.headers)
        if codes & _BAD_TAG:
            return RejectTags()
        match outcome:
            case Done() if reply.get("success") is True:
                return outcome
            case Done():
                return Unavailable(f"answered {answer.status} without success ({_named(codes)})", "rejected")
            case RejectTags():
                # 400 is also the answer to a token or a zone that is no token or zone at all.
                return OperatorMustAct(f"answered {answer.status} ({_named(codes)}): check zone_id and api_token")
            case OperatorMustAct(message):
                return OperatorMustAct(f"{message} ({_named(codes)})")
            case _:
                return outcome

    def _request(self, call: str, body: Mapping[str, object]) -> Request:
        headers = {"Authorization": f"Bearer {self.settings.api_token.get_secret_value()}"}
        return Request.post_json(f"{self.settings.api_url}/zones/{self.settings.zone_id}/{call}", body, headers)


def _error_codes(reply: Mapping[str, object]) -> frozenset[int]:
    errors = reply.get("errors")
    codes = (error.get("code") for error in errors if isinstance(error, dict)) if isinstance(errors, list) else ()
    return frozenset(code for code in codes if isinstance(code, int))


def _named(codes: frozenset[int]) -> str:
    # The messages beside the codes may quote tags, so they are not repeated.
    return f"error codes {', '.join(map(str, sorted(codes)))}" if codes else "no error code"


def build(name: str, settings: Settings) -> Cloudflare:
    """Make the target; nothing is opened before the first batch."""
    return Cloudflare(name, settings)
