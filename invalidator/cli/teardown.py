"""``invalidator teardown``: takes away all that the product left, and nothing that is not proved to be its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli import _plan
from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, load_settings, settings_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from invalidator.cli._leftovers import Found, Leftover
    from invalidator.config import Settings
    from invalidator.ports import Target
    from invalidator.postgres.catalog import Server
    from invalidator.postgres.provision import Finding, Need, Plan, Request


@click.command("teardown", short_help="Take away what the daemon and setup left.")
@click.option("--apply", "is_applied", is_flag=True, help="Do it. Without this nothing is changed.")
@click.option(
    "--source",
    "kind",
    type=click.Choice(_plan.KINDS),
    help="What of: slot and publication, triggers and outbox, or notifications.  [default: source.type]",
)
@click.option(
    "--dsn",
    metavar="DSN",
    help="Connect as an owner of the tables instead of by source.dsn. Keep passwords out of it: PGPASSWORD, pgpass.",
)
@click.option("--role", metavar="NAME", help="The daemon's role.  [default: the user of source.dsn, or invalidator]")
@settings_options
@json_option
def command(
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    kind: str | None,
    is_applied: bool,
    dsn: str | None,
    role: str | None,
    as_json: bool,
) -> int:
    """Print all that setup and the daemon left, or take it away with --apply.

    That is: slot and publication, or triggers and outbox; grants and role; our records beside caches; the state file.
    Each is taken only if it is proved to be ours: a publication by the comment that setup gave it, a slot by that
    publication or by our record beside a cache, an outbox by its comment or columns, a record by what it holds. While
    a daemon runs nothing of its own is touched. Exit code 1: something is left for you.
    """
    import asyncio

    from invalidator.postgres.provision import Request

    settings = load_settings(settings_file, overrides)
    source = _plan.Source.of(settings, kind=kind, dsn=dsn, role=role)
    wanted = _plan.wanted(settings)
    request = Request(source.slot, source.publication, source.role)
    torn = asyncio.run(_tear_down(settings, source, wanted, request, is_applied=is_applied))
    if as_json:
        click.echo(json.dumps(torn.document, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join([_plan.text(torn.outcome), *torn.lines]))
    return torn.exit_code


@dataclass(slots=True)
class _Torn:
    """What there is, or was."""

    outcome: _plan.Outcome
    leftovers: tuple[Leftover, ...]
    findings: tuple[Finding, ...]
    taken: frozenset[str]

    @property
    def exit_code(self) -> Exit:
        has_stayed = self.outcome.is_applied and any(each.what not in self.taken for each in self.leftovers)
        has_problems = any(finding.is_problem for finding in self.findings)
        return Exit.PROBLEMS if has_stayed or has_problems else self.outcome.exit_code

    @property
    def lines(self) -> list[str]:
        lines: list[str] = []
        for each in self.leftovers:
            did = "done" if each.what in self.taken else "stays" if self.outcome.is_applied else "would go too"
            lines += ["", *_plan.comment(f"{did}: {each.what}: {each.why}")]
        for finding in self.findings:
            lines += ["", *_plan.finding_lines(finding)]
        return lines

    @property
    def document(self) -> dict[str, Any]:
        made = _plan.document(self.outcome)
        made["leftovers"] = [
            {"what": each.what, "why": each.why, "taken": each.what in self.taken} for each in self.leftovers
        ]
        own = [_plan.finding_document(finding) for finding in self.findings]
        return made | {"findings": [*made["findings"], *own], "ok": self.exit_code is Exit.FINE}


async def _tear_down(
    settings: Settings, source: _plan.Source, wanted: Sequence[Need], request: Request, *, is_applied: bool
) -> _Torn:
    from invalidator import wiring
    from invalidator.telemetry.state import State

    targets = wiring.build_targets(settings, State())
    try:
        look = _Look(settings, source, wanted, request, targets)
        outcome = await _plan.online(source, look, is_applied=is_applied)
        outcome.removes_by = "teardown"
        outcome.has_more = bool(look.others.leftovers or look.others.findings)
        taken = await _take(look.others.leftovers) if is_applied else frozenset[str]()
    finally:
        for target in targets:
            await target.close()
    return _Torn(outcome, look.others.leftovers, look.others.findings, taken)


class _Look:
    """Looks at the database, at caches and at the state file; after an apply at the database alone."""

    def __init__(
        self,
        settings: Settings,
        source: _plan.Source,
        wanted: Sequence[Need],
        request: Request,
        targets: Sequence[Target],
    ) -> None:
        from invalidator.cli._leftovers import Found

        self._settings = settings
        self._source = source
        self._wanted = wanted
        self._request = request
        self._targets = targets
        self.others: Found = Found()
        self._has_looked = False

    async def __call__(self, connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        from invalidator.cli._leftovers import Found
        from invalidator.postgres import provision
        from invalidator.postgres.leader import holder
        from invalidator.postgres.notify.session import lock_key

        if not self._has_looked:
            self._has_looked = True
            self.others = await self._look_beside(connection)
        if self._source.kind == "outbox":
            own = provision.OutboxRequest(self._request.role)
            facts = await provision.outbox_facts(connection, self._wanted, own)
            server, plan = facts.server, provision.outbox_removal(facts)
            is_running = facts.outbox.reader_pid is not None
        elif self._source.kind == "notify":
            look = _plan.look_at_notifications(self._source, tuple(self._wanted), self._request, is_removed=True)
            server, plan = await look(connection)
            key = lock_key(getattr(self._settings.source, "slot", "notify"))
            is_running = await holder(connection, key) is not None
        else:
            found = await provision.removal_facts(connection, self._wanted, self._request)
            is_recorded = self.others.has_record
            server = found.server
            plan = provision.removal(self._wanted, found, self._request, is_slot_recorded=is_recorded)
            plan = provision.without_hook(plan, await provision.hook_facts(connection))
            is_running = found.slot is not None and found.slot.active_pid is not None
        if is_running and self.others.leftovers:
            text = "records beside caches and the state file stay while a daemon runs"
            self.others = Found((), (provision.Finding(text, "stop the daemon, then run this again"),))
        return server, plan

    async def _look_beside(self, connection: AsyncConnection[Any]) -> Found:
        from invalidator.cli import _leftovers
        from invalidator.ports import Forgetting
        from invalidator.postgres.catalog import system

        recorders = [(target.name, target) for target in self._targets if isinstance(target, Forgetting)]
        # A slot is of the whole cluster; an outbox and a lock are of a database. Records of an outbox name the table,
        # too, which may be gone by now.
        ours = await system(connection, with_database=self._source.kind != "pgoutput")
        beside = await _leftovers.records(self._slot, ours, recorders)
        file = _leftovers.state_file(self._settings.state.path)
        return _leftovers.Found(
            (*beside.leftovers, *file.leftovers), (*beside.findings, *file.findings), beside.has_record
        )

    @property
    def _slot(self) -> str:
        """What our records are kept under."""
        from invalidator.wiring import record_name

        if self._source.kind == self._settings.source.type:
            return record_name(self._settings)
        return self._source.slot if self._source.kind == "pgoutput" else self._source.kind


async def _take(leftovers: Sequence[Leftover]) -> frozenset[str]:
    from invalidator.errors import TargetError

    taken: set[str] = set()
    for each in leftovers:
        try:
            if await each.take_away():
                taken.add(each.what)
        except (TargetError, OSError) as error:
            click.echo(f"{each.what}: {error}", err=True)
    return frozenset(taken)
