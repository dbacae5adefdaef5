"""Varnish with vmod xkey, by the VCL in ``deploy/varnish``.

https://github.com/varnish/varnish-modules/blob/master/src/vmod_xkey.vcc

One target is one Varnish: several in a row are several targets, so that a dead one keeps only itself waiting.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from invalidator.net.http import Answer, Request
from invalidator.ports import TagGrammar
from invalidator.targets.cdn._capabilities import Capabilities, Rate
from invalidator.targets.cdn._outcome import Done, OperatorMustAct, Outcome, judge_status
from invalidator.targets.cdn._settings import BaseUrl, CdnOptions, HeaderSecret
from invalidator.targets.cdn._tag_purge import TagPurge


class Settings(CdnOptions):
    """Options of one Varnish instance."""

    type: Literal["varnish"]
    url: BaseUrl = Field(examples=["http://varnish:6081"])
    """Where this instance listens."""
    secret: HeaderSecret | None = None
    """What the VCL compares with its INVALIDATOR_PURGE_SECRET."""
    secret_header: str = Field(default="X-Purge-Secret", pattern=r"^[A-Za-z][A-Za-z0-9-]*$")
    """The header that the secret is sent in."""
    health_path: str | None = Field(default="/.well-known/invalidator", pattern=r"^/[A-Za-z0-9._~/-]*$")
    """Asked with each heartbeat; any answer below 500 will do. null: Varnish is not asked."""


class Varnish(TagPurge[Settings]):
    """Purges xkey tags of one Varnish."""

    # xkey splits its header on white space and commas.
    tag_grammar: ClassVar = TagGrammar(
        "Varnish xkey", re.compile(rb"[!-+\--~]+"), 1024, "printable ASCII without space and comma"
    )
    capabilities: ClassVar = Capabilities(
        # No limit of its own, but a request header line may have http_req_hdr_len bytes (8 kB by default, name
        # included), and a longer one is answered with 400: https://varnish-cache.org/docs/7.1/reference/varnishd.html
        max_tags=1000,
        max_bytes=7500,
        written_in="header",
        # xkey holds one lock while it purges; measured 10,000 a second on one core.
        rate=Rate(per_second=1000, burst=1000),
        soft=True,
        everything=True,
        concurrency=4,
    )

    def purge(self, tags: list[str], *, soft: bool) -> Request:
        """``PURGE /`` with all tags on one header line: the VCL reads only the first."""
        return self._request("xkey-softpurge" if soft else "xkey-purge", " ".join(tags))

    def purge_everything(self) -> Request:
        """``PURGE /`` with the header that makes the VCL ban everything."""
        return self._request("xkey-purge-all", "1")

    def prove_alive(self) -> Request | None:
        """The path that the VCL answers itself."""
        path = self.settings.health_path
        return None if path is None else Request("GET", self.settings.url + path)

    def judge(self, answer: Answer) -> Outcome:
        """Only an answer with the count of objects is from the VCL; any other 200 may be from an origin."""
        outcome = judge_status(answer)
        if not isinstance(outcome, Done):
            return outcome
        count = answer.headers.get("X-Purged", "")
        if not re.fullmatch(r"[0-9]{1,12}", count):
            message = f"answered {answer.status} without X-Purged: is deploy/varnish/invalidator.vcl loaded there?"
            return OperatorMustAct(message)
        return Done(int(count))

    def _request(self, header: str, value: str) -> Request:
        secret = self.settings.secret
        headers = {header: value}
        if secret is not None:
            headers[self.settings.secret_header] = secret.get_secret_value()
        return Request("PURGE", f"{self.settings.url}/", headers)


def build(name: str, settings: Settings) -> Varnish:
    """Make the target; nothing is opened before the first batch."""
    return Varnish(name, settings)
