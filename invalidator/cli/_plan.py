"""Plans for a database, looked at, run and shown: what ``setup`` and ``teardown`` share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._exits import Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg import AsyncConnection

    from invalidator.config import Settings
    from invalidator.postgres.catalog import Server
    from invalidator.postgres.connection import Dsn
    from invalidator.postgres.provision import Finding, Mark, Need, Plan, Request, Step

    Look = Callable[[AsyncConnection[Any]], Awaitable[tuple[Server, Plan]]]


KINDS = ("pgoutput", "outbox", "notify")


@dataclass(frozen=True, slots=True)
class Source:
    """What the settings of a source in Postgres say, as far as set-up needs it."""

    kind: str
    dsn: Dsn
    role: str
    slot: str = "invalidator"
    publication: str = "invalidator"
    channel: str = "cache_changes"
    wakes: bool = False
    fires_always: bool = False

    @classmethod
    def of(cls, settings: Settings, *, kind: str | None, dsn: str | None, role: str | None) -> Source:
        import asyncio
        import os

        from invalidator.errors import ConfigError
        from invalidator.postgres.notify.options import NotifyOptions
        from invalidator.postgres.options import DatabaseOptions, StreamOptions
        from invalidator.postgres.outbox.options import OutboxOptions

        options = settings.source
        if not isinstance(options, DatabaseOptions) or (kind or options.type) not in KINDS:
            msg = f"setup prepares Postgres for source types {', '.join(KINDS)}; the settings say '{options.type}'"
            raise ConfigError(msg)
        is_written = bool(options.dsn.get_secret_value())
        user = asyncio.run(options.address.parameters()).get("user") if is_written else os.environ.get("PGUSER")
        more: dict[str, Any] = {}
        if isinstance(options, StreamOptions):
            more = {"slot": options.slot, "publication": options.publication}
        elif isinstance(options, NotifyOptions):
            more = {"channel": options.channels[0]}
        elif isinstance(options, OutboxOptions):
            more = {"wakes": options.wake == "notify", "fires_always": options.fire_always}
        return cls(
            kind=kind or options.type,
            dsn=options.address if dsn is None else dsn,
            role=role or (str(user) if user else "invalidator"),
            **more,
        )

    def refuse_hook(self, *, is_asked_for: bool) -> None:
        if is_asked_for and self.kind != "pgoutput":
            msg = f"--ddl-hook tells a stream of DDL, and '{self.kind}' has none"
            raise click.UsageError(msg)

    def refuse_offline(self) -> None:
        if self.kind != "pgoutput":
            msg = f"--offline knows nothing of '{self.kind}': what triggers write depends on the columns of your tables"
            raise click.UsageError(msg)


@dataclass(slots=True)
class Outcome:
    """A plan, and what was done of it."""

    plan: Plan
    server: Server | None = None
    applied: tuple[Step, ...] = ()
    is_applied: bool = False
    removes_by: str | None = None
    """The command that takes away instead of making."""
    has_more: bool = False
    """There is something to do outside of the database."""

    @property
    def differing(self) -> list[Mark]:
        """The objects that are not as wanted."""
        return [mark for mark in self.plan.marks if mark.sign != "="]

    @property
    def is_up_to_others(self) -> bool:
        """Whether triggers are recommended, of which nobody knows whether they are needed."""
        return any(step.is_advice and step.purpose == "triggers" for step in self.plan.steps)

    @property
    def exit_code(self) -> Exit:
        return Exit.PROBLEMS if self.plan.problems or (self.is_applied and self.plan.to_run) else Exit.FINE


def wanted(settings: Settings) -> tuple[Need, ...]:
    """What the rules of the settings need of the database."""
    from invalidator.preflight.needs import needs
    from invalidator.rules import document

    return needs(document.load(settings.rules).rules)


def look_at_slot(source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    """What reads the facts of a slot and makes the plan."""
    from invalidator.postgres import provision

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        if is_removed:
            found = await provision.removal_facts(connection, wanted, request)
            plan = provision.removal(wanted, found, request)
            return found.server, provision.without_hook(plan, await provision.hook_facts(connection))
        found = await provision.facts(connection, wanted, request)
        plan = provision.plan(wanted, found, request)
        if request.wants_hook:
            plan = provision.with_hook(plan, await provision.hook_facts(connection), request.provider)
        return found.server, plan

    return look


def look_at_outbox(source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    """The same for an outbox."""
    from invalidator.postgres import provision

    own = provision.OutboxRequest(request.role, fires_always=source.fires_always, wakes=source.wakes)

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        found = await provision.outbox_facts(connection, wanted, own)
        plan = provision.outbox_removal(found) if is_removed else provision.outbox_plan(wanted, found, own)
        return found.server, plan

    return look


def look_at_notifications(source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    """The same for notifications of the application."""
    from invalidator.postgres import provision

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        found = await provision.outbox_facts(connection, wanted, provision.OutboxRequest(request.role))
        if is_removed:
            return found.server, provision.notify_removal(found)
        return found.server, provision.notify_plan(wanted, found, request.role, source.channel)

    return look


def look_and_run(
    source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool, is_applied: bool
) -> Outcome:
    """Look at the database of a source of any kind, make the plan, and run it if that is asked for."""
    import asyncio

    kinds = {"outbox": look_at_outbox, "notify": look_at_notifications}
    look = kinds.get(source.kind, look_at_slot)(source, wanted, request, is_removed=is_removed)
    outcome = asyncio.run(online(source, look, is_applied=is_applied))
    outcome.removes_by = "setup --drop" if is_removed else None
    return outcome


async def online(source: Source, look: Look, *, is_applied: bool) -> Outcome:
    """Look, and run the plan if that is asked for."""
    from invalidator.errors import ConfigError, SourceDisconnected
    from invalidator.postgres import provision

    async with await connected(source.dsn, source.role) as connection:
        server, plan = await look(connection)
        if not is_applied:
            return Outcome(plan, server)
        applied: list[Step] = []
        try:
            await provision.apply(connection, plan, report=applied.append)
        except (ConfigError, SourceDisconnected) as error:
            msg = f"{error}{_so_far(applied)}"
            raise type(error)(msg) from error
        server, plan = await look(connection)
        return Outcome(plan, server, tuple(applied), is_applied=True)


def _so_far(applied: list[Step]) -> str:
    """What an apply that failed had done by then."""
    from invalidator.yamlfile.diagnostic import printable

    if not applied:
        return "\n   = note: nothing has been changed"
    done = [f"\n   = done: {printable(line)}" for step in applied for line in _sql(step)]
    return "".join(done) + "\n   = note: this stands, and running it again goes on behind it"


async def connected(dsn: Dsn, role: str) -> AsyncConnection[Any]:
    """A connection; its errors say what else there is."""
    from invalidator.errors import ConfigError, SourceDisconnected
    from invalidator.postgres.connection import connect

    own = f"before the role '{role}' exists, connect as an owner of the tables: setup --dsn OWNER_DSN"
    password = (
        "check the password: PGPASSWORD, pgpass or the DSN. Postgres says the same of a role that does not exist:"
        f" while '{role}' does not, setup --dsn OWNER_DSN makes it"
    )
    try:
        return await connect(dsn, application_name="invalidator/setup")
    except SourceDisconnected as error:
        msg = f"{error}\n   = help: {own}\n   = help: setup --offline prints generic SQL without a connection"
        raise SourceDisconnected(msg) from error
    except ConfigError as error:
        asked = password if "password" in str(error) else own
        msg = f"{error}\n   = help: {asked}\n   = help: setup --offline prints generic SQL without a connection"
        raise ConfigError(msg) from error


def show(outcome: Outcome, *, as_json: bool) -> int:
    """Print the outcome; the result is the exit code."""
    click.echo(json.dumps(document(outcome), indent=2, ensure_ascii=False) if as_json else text(outcome))
    return outcome.exit_code


def finding_documents(outcome: Outcome) -> list[dict[str, Any]]:
    """The findings as JSON holds them."""
    return [finding_document(finding) for finding in outcome.plan.findings]


def finding_document(finding: Finding) -> dict[str, Any]:
    """A finding as JSON holds it."""
    return {"severity": severity(finding), "text": finding.text, "fix": finding.fix}


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON holds it."""
    return {
        "applied": [_step(step) for step in outcome.applied],
        "steps": [_step(step) for step in outcome.plan.steps],
        "findings": finding_documents(outcome),
        "ok": outcome.exit_code is Exit.FINE,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "purpose": step.purpose,
        "sql": list(step.texts),
        "why": step.why,
        "note": step.note,
        "advice": step.is_advice,
    }


