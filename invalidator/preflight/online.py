"""Everything that can be asked of the servers in the settings, once: what ``check --online`` shows.

A server that does not answer is one finding; the others are asked all the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from invalidator import registry, yamlfile
from invalidator.errors import ConfigError, SourceError, Unheard
from invalidator.postgres.connection import connect, connect_pooled
from invalidator.postgres.notify import proof
from invalidator.postgres.notify.listener import Listener
from invalidator.postgres.notify.options import NotifyOptions
from invalidator.postgres.options import DatabaseOptions
from invalidator.postgres.side import SideConnection
from invalidator.preflight import targets
from invalidator.preflight.examine import examine
from invalidator.preflight.facts import Facts, gather_for
from invalidator.preflight.finding import At, Finding, finding
from invalidator.preflight.lookups import examine_lookups
from invalidator.preflight.needs import needs
from invalidator.sources import pgoutput

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from invalidator.config import Settings
    from invalidator.postgres.connection import Address
    from invalidator.postgres.provision import OutboxFacts
    from invalidator.rules.rule import RuleSet

UNREACHABLE: Final = frozenset({"database-unreachable", "target-unreachable"})

_UNREACHED: Final = "see that it runs and can be reached from here"
_NO_DSN: Final = (
    "source.dsn is empty, so libpq's own variables and defaults tell where Postgres is:"
    " set INVALIDATOR_SOURCE__DSN=postgresql://user@host:5432/database"
)


@dataclass(slots=True)
class Seen:
    """What came of asking."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """A line for each server, for people: what it is and what is well."""

    @property
    def is_unreachable(self) -> bool:
        """Whether a server did not answer, so that not everything could be checked."""
        return any(each.code in UNREACHABLE for each in self.findings)


async def look(settings: Settings, ruleset: RuleSet, sources: Mapping[str, str]) -> Seen:
    """Ask the database and every target.

    Args:
        settings: where they are.
        ruleset: the rules.
        sources: the text of each rule file by its name.
    """
    places = settings_places(settings)
    database, answers = await asyncio.gather(
        _database(settings, ruleset, sources, places), _targets(settings, ruleset, places)
    )
    for answer in answers:
        database.findings += answer.findings
        if answer.facts:
            database.notes.append(f"{answer.target}  " + "   ".join(f"{fact} ✓" for fact in answer.facts))
        elif answer.is_unreachable:
            database.notes.append(f"{answer.target}  ✗ does not answer")
    return database


def settings_places(settings: Settings) -> dict[str, At]:
    """Where the settings file names ``dsn``, ``slot``, ``publication``, and each target; nothing of other origin."""
    if settings.file is None:
        return {}
    document = yamlfile.read(settings.file)
    paths: dict[str, yamlfile.Path] = {name: ("source", name) for name in ("dsn", "slot", "publication")}
    paths |= {name: ("targets", name) for name in settings.targets}
    places = {}
    for name, path in paths.items():
        if path in document.values:
            span = document.key_span(path) if path[0] == "targets" else document.span(path)
            places[name] = At(os.fspath(settings.file), span.line, span.column, span.width)
    return places


async def _database(settings: Settings, ruleset: RuleSet, sources: Mapping[str, str], places: Mapping[str, At]) -> Seen:
    options = settings.source
    if not isinstance(options, DatabaseOptions):
        return Seen(notes=[f"source  {options.type}: nothing to ask"])
    at = places.get("dsn") or At("source.dsn")
    try:
        return await _ask(options, settings.lookups.address, ruleset, sources, places)
    except ConfigError as error:
        return Seen([finding("database", at, "database-refused", str(error).partition("\n")[0], help=error.fix)])
    except SourceError as error:
        help_text = _UNREACHED if options.address.dsn else _NO_DSN
        return Seen([finding("database", at, "database-unreachable", str(error), help=help_text)])


async def _ask(
    options: DatabaseOptions,
    lookups: Address | None,
    ruleset: RuleSet,
    sources: Mapping[str, str],
    places: Mapping[str, At],
) -> Seen:
    connection = await connect(options.address, application_name="invalidator/check")
    async with connection:
        facts = await gather_for(connection, needs(ruleset.rules), options)
        is_made = isinstance(options, pgoutput.Settings) and options.create
        found = examine(ruleset, sources, facts, settings_at=places, is_made_at_start=is_made)
        if not lookups:
            found += await examine_lookups(connection, ruleset, sources, facts)
        note = _summary(facts)
        if isinstance(options, NotifyOptions):
            unheard = await _unheard(options, connection, facts, places)
            found += unheard
            note += f"   channels {', '.join(options.channels)} {_mark(not unheard)}"
    if lookups:
        async with await connect_pooled(lookups, application_name="invalidator/check") as connection:
            found += await examine_lookups(connection, ruleset, sources, facts)
    return Seen(found, [note])


async def _unheard(
    options: NotifyOptions, connection: AsyncConnection[Any], facts: Facts, places: Mapping[str, At]
) -> list[Finding]:
    """Listen, and see whether a notification of our own comes back."""
    server = facts.database.server
    if server.is_standby:
        return []
    listener = Listener(await connect(options.address, application_name="invalidator/check"))
    listener.watch(lambda _: None)
    try:
        await proof.prove(listener, SideConnection(connection), proof.own_channel(), seconds=options.unheard_seconds)
    except Unheard as error:
        at, message = places.get("dsn") or At("source.dsn"), str(error).partition("\n")[0]
        why = "the daemon does not start: it would hear nothing"
        return [finding(server.database, at, "notifications-unheard", message, why=why, fix=error.fix)]
    finally:
        await listener.close()
    return []


async def _targets(settings: Settings, ruleset: RuleSet, places: Mapping[str, At]) -> list[targets.Answer]:
    built = [registry.load("targets", options.type).build(name, options) for name, options in settings.targets.items()]
    try:
        return await targets.probe(built, ruleset, places, record_name=settings.source.record_name)
    finally:
        for each in built:
            await each.close()


def _summary(facts: Facts) -> str:
    """The database in one line; what is not well has a finding that says more."""
    if facts.outbox is not None:
        return _outbox_summary(facts.outbox)
    server, slot, publication = facts.database.server, facts.database.slot, facts.publication
    version = f"Postgres {server.version // 10000}.{server.version % 10000}"
    if facts.is_notified:
        return version
    parts = [
        version,
        f"wal_level {server.wal_level} {_mark(server.wal_level == 'logical')}",
    ]
    if slot is None:
        parts.append(f"slot {facts.request.slot} ✗")
    else:
        state = f"active, pid {slot.active_pid}" if slot.active_pid else "not active"
        is_well = slot.plugin == "pgoutput" and slot.database == server.database and slot.wal_status != "lost"
        parts.append(f"slot {slot.name} {_mark(is_well)} ({state})")
    if publication is None:
        parts.append(f"publication {facts.request.publication} ✗")
    else:
        number = len(publication.tables)
        size = "all tables" if publication.is_for_all_tables else f"{number} table{'' if number == 1 else 's'}"
        parts.append(f"publication {publication.name} {_mark(not publication.is_via_root)} {size}")
    if facts.role is not None:
        parts.append(f"REPLICATION privilege {_mark(facts.role.can_replicate or facts.role.is_superuser)}")
    return "   ".join(parts)


def _outbox_summary(facts: OutboxFacts) -> str:
    version = f"Postgres {facts.server.version // 10000}.{facts.server.version % 10000}"
    number = len(facts.outbox.triggers)
    return f"{version}   invalidator.outbox {_mark(bool(facts.outbox.columns))}   {number} triggers"


def _mark(is_well: bool) -> str:
    return "✓" if is_well else "✗"
