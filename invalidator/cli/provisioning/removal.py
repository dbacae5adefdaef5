"""What ``teardown`` takes away: in the database, beside caches, and the state file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from invalidator import wiring
from invalidator.cli._exits import Exit
from invalidator.cli.provisioning import leftovers, plan, script
from invalidator.cli.provisioning.leftovers import Found, Leftover
from invalidator.errors import TargetError
from invalidator.ports import Forgetting
from invalidator.postgres import provision
from invalidator.postgres.catalog import Server, system
from invalidator.postgres.leader import holder
from invalidator.postgres.notify.session import lock_key
from invalidator.postgres.provision import Finding, Need, Plan, Request
from invalidator.telemetry.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from invalidator.cli.provisioning.outcome import Outcome
    from invalidator.cli.provisioning.source import Source
    from invalidator.config import Settings
    from invalidator.ports import Target


@dataclass(frozen=True, slots=True)
class Removal:
    """What there is to be taken away, and what was."""

    outcome: Outcome
    """Of the database."""
    leftovers: tuple[Leftover, ...]
    """Outside of it."""
    findings: tuple[Finding, ...]
    taken: frozenset[str]
    """Names of the leftovers that are gone."""

    @property
    def exit_code(self) -> Exit:
        """1 if something is left for somebody to do."""
        has_stayed = self.outcome.is_applied and any(each.what not in self.taken for each in self.leftovers)
        has_problems = any(finding.is_problem for finding in self.findings)
        return Exit.PROBLEMS if has_stayed or has_problems else self.outcome.exit_code

    def text(self) -> str:
        """For people, and for psql."""
        lines = [script.text(self.outcome)]
        for each in self.leftovers:
            did = "done" if each.what in self.taken else "stays" if self.outcome.is_applied else "would go too"
            lines += ["", *script.comment(f"{did}: {each.what}: {each.why}")]
        for finding in self.findings:
            lines += ["", *script.finding_lines(finding)]
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """For programs."""
        made = script.document(self.outcome)
        made["leftovers"] = [
            {"what": each.what, "why": each.why, "taken": each.what in self.taken} for each in self.leftovers
        ]
        own = [script.finding_document(finding) for finding in self.findings]
        return made | {"findings": [*made["findings"], *own], "ok": self.exit_code is Exit.FINE}


async def tear_down(
    settings: Settings, source: Source, needs: tuple[Need, ...], request: Request, *, is_applied: bool
) -> Removal:
    """Look at all that is left, and take it away if that is asked for.

    Raises:
        ConfigError, SourceDisconnected: the database cannot be looked at, or not be changed.
    """
    targets = wiring.build_targets(settings, State())
    try:
        look = _Look(settings, source, needs, request, targets)
        outcome = await plan.online(source, look, is_applied=is_applied)
        outcome.removes_by = "teardown"
        outcome.has_more = bool(look.beside.leftovers or look.beside.findings)
        taken = await _take(look.beside.leftovers) if is_applied else frozenset[str]()
    finally:
        for target in targets:
            await target.close()
    return Removal(outcome, look.beside.leftovers, look.beside.findings, taken)


class _Look:
    """Looks at the database, at caches and at the state file; after an apply at the database alone."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        needs: tuple[Need, ...],
        request: Request,
        targets: Sequence[Target],
    ) -> None:
        self._settings = settings
        self._source = source
        self._needs = needs
        self._request = request
        self._targets = targets
        self.beside = Found()
        """What there is outside of the database; nothing of it while a daemon runs."""
        self._has_looked = False

    async def __call__(self, connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        if not self._has_looked:
            self._has_looked = True
            self.beside = await self._look_beside(connection)
        looks = {"outbox": self._at_outbox, "notify": self._at_notifications}
        server, plan, is_running = await looks.get(self._source.kind, self._at_slot)(connection)
        if is_running and self.beside.leftovers:
            text = "records beside caches and the state file stay while a daemon runs"
            self.beside = Found((), (Finding(text, "stop the daemon, then run this again"),))
        return server, plan

    async def _at_outbox(self, connection: AsyncConnection[Any]) -> tuple[Server, Plan, bool]:
        facts = await provision.outbox_facts(connection, self._needs, provision.OutboxRequest(self._request.role))
        return facts.server, provision.outbox_removal(facts), facts.outbox.reader_pid is not None

    async def _at_notifications(self, connection: AsyncConnection[Any]) -> tuple[Server, Plan, bool]:
        look = plan.look_at_notifications(self._source, self._needs, self._request, is_removed=True)
        server, removal = await look(connection)
        key = lock_key(getattr(self._settings.source, "slot", "notify"))
        return server, removal, await holder(connection, key) is not None

    async def _at_slot(self, connection: AsyncConnection[Any]) -> tuple[Server, Plan, bool]:
        facts = await provision.removal_facts(connection, self._needs, self._request)
        is_recorded = self.beside.has_record
        removal = provision.removal(self._needs, facts, self._request, is_slot_recorded=is_recorded)
        removal = provision.without_hook(removal, await provision.hook_facts(connection))
        return facts.server, removal, facts.slot is not None and facts.slot.active_pid is not None

    async def _look_beside(self, connection: AsyncConnection[Any]) -> Found:
        recorders = [(target.name, target) for target in self._targets if isinstance(target, Forgetting)]
        # A slot is of the whole cluster; an outbox and a lock are of a database. Records of an outbox name the table,
        # too, which may be gone by now.
        ours = await system(connection, with_database=self._source.kind != "pgoutput")
        records = await leftovers.records(self._record, ours, recorders)
        file = leftovers.state_file(self._settings.state.path)
        return Found((*records.leftovers, *file.leftovers), (*records.findings, *file.findings), records.has_record)

    @property
    def _record(self) -> str:
        """The name that our records are kept under."""
        if self._source.kind == self._settings.source.type:
            return self._settings.source.record_name
        return self._source.slot if self._source.kind == "pgoutput" else self._source.kind


async def _take(found: Sequence[Leftover]) -> frozenset[str]:
    taken: set[str] = set()
    for each in found:
        try:
            if await each.take_away():
                taken.add(each.what)
        except (TargetError, OSError) as error:
            click.echo(f"{each.what}: {error}", err=True)
    return frozenset(taken)
