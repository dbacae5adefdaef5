"""``invalidator setup``: the SQL that makes a database ready, and running it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, load_settings, settings_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg import AsyncConnection

    from invalidator.config import Settings
    from invalidator.postgres.catalog import Server
    from invalidator.postgres.provision import Finding, Mark, Need, Plan, Request, Step

    Look = Callable[[AsyncConnection[Any]], Awaitable[tuple[Server, Plan]]]


KINDS = ("pgoutput", "outbox", "notify")


@click.command("setup", short_help="Print or run the SQL that your database needs for your rules.")
@settings_options
@click.option(
    "--source",
    "kind",
    type=click.Choice(KINDS),
    help="What brings the changes: logical replication, triggers that write an outbox, or notifications of the"
    " application.  [default: source.type]",
)
@click.option("--apply", "is_applied", is_flag=True, help="Run the SQL. What is there already is left or altered.")
@click.option("--drop", "is_removed", is_flag=True, help="The SQL that takes it away again; with --apply, run it.")
@click.option("--diff", "is_compared", is_flag=True, help="What is there against what is wanted: + - ~ = per object.")
@click.option("--offline", is_flag=True, help="Do not connect: print generic SQL that is safe on every database.")
@click.option(
    "--dsn",
    metavar="DSN",
    help="Connect as an owner of the tables instead of by source.dsn. Keep passwords out of it: PGPASSWORD, pgpass.",
)
@click.option("--role", metavar="NAME", help="The daemon's role.  [default: the user of source.dsn, or invalidator]")
@click.option(
    "--provider",
    type=click.Choice(["self", "rds", "cloudsql", "azure", "neon", "supabase"]),
    help="Whose managed Postgres it is.  [default: told from the roles there]",
)
@click.option("--keep-identity", is_flag=True, help="Never ALTER TABLE … REPLICA IDENTITY: rules widen instead.")
@click.option("--no-row-filters", is_flag=True, help="Publish all rows, also where a filter would lose nothing.")
@click.option("--no-failover", is_flag=True, help="Postgres 17 and newer: a slot of which standbys keep no copy.")
@json_option
def command(  # noqa: PLR0913  (one parameter per option)
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    kind: str | None,
    is_applied: bool,
    is_removed: bool,
    is_compared: bool,
    offline: bool,
    dsn: str | None,
    role: str | None,
    provider: str | None,
    keep_identity: bool,
    no_row_filters: bool,
    no_failover: bool,
    as_json: bool,
) -> int:
    """Print the exact SQL for role, grants, publication, replica identity and slot, or run it with --apply.

    With --source outbox: for the outbox table and the triggers that write into it. With --source notify: for the role,
    and as a recommendation, triggers that notify.

    It is worked out from your rules and from what the database holds already, and it never contains a statement that
    could make an UPDATE or DELETE of your application fail: a table for which that cannot be ruled out is left out,
    with the reason and the fix. The output is valid SQL for psql. Exit code 1 means that something is left for you,
    or, with --diff, that something differs.
    """
    _refuse_contradictions(is_applied=is_applied, is_removed=is_removed, is_compared=is_compared, offline=offline)
    from invalidator.config.needs import needs
    from invalidator.postgres.provision import Provider, Request
    from invalidator.rules import document

    settings = load_settings(settings_file, overrides)
    source = _Source.of(settings, kind=kind, dsn=dsn, role=role)
    wanted = needs(document.load(settings.rules).rules)
    request = Request(
        source.slot,
        source.publication,
        source.role,
        may_alter_tables=not keep_identity,
        may_filter=not no_row_filters,
        wants_failover=not no_failover,
        provider=None if provider is None else Provider(provider),
    )
    if offline:
        from invalidator.postgres.provision import offline_plan

        source.refuse_offline()
        return _show(_Outcome(offline_plan(wanted, request)), as_json=as_json)
    import asyncio

    look = {"outbox": _look_at_outbox, "notify": _look_at_notifications}.get(source.kind, _look_at_slot)
    coroutine = _online(source, look(source, wanted, request, is_removed=is_removed), is_applied=is_applied)
    outcome = asyncio.run(coroutine)
    outcome.is_removed = is_removed
    return _show_difference(outcome, as_json=as_json) if is_compared else _show(outcome, as_json=as_json)


def _refuse_contradictions(*, is_applied: bool, is_removed: bool, is_compared: bool, offline: bool) -> None:
    chosen = {"--offline": offline, "--apply": is_applied, "--diff": is_compared, "--drop": is_removed}
    for first, second in (
        ("--offline", "--apply"),
        ("--offline", "--diff"),
        ("--offline", "--drop"),
        ("--diff", "--apply"),
        ("--diff", "--drop"),
    ):
        if chosen[first] and chosen[second]:
            msg = f"{first} and {second} exclude each other"
            raise click.UsageError(msg)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the settings of a source in Postgres say, as far as set-up needs it."""

    kind: str
    dsn: str
    role: str
    slot: str = "invalidator"
    publication: str = "invalidator"
    channel: str = "cache_changes"
    wakes: bool = False
    fires_always: bool = False

    @classmethod
    def of(cls, settings: Settings, *, kind: str | None, dsn: str | None, role: str | None) -> _Source:
        import os

        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        from invalidator.errors import ConfigError
        from invalidator.postgres.notify.options import NotifyOptions
        from invalidator.postgres.options import DatabaseOptions, StreamOptions
        from invalidator.postgres.outbox.options import OutboxOptions

        options = settings.source
        if not isinstance(options, DatabaseOptions) or (kind or options.type) not in KINDS:
            msg = f"setup prepares Postgres for source types {', '.join(KINDS)}; the settings say '{options.type}'"
            raise ConfigError(msg)
        written = options.dsn.get_secret_value()
        try:
            user = conninfo_to_dict(written).get("user") if written else os.environ.get("PGUSER")
        except ProgrammingError:
            msg = "source.dsn cannot be read: it must look like postgresql://user@host:5432/database"
            raise ConfigError(msg) from None  # the driver's text quotes the DSN
        more: dict[str, Any] = {}
        if isinstance(options, StreamOptions):
            more = {"slot": options.slot, "publication": options.publication}
        elif isinstance(options, NotifyOptions):
            more = {"channel": options.channels[0]}
        elif isinstance(options, OutboxOptions):
            more = {"wakes": options.wake == "notify", "fires_always": options.fire_always}
        return cls(
            kind=kind or options.type,
            dsn=written if dsn is None else dsn,
            role=role or (str(user) if user else "invalidator"),
            **more,
        )

    def refuse_offline(self) -> None:
        if self.kind != "pgoutput":
            msg = f"--offline knows nothing of '{self.kind}': what triggers write depends on the columns of your tables"
            raise click.UsageError(msg)


