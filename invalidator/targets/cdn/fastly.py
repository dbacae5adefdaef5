"""Fastly: batch purge by surrogate key.

https://www.fastly.com/documentation/reference/api/purging/
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from invalidator.net.http import Answer, Request
from invalidator.ports import TagGrammar
from invalidator.targets.cdn._capabilities import Capabilities, Rate
from invalidator.targets.cdn._outcome import Done, Outcome, RetryAfter, Split, Unavailable, judge_status
from invalidator.targets.cdn._settings import ApiUrl, CdnOptions, HeaderSecret
from invalidator.targets.cdn._tag_purge import TagPurge


class Settings(CdnOptions):
    """Options of one Fastly service."""

    type: Literal["fastly"]
    service_id: str = Field(pattern=r"^[A-Za-z0-9]+$", examples=["SU1Z0isxPaozGVKXdv0eY"])
    """The service whose cache is purged."""
    api_token: HeaderSecret = Field(examples=["a-token"])
    """A token with the scope ``purge_select`` (and ``purge_all`` with ``purge_all_on_gap``)."""
    api_url: ApiUrl = "https://api.fastly.com"


class Fastly(TagPurge[Settings]):
    """Purges surrogate keys of one service."""

    # "printable ASCII", separated by spaces, 1024 bytes each; a longer one ends the origin's header unread:
    # https://www.fastly.com/documentation/reference/http/http-headers/Surrogate-Key/
    tag_grammar: ClassVar = TagGrammar("Fastly", re.compile(rb"[!-~]+"), 1024, "printable ASCII without space")
    capabilities: ClassVar = Capabilities(
        # "Up to 256 surrogate keys can be purged in one batch request."
        # https://www.fastly.com/documentation/reference/api/purging/#bulk-purge-tag
        max_tags=256,
        # 100,000 surrogate key purges per hour and customer, on average:
        # https://www.fastly.com/documentation/reference/api/#rate-limiting
        # Whether a batch counts once or per key is not said, so a key is what we count; the burst leaves three
        # quarters of the first hour to the others of the account.
        rate=Rate(per_second=100_000 / 3600, burst=25_000),
        charged_per="tag",
        soft=True,
        everything=True,
        concurrency=4,
    )

    def purge(self, tags: list[str], *, soft: bool) -> Request:
        """``POST /service/{id}/purge``, soft with a header."""
        headers = self._headers() | ({"Fastly-Soft-Purge": "1"} if soft else {})
        return Request.post_json(f"{self._service}/purge", {"surrogate_keys": tags}, headers)

    def purge_everything(self) -> Request:
        """``POST /service/{id}/purge_all``; there is no soft form of it."""
        return Request("POST", f"{self._service}/purge_all", self._headers())

    def judge(self, answer: Answer) -> Outcome:
        """A map from key to purge id is success; throttling names the moment of its end in a header of its own."""
        outcome = judge_status(answer)
        match outcome:
            case Done() if answer.json_object().get("status", "ok") != "ok" or not answer.json_object():
                return Unavailable(
                    f"answered {answer.status} without the JSON of a purge: is api_url right?", "rejected"
                )
            case RetryAfter(None, None):
                # Unix seconds: https://www.fastly.com/documentation/reference/api/#rate-limiting
                reset = answer.headers.get("Fastly-RateLimit-Reset", "")
                return RetryAfter(at=float(reset)) if re.fullmatch(r"[0-9]{1,12}", reset) else outcome
            case _ if answer.status == 400 and b"only supports up to" in answer.body:
                # "Batch surrogate key request only supports up to 256 surrogate keys"
                return Split()
        return outcome

    @property
    def _service(self) -> str:
        return f"{self.settings.api_url}/service/{self.settings.service_id}"

    def _headers(self) -> dict[str, str]:
        return {"Fastly-Key": self.settings.api_token.get_secret_value(), "Accept": "application/json"}


def build(name: str, settings: Settings) -> Fastly:
    """Make the target; nothing is opened before the first batch."""
    return Fastly(name, settings)
