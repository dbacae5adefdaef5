"""What a listener can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from invalidator.postgres.options import DatabaseOptions

MAX_NAME_BYTES = 63
"""Postgres cuts longer names of channels, and refuses them in ``pg_notify()``."""


def _channel(name: str) -> str:
    if not name or "\0" in name or len(name.encode()) > MAX_NAME_BYTES:
        code, message = "bad-value", "'{name}' is no name of a channel"
        help_text = f"a channel has 1 to {MAX_NAME_BYTES} bytes"
        raise PydanticCustomError(code, message, {"name": name[:80], "help": help_text})
    return name


class NotifyOptions(DatabaseOptions):
    """What a listener can be told."""

    channels: tuple[Annotated[str, AfterValidator(_channel)], ...] = Field(min_length=1, examples=[["cache_changes"]])
    """The channels to listen to, exactly as `pg_notify()` is given them: `NOTIFY Changes` without quotes means
    `changes`."""
    name: str = Field(default="notify", pattern=r"^[a-z0-9_]{1,63}$")
    """Of this daemon in metrics, in the record beside each cache, and for its lock: of several daemons of one name one
    listens, and the others stand by. Give daemons with different channels different names."""
    heartbeat_seconds: float = Field(default=10, gt=0)
    """How often a notification of our own is sent, has to come back, and goes through every target to measure freshness
    end to end."""
    unheard_seconds: float = Field(default=10, gt=0)
    """From the COMMIT of such a notification until it must have come back; it takes milliseconds. A connection that
    hears nothing for longer is given up: a pooler stands between, or the network is gone."""
    max_batch_items: int = Field(default=5000, ge=1)
    """Distinct names that may wait for a slow target; what comes beyond is dropped by the coarse forms of its rules."""

    @property
    def slot(self) -> str:
        """What stands for a slot's name in logs and metrics."""
        return self.name

    @property
    def record_name(self) -> str:
        """As it is called."""
        return self.name