@dataclass(slots=True)
class _Outcome:
    """A plan, and what was done of it."""

    plan: Plan
    server: Server | None = None
    applied: tuple[Step, ...] = ()
    is_applied: bool = False
    is_removed: bool = False

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


def _look_at_slot(source: _Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    from invalidator.postgres import provision

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        if is_removed:
            found = await provision.removal_facts(connection, wanted, request)
            return found.server, provision.removal(wanted, found, request)
        found = await provision.facts(connection, wanted, request)
        return found.server, provision.plan(wanted, found, request)

    return look


def _look_at_outbox(source: _Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    from invalidator.postgres import provision

    own = provision.OutboxRequest(request.role, fires_always=source.fires_always, wakes=source.wakes)

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        found = await provision.outbox_facts(connection, wanted, own)
        plan = provision.outbox_removal(found) if is_removed else provision.outbox_plan(wanted, found, own)
        return found.server, plan

    return look


def _look_at_notifications(source: _Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    from invalidator.postgres import provision

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        found = await provision.outbox_facts(connection, wanted, provision.OutboxRequest(request.role))
        if is_removed:
            return found.server, provision.notify_removal(found)
        return found.server, provision.notify_plan(wanted, found, request.role, source.channel)

    return look


async def _online(source: _Source, look: Look, *, is_applied: bool) -> _Outcome:
    from invalidator.errors import ConfigError, SourceDisconnected
    from invalidator.postgres import provision

    async with await _connected(source.dsn, source.role) as connection:
        server, plan = await look(connection)
        if not is_applied:
            return _Outcome(plan, server)
        applied: list[Step] = []
        try:
            await provision.apply(connection, plan, report=applied.append)
        except (ConfigError, SourceDisconnected) as error:
            msg = f"{error}{_so_far(applied)}"
            raise type(error)(msg) from error
        server, plan = await look(connection)
        return _Outcome(plan, server, tuple(applied), is_applied=True)


def _so_far(applied: list[Step]) -> str:
    """What an apply that failed had done by then."""
    from invalidator.yamlfile.diagnostic import printable

    if not applied:
        return "\n   = note: nothing has been changed"
    done = [f"\n   = done: {printable(line)}" for step in applied for line in _sql(step)]
    return "".join(done) + "\n   = note: this stands, and setup --apply goes on behind it"


async def _connected(dsn: str, role: str) -> AsyncConnection[Any]:
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


def _show(outcome: _Outcome, *, as_json: bool) -> int:
    click.echo(json.dumps(_document(outcome), indent=2, ensure_ascii=False) if as_json else _text(outcome))
    return outcome.exit_code


def _show_difference(outcome: _Outcome, *, as_json: bool) -> int:
    from invalidator.yamlfile.diagnostic import printable

    marks = sorted(outcome.plan.marks, key=lambda mark: "-~+=".index(mark.sign))
    differs = bool(outcome.differing) or bool(outcome.plan.problems)
    if as_json:
        objects = [{"sign": mark.sign, "object": mark.what, "detail": mark.detail} for mark in marks]
        document = {"objects": objects, "findings": _findings(outcome), "ok": not differs}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for mark in marks:
            click.echo(printable(f"{mark.sign} {mark.what}{f': {mark.detail}' if mark.detail else ''}"))
        for finding in outcome.plan.findings:
            click.echo("\n".join(["", *_comment(f"{_severity(finding)}: {finding.text}"), *_fix(finding)]))
    return Exit.PROBLEMS if differs else Exit.FINE


def _findings(outcome: _Outcome) -> list[dict[str, Any]]:
    return [
        {"severity": _severity(finding), "text": finding.text, "fix": finding.fix} for finding in outcome.plan.findings
    ]


def _document(outcome: _Outcome) -> dict[str, Any]:
    return {
        "applied": [_step(step) for step in outcome.applied],
        "steps": [_step(step) for step in outcome.plan.steps],
        "findings": _findings(outcome),
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


def _severity(finding: Finding) -> str:
    return "problem" if finding.is_problem else "note"


def _text(outcome: _Outcome) -> str:
    """SQL with everything else as comments, so that it can be piped into psql."""
    lines: list[str] = []
    if outcome.server is not None:
        server = outcome.server
        version = f"{server.version // 10000}.{server.version % 10000}"
        lines += _comment(f"Postgres {version}, database {server.database}, as {server.user}")
    for step in outcome.applied:
        lines += ["", *_comment(f"done: {step.why}"), *_note(step), *(f"-- {line}" for line in _sql(step))]
    if outcome.plan.to_run and not outcome.is_applied:
        again = "setup --drop --apply" if outcome.is_removed else "setup --apply"
        lines += _comment(f"nothing has been changed; run this as a role that owns the tables, or: {again}")
    for step in outcome.plan.steps:
        lead = "recommended: " if step.is_advice else ""
        sql = [f"-- {line}" for line in _sql(step)] if step.is_advice else _sql(step)
        lines += ["", *_comment(lead + step.why), *_note(step), *sql]
    for finding in outcome.plan.findings:
        lines += ["", *_comment(f"{_severity(finding)}: {finding.text}")]
        lines += _fix(finding)
    if not outcome.plan.to_run and not outcome.plan.problems and not outcome.is_up_to_others:
        what = "nothing is left to take away" if outcome.is_removed else "the database has all that the rules need"
        lines += ["", *_comment(what)]
    return "\n".join(lines)


def _fix(finding: Finding) -> list[str]:
    return _comment(f"  fix: {finding.fix}") if finding.fix else []


def _note(step: Step) -> list[str]:
    return _comment(f"  {step.note}") if step.note else []


def _sql(step: Step) -> list[str]:
    texts = step.texts
    if len(texts) == 1 or step.is_advice:
        return [line for text in texts for line in text.split("\n")]
    return ["BEGIN;", *(line for text in texts for line in text.split("\n")), "COMMIT;"]


def _comment(text: str) -> list[str]:
    """Names in it may hold line breaks, and what follows one would be run as SQL."""
    from invalidator.yamlfile.diagnostic import printable

    return [f"-- {printable(line)}" for line in text.split("\n")]
