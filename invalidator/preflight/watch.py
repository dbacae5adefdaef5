"""The same checks in the running daemon: at each connect, again and again while it streams, and for each target.

A table that is taken out of the publication under us says nothing, ever again: only looking finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from invalidator import yamlfile
from invalidator.codes import database, outbox, servers
from invalidator.postgres.connection import connect, connect_pooled
from invalidator.preflight import targets as probing
from invalidator.preflight.examine import examine
from invalidator.preflight.facts import Facts, gather_for
from invalidator.preflight.lookups import examine_lookups
from invalidator.preflight.needs import needs
from invalidator.telemetry.redaction import redact
from invalidator.telemetry.state import FindingState

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from invalidator.config import PreflightSettings
    from invalidator.ports import Clock, Target
    from invalidator.postgres.connection import Address
    from invalidator.postgres.options import DatabaseOptions
    from invalidator.postgres.side import SideConnection
    from invalidator.preflight.finding import Finding
    from invalidator.rules.document import Loaded
    from invalidator.rules.rule import RuleSet
    from invalidator.telemetry.events import Events

_WIDENS: Final = frozenset(
    {
        "old-value-needed",
        "unknown-column",
        "column-not-published",
        "lookup-invalid",
        "unknown-lookup-column",
        "no-select-privilege",
        "no-execute-privilege",
        "condition-type",
        "column-not-captured",
        "trigger-outdated",
    }
)
"""Errors that the coarse form makes up for; what the others are about goes stale in silence, or stands still."""


_WHILE_REFUSING_SECONDS: Final = 30.0


class Preflight:
    """Looks, and tells the telemetry what it found.

    Args:
        settings: how often.
        options: of the source.
        lookups_address: where lookups are asked; None: where the changes come from.
        loaded: the rules in force.
        events: where findings go.
    """

    def __init__(
        self,
        settings: PreflightSettings,
        options: DatabaseOptions,
        lookups_address: Address | None,
        loaded: Loaded,
        events: Events,
    ) -> None:
        self.interval_seconds = settings.interval_seconds
        self._options = options
        self._lookups_address = lookups_address
        self._loaded = loaded
        self._events = events
        known = (*database.CODES, *servers.CODES, *outbox.CODES)
        events.state.findings_seen.update((code.name, code.severity) for code in known)
        self._seen: Facts | None = None
        self._found: list[Finding] = []
        self._explained: Facts | None = None
        self._found_in_lookups: list[Finding] = []

    def use(self, loaded: Loaded) -> None:
        """Other rules are in force."""
        self._loaded = loaded
        self._seen = self._explained = None

    async def look(self, side: SideConnection) -> None:
        """Hold the database against the rules.

        Raises:
            SourceError, ConfigError: it could not be asked; what was found before stays.
        """
        await self._look(await side.ask(self._gather))
        self._tell("database", self._found)

    async def look_again(self, side: SideConnection) -> None:
        """The same, and the lookups, which may lead to another server.

        Raises:
            SourceError, ConfigError: one of them could not be asked; what was found before stays.
        """
        await self.look(side)
        await self._look_at_lookups()
        self._tell("lookups", self._found_in_lookups)

    async def admit(self, in_force: Loaded, wanted: Loaded) -> None:
        """See that new rules bring no error that the old ones do not have.

        Raises:
            yamlfile.Invalid: they do; holds the errors with their fixes.
            SourceError, ConfigError: the database cannot be asked.
        """
        dsn = self._options.address
        async with await connect(dsn, application_name="invalidator/preflight") as connection:
            _, old = await self._held(connection, in_force)
            facts, new = await self._held(connection, wanted)
        new += await self._examined_lookups(wanted, facts)
        known = {(each.subject, each.code) for each in old}
        fresh = [
            each.diagnostic
            for each in new
            if each.diagnostic.severity == "error" and (each.subject, each.code) not in known
        ]
        if fresh:
            raise yamlfile.Invalid(fresh, wanted.sources)

    async def _held(self, connection: AsyncConnection[Any], loaded: Loaded) -> tuple[Facts, list[Finding]]:
        facts = await self._facts(connection, loaded)
        return facts, await asyncio.to_thread(examine, loaded.ruleset, loaded.sources, facts)

    async def _look(self, facts: Facts) -> None:
        """A thousand rules take a second: in a thread, and only if something is another than before."""
        facts = _without_positions(facts)
        loaded = self._loaded
        if facts == self._seen:
            return
        self._found = await asyncio.to_thread(examine, loaded.ruleset, loaded.sources, facts)
        self._seen = facts if loaded is self._loaded else None

    async def _gather(self, connection: AsyncConnection[Any]) -> Facts:
        return await self._facts(connection, self._loaded)

    async def _facts(self, connection: AsyncConnection[Any], loaded: Loaded) -> Facts:
        return await gather_for(connection, needs(loaded.ruleset.rules), self._options)

    async def _look_at_lookups(self) -> None:
        """A thousand of them take many seconds: only if something is another than before, or something was found.

        What was found may be mended by what the facts do not tell of: a privilege, an index, another server.
        """
        loaded, facts = self._loaded, self._seen
        if facts is None or (facts == self._explained and not self._found_in_lookups):
            return
        self._found_in_lookups = await self._examined_lookups(loaded, facts)
        self._explained = facts if loaded is self._loaded else None

    async def _examined_lookups(self, loaded: Loaded, facts: Facts) -> list[Finding]:
        """Asked on a connection of their own: the side connection has the heartbeat to carry meanwhile."""
        if not any(rule.lookups for rule in loaded.ruleset.rules):
            return []
        dsn = self._lookups_address or self._options.address
        async with await connect_pooled(dsn, application_name="invalidator/preflight") as connection:
            return await examine_lookups(connection, loaded.ruleset, loaded.sources, facts)

    def _tell(self, looked_at: str, found: Sequence[Finding]) -> None:
        self._events.findings_checked(looked_at, [_as_state(each) for each in found])


async def watch_targets(
    settings: PreflightSettings, targets: Sequence[Target], ruleset: Callable[[], RuleSet], events: Events, clock: Clock
) -> None:
    """Ask every target now and again, until cancelled; ``ruleset`` gives the rules in force.

    While one would refuse our calls it is asked more often, so that what was mended is not told of much longer.
    """
    while True:
        answers = await probing.probe(targets, ruleset())
        events.findings_checked("targets", [_as_state(each) for answer in answers for each in answer.findings])
        is_refusing = any(each.diagnostic.severity == "error" for answer in answers for each in answer.findings)
        seconds = settings.targets_interval_seconds
        await clock.sleep(min(seconds, _WHILE_REFUSING_SECONDS) if is_refusing else seconds)


def _without_positions(facts: Facts) -> Facts:
    """Without what moves by itself: the positions of the slot, and who reads from it."""
    slot = facts.database.slot
    if slot is None:
        return facts
    still = replace(slot, active_pid=None, restart_lsn=None, confirmed_flush_lsn=None, safe_wal_bytes=None)
    return replace(facts, database=replace(facts.database, slot=still))


def _as_state(each: Finding) -> FindingState:
    said = each.diagnostic
    place = f" ({said.file}:{said.line}:{said.column})" if said.line else ""
    why = f"; {said.why}" if said.why else ""
    urgency: Literal["critical", "warning", "info"] | None
    match said.severity:
        case "error":
            urgency = "warning" if each.code in _WIDENS else "critical"
        case "warning":
            urgency = "info"
        case "info":
            urgency = None
    return FindingState(
        code=each.code,
        severity=said.severity,
        subject=each.subject,
        text=redact(f"{said.message}{place}{why}"),
        fix=said.fix or said.help or "invalidator check --online",
        urgency=urgency,
    )
