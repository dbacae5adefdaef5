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
    from invalidator.config import Settings
    from invalidator.postgres.provision import Facts, Finding, Need, Plan, Request, Step


@click.command("setup", short_help="Print or run the SQL that your database needs for your rules.")
@settings_options
@click.option("--apply", "is_applied", is_flag=True, help="Run the SQL. What is there already is left or altered.")
@click.option("--offline", is_flag=True, help="Do not connect: print generic SQL that is safe on every database.")
@click.option(
    "--dsn",
    metavar="DSN",
    help="Connect as an owner of the tables instead of by source.dsn. Keep passwords out of it: PGPASSWORD, pgpass.",
)
@click.option("--role", metavar="NAME", help="The daemon's role.  [default: the user of source.dsn, or invalidator]")
@click.option("--keep-identity", is_flag=True, help="Never ALTER TABLE … REPLICA IDENTITY: rules widen instead.")
@json_option
def command(  # noqa: PLR0913  (one parameter per option)
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    is_applied: bool,
    offline: bool,
    dsn: str | None,
    role: str | None,
    keep_identity: bool,
    as_json: bool,
) -> int:
    """Print the exact SQL for role, grants, publication, replica identity and slot, or run it with --apply.

    It is worked out from your rules and from what the database holds already, and it never contains a statement that
    could make an UPDATE or DELETE of your application fail: a table for which that cannot be ruled out is left out,
    with the reason and the fix. The output is valid SQL for psql. Exit code 1 means that something is left for you.
    """
    if offline and is_applied:
        msg = "--offline and --apply exclude each other"
        raise click.UsageError(msg)
    from invalidator.config.needs import needs
    from invalidator.rules import document

    settings = load_settings(settings_file, overrides)
    source = _Source.of(settings, dsn=dsn, role=role)
    wanted = needs(document.load(settings.rules).rules)
    request = source.request(may_alter_tables=not keep_identity)
    if offline:
        from invalidator.postgres.provision import offline_plan

        return _show(_Outcome(offline_plan(wanted, request)), as_json=as_json)
    import asyncio

    return _show(asyncio.run(_online(source.dsn, wanted, request, is_applied=is_applied)), as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the settings of a Postgres source say, as far as set-up needs it."""

    dsn: str
    slot: str
    publication: str
    role: str

    @classmethod
    def of(cls, settings: Settings, *, dsn: str | None, role: str | None) -> _Source:
        import os

        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        from invalidator.errors import ConfigError
        from invalidator.sources import pgoutput

        options = settings.source
        if not isinstance(options, pgoutput.Settings):
            msg = f"setup prepares Postgres for source type 'pgoutput'; the settings say '{options.type}'"
            raise ConfigError(msg)
        written = options.dsn.get_secret_value()
        try:
            user = conninfo_to_dict(written).get("user") if written else os.environ.get("PGUSER")
        except ProgrammingError:
            msg = "source.dsn cannot be read: it must look like postgresql://user@host:5432/database"
            raise ConfigError(msg) from None  # the driver's text quotes the DSN
        return cls(
            dsn=written if dsn is None else dsn,
            slot=options.slot,
            publication=options.publication,
            role=role or (str(user) if user else "invalidator"),
        )

    def request(self, *, may_alter_tables: bool) -> Request:
        from invalidator.postgres.provision import Request

        return Request(self.slot, self.publication, self.role, may_alter_tables=may_alter_tables)


@dataclass(slots=True)
class _Outcome:
    """A plan, and what was done of it."""

    plan: Plan
    facts: Facts | None = None
    applied: tuple[Step, ...] = ()
    is_applied: bool = False

    @property
    def exit_code(self) -> Exit:
        return Exit.PROBLEMS if self.plan.problems or (self.is_applied and self.plan.to_run) else Exit.FINE


async def _online(dsn: str, wanted: tuple[Need, ...], request: Request, *, is_applied: bool) -> _Outcome:
    from invalidator.errors import SourceDisconnected
    from invalidator.postgres import provision
    from invalidator.postgres.connection import connect

    try:
        connection = await connect(dsn, application_name="invalidator/setup")
    except SourceDisconnected as error:
        msg = f"{error}\n   = help: setup --offline prints generic SQL without a connection"
        raise SourceDisconnected(msg) from error
    async with connection:
        found = await provision.facts(connection, wanted, request)
        plan = provision.plan(wanted, found, request)
        if not is_applied:
            return _Outcome(plan, found)
        applied: list[Step] = []
        await provision.apply(connection, plan, report=applied.append)
        found = await provision.facts(connection, wanted, request)
        return _Outcome(provision.plan(wanted, found, request), found, tuple(applied), is_applied=True)


def _show(outcome: _Outcome, *, as_json: bool) -> int:
    click.echo(json.dumps(_document(outcome), indent=2, ensure_ascii=False) if as_json else _text(outcome))
    return outcome.exit_code


def _document(outcome: _Outcome) -> dict[str, Any]:
    return {
        "applied": [_step(step) for step in outcome.applied],
        "steps": [_step(step) for step in outcome.plan.steps],
        "findings": [
            {"severity": _severity(finding), "text": finding.text, "fix": finding.fix}
            for finding in outcome.plan.findings
        ],
        "ok": outcome.exit_code is Exit.FINE,
    }


def _step(step: Step) -> dict[str, Any]:
    return {"purpose": step.purpose, "sql": list(step.texts), "why": step.why, "advice": step.is_advice}


def _severity(finding: Finding) -> str:
    return "problem" if finding.is_problem else "note"


def _text(outcome: _Outcome) -> str:
    """SQL with everything else as comments, so that it can be piped into psql."""
    lines: list[str] = []
    if outcome.facts is not None:
        server = outcome.facts.server
        version = f"{server.version // 10000}.{server.version % 10000}"
        lines += _comment(f"Postgres {version}, database {server.database}, as {server.user}")
    for step in outcome.applied:
        lines += ["", *_comment(f"done: {step.why}"), *(f"-- {line}" for line in _sql(step))]
    if outcome.plan.to_run and not outcome.is_applied:
        lines += _comment("nothing has been changed; run this as a role that owns the tables, or: setup --apply")
    for step in outcome.plan.steps:
        lead = "recommended: " if step.is_advice else ""
        sql = [f"-- {line}" for line in _sql(step)] if step.is_advice else _sql(step)
        lines += ["", *_comment(lead + step.why), *sql]
    for finding in outcome.plan.findings:
        lines += ["", *_comment(f"{_severity(finding)}: {finding.text}")]
        lines += _comment(f"  fix: {finding.fix}") if finding.fix else []
    if not outcome.plan.to_run and not outcome.plan.problems:
        lines += ["", *_comment("the database has all that the rules need")]
    return "\n".join(lines)


def _sql(step: Step) -> list[str]:
    texts = step.texts
    if len(texts) == 1 or step.is_advice:
        return [line for text in texts for line in text.split("\n")]
    return ["BEGIN;", *(line for text in texts for line in text.split("\n")), "COMMIT;"]


def _comment(text: str) -> list[str]:
    """Names in it may hold line breaks, and what follows one would be run as SQL."""
    from invalidator.yamlfile.diagnostic import printable

    return [f"-- {printable(line)}" for line in text.split("\n")]
