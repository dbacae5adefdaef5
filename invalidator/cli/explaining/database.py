"""Lookups that the database answers, in read-only transactions that are rolled back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from invalidator.errors import ConfigError
from invalidator.postgres.lookups import Lookups
from invalidator.postgres.options import DatabaseOptions
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State

if TYPE_CHECKING:
    from invalidator.config import Settings
    from invalidator.model import Invalidation


class DatabaseAnswers:
    """Answers lookups as the daemon would, from what the database holds now.

    Args:
        settings: say where the database is, and what bounds a lookup.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, invalidation: Invalidation) -> None:
        """Put names in the place of what has to be looked up.

        Raises:
            ConfigError: a lookup cannot be run; with what Postgres says.
        """
        if failures := asyncio.run(self._ask(invalidation)):
            raise ConfigError("\n".join(failures))

    async def _ask(self, invalidation: Invalidation) -> list[str]:
        source = self._settings.source
        dsn = source.address if isinstance(source, DatabaseOptions) else ""
        events = _Failures()
        lookups = Lookups(self._settings.lookups, dsn=dsn, events=events)
        try:
            await lookups.answer(invalidation)
        finally:
            await lookups.close()
        return events.texts


class _Failures(Events):
    """Keeps what a daemon would log."""

    def __init__(self) -> None:
        super().__init__(State())
        self.texts: list[str] = []

    def lookup_failed(self, rule: str, *, lookup: str, error: str, reason: str) -> None:
        self.texts.append(f"lookup '{lookup}' of rule '{rule}': {error} ({reason})")

    def lookup_answered(self, rule: str) -> None:
        """Nothing to tell."""
