"""What every target that is a Redis can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, field_validator

from invalidator import credentials
from invalidator.credentials import Secret, checked_secret
from invalidator.net.redis.url import parse
from invalidator.ports import TargetOptions


class RedisOptions(TargetOptions):
    """What every target that is a Redis can be told."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Secret
    """``redis://[user:password@]host[:port][/db]``, ``rediss://…`` (TLS, verified) or ``unix:///path[?db=0]``.
    For TLS ``?ssl_ca_certs=/path`` names the authority, ``ssl_certfile`` and ``ssl_keyfile`` our certificate.
    ``redis+sentinel://[user:password@]host:26379,host:26379/mymaster[/db]`` asks sentinels for the primary."""
    password: Annotated[Secret, AfterValidator(checked_secret)] = Secret("")
    """The password, in the place of one in the URL. Both may be ``file:/path`` or ``command:program argument``: read
    anew for each connection, so that they may be rotated."""
    connect_timeout_seconds: float = Field(default=3, gt=0)
    """For opening the connection."""
    timeout_seconds: float = Field(default=5, gt=0)
    """For each reply. Longer than the slowest command of anybody else on the server."""

    @field_validator("url")
    @classmethod
    def _is_understood(cls, url: Secret) -> Secret:
        if not credentials.is_reference(url.get_secret_value()):
            parse(url.get_secret_value())
        return checked_secret(url)