def severity(finding: Finding) -> str:
    """A finding's, as people and JSON have it."""
    return "problem" if finding.is_problem else "note"


def text(outcome: Outcome) -> str:
    """SQL with everything else as comments, so that it can be piped into psql."""
    lines: list[str] = []
    if outcome.server is not None:
        server = outcome.server
        version = f"{server.version // 10000}.{server.version % 10000}"
        lines += comment(f"Postgres {version}, database {server.database}, as {server.user}")
    for step in outcome.applied:
        lines += ["", *comment(f"done: {step.why}"), *_note(step), *(f"-- {line}" for line in _sql(step))]
    if outcome.plan.to_run and not outcome.is_applied:
        again = f"{outcome.removes_by or 'setup'} --apply"
        lines += comment(f"nothing has been changed; run this as a role that owns the tables, or: {again}")
    for step in outcome.plan.steps:
        lead = "recommended: " if step.is_advice else ""
        sql = [f"-- {line}" for line in _sql(step)] if step.is_advice else _sql(step)
        lines += ["", *comment(lead + step.why), *_note(step), *sql]
    for finding in outcome.plan.findings:
        lines += ["", *finding_lines(finding)]
    if not outcome.plan.to_run and not outcome.plan.problems and not (outcome.is_up_to_others or outcome.has_more):
        what = "nothing is left to take away" if outcome.removes_by else "the database has all that the rules need"
        lines += ["", *comment(what)]
    return "\n".join(lines)


def finding_lines(finding: Finding) -> list[str]:
    """What is left for somebody to do, as comments."""
    said = comment(f"{severity(finding)}: {finding.text}")
    return [*said, *(comment(f"  fix: {finding.fix}") if finding.fix else [])]


def _note(step: Step) -> list[str]:
    return comment(f"  {step.note}") if step.note else []


def _sql(step: Step) -> list[str]:
    texts = step.texts
    if len(texts) == 1 or step.is_advice:
        return [line for text in texts for line in text.split("\n")]
    return ["BEGIN;", *(line for text in texts for line in text.split("\n")), "COMMIT;"]


def comment(text: str) -> list[str]:
    """Names in it may hold line breaks, and what follows one would be run as SQL."""
    from invalidator.yamlfile.diagnostic import printable

    return [f"-- {printable(line)}" for line in text.split("\n")]
