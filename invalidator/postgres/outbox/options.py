"""What an outbox can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from invalidator.postgres.options import DatabaseOptions


class OutboxOptions(DatabaseOptions):
    """What an outbox can be told."""

    name: str = Field(default="outbox", min_length=1, max_length=63)
    """Name of the record beside the caches that says what was applied, and in logs and metrics. Databases whose daemons
    share a Redis need different ones."""
    wake: Literal["never", "notify"] = "never"
    """Whether statements of the application wake the daemon, by an empty NOTIFY, when nothing has come and it sleeps.
    Commits that notify wait for each other; while the daemon is awake none does."""
    fire_always: bool = False
    """Triggers fire also for what replication applies (`session_replication_role = replica`): ENABLE ALWAYS."""
    poll_min_seconds: float = Field(default=0.005, ge=0.001)
    """Wait between two looks while changes come."""
    poll_max_seconds: float = Field(default=0.1, le=10)
    """What the wait grows to while none come."""
    heartbeat_seconds: float = Field(default=10, gt=0)
    """How often a row goes through the outbox and every target to measure freshness end to end."""
    max_batch_items: int = Field(default=5000, ge=1)
    """Distinct names at which a batch is handed over."""

    @property
    def record_name(self) -> str:
        """As it is called."""
        return self.name

    @model_validator(mode="after")
    def _grows(self) -> OutboxOptions:
        if self.poll_max_seconds < self.poll_min_seconds:
            code, message = "bad-value", "poll_max_seconds is less than poll_min_seconds"
            raise PydanticCustomError(code, message)
        return self
