"""The options that every CDN target has, and the types of those that most have."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from invalidator.ports import TargetOptions

_BASE_URL: Final = re.compile(
    r"https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/\-]*)?|https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?"
)


def _check_base_url(url: str) -> str:
    if _BASE_URL.fullmatch(url) is None:
        msg = "must be like https://host or https://host:port/path, without user, query or fragment"
        raise ValueError(msg)
    return url.rstrip("/")


def _check_secret(secret: SecretStr) -> SecretStr:
    # A secret read from a file ends with a newline more often than not.
    text = secret.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable():
        msg = "must be printable ASCII and not empty, because it is sent in a header"
        raise ValueError(msg)
    return SecretStr(text)


BaseUrl = Annotated[str, AfterValidator(_check_base_url)]
"""Scheme, host and perhaps a path, written out: no row value ever gets in here."""
ApiUrl = Annotated[BaseUrl, Field(description="Where the provider's API is; another address for tests.")]
"""The base URL of an API that has one address for everybody."""
HeaderSecret = Annotated[SecretStr, AfterValidator(_check_secret)]
"""A credential that goes into a header."""


class CdnOptions(TargetOptions):
    """What every CDN target can be told."""

    model_config = ConfigDict(hide_input_in_errors=True)

    repeat_after_seconds: tuple[Annotated[float, Field(gt=0)], ...] = (2.0,)
    """Purge the same tags again after each of these: a response that was being rendered from old data during the
    purge is stored right after it, stale. Longer than the slowest render (plus replica lag) is long enough."""
    purge_all_on_gap: bool = False
    """Consent to purge everything when the exact tags cannot be known or cannot be purged."""
    rate_per_second: float | None = Field(default=None, gt=0)
    """Sustained rate, in the unit that the provider counts (calls, or tags); its documented limit by default."""
    rate_burst: float | None = Field(default=None, ge=1)
    """How much may go out at once after a pause."""
    timeout_seconds: float = Field(default=10, gt=0)
    """For one call, connecting included."""
