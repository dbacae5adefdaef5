"""Lookups for ``test`` and ``explain``: run against the database, in read-only transactions that are rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invalidator.config import Settings
    from invalidator.model import Invalidation
    from invalidator.rules.explain import Answer


def online(settings: Settings) -> Answer:
    """Answers lookups as the daemon would, from what the database holds now.

    The result raises ``ConfigError`` with what Postgres says if a lookup cannot be run.
    """
    import asyncio

    from invalidator.errors import ConfigError
    from invalidator.postgres.lookups import Lookups
    from invalidator.postgres.options import DatabaseOptions
    from invalidator.telemetry.events import Events
    from invalidator.telemetry.state import State

    failures: list[str] = []

    class Heard(Events):
        """Keeps what a daemon would log."""

        def lookup_failed(self, rule: str, *, lookup: str, error: str, reason: str) -> None:
            failures.append(f"lookup '{lookup}' of rule '{rule}': {error} ({reason})")

        def lookup_answered(self, rule: str) -> None:
            """Nothing to tell."""

    source = settings.source
    dsn = source.address if isinstance(source, DatabaseOptions) else ""

    async def ask(invalidation: Invalidation) -> None:
        lookups = Lookups(settings.lookups, dsn=dsn, events=Heard(State()))
        try:
            await lookups.answer(invalidation)
        finally:
            await lookups.close()

    def answer(invalidation: Invalidation) -> None:
        failures.clear()
        asyncio.run(ask(invalidation))
        if failures:
            raise ConfigError("\n".join(failures))

    return answer
