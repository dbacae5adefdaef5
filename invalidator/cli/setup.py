"""``invalidator setup``: the SQL that makes a database ready, and running it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, load_settings, settings_options
from invalidator.cli.provisioning import plan, script
from invalidator.cli.provisioning.outcome import Outcome
from invalidator.cli.provisioning.source import KINDS, Source, needs_of, owner_options

_EXCLUDE = {"--offline": ("--apply", "--diff", "--drop", "--ddl-hook"), "--diff": ("--apply", "--drop")}


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
@owner_options
@click.option(
    "--provider",
    type=click.Choice(["self", "rds", "cloudsql", "azure", "neon", "supabase"]),
    help="Whose managed Postgres it is.  [default: told from the roles there]",
)
@click.option("--keep-identity", is_flag=True, help="Never ALTER TABLE … REPLICA IDENTITY: rules widen instead.")
@click.option("--no-row-filters", is_flag=True, help="Publish all rows, also where a filter would lose nothing.")
@click.option("--no-failover", is_flag=True, help="Postgres 17 and newer: a slot of which standbys keep no copy.")
@click.option("--ddl-hook", "hooks", is_flag=True, help="Event triggers that tell the stream of DDL; for superusers.")
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
    hooks: bool,
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
    chosen = {"--offline": offline, "--apply": is_applied, "--diff": is_compared, "--drop": is_removed}
    _refuse_contradictions({**chosen, "--ddl-hook": hooks})
    from invalidator.postgres.provision import Provider, Request, offline_plan

    settings = load_settings(settings_file, overrides)
    source = Source.of(settings, kind=kind, dsn=dsn, role=role)
    source.refuse_hook(is_asked_for=hooks)
    needs = needs_of(settings)
    request = Request(
        source.slot,
        source.publication,
        source.role,
        may_alter_tables=not keep_identity,
        may_filter=not no_row_filters,
        wants_failover=not no_failover,
        wants_hook=hooks,
        provider=None if provider is None else Provider(provider),
    )
    if offline:
        source.refuse_offline()
        return script.show(Outcome(offline_plan(needs, request)), as_json=as_json)
    outcome = plan.look_and_run(source, needs, request, is_removed=is_removed, is_applied=is_applied)
    return _show_difference(outcome, as_json=as_json) if is_compared else script.show(outcome, as_json=as_json)


def _refuse_contradictions(chosen: dict[str, bool]) -> None:
    for first, second in ((first, second) for first, others in _EXCLUDE.items() for second in others):
        if chosen[first] and chosen[second]:
            msg = f"{first} and {second} exclude each other"
            raise click.UsageError(msg)


def _show_difference(outcome: Outcome, *, as_json: bool) -> int:
    from invalidator.yamlfile.diagnostic import printable

    marks = sorted(outcome.plan.marks, key=lambda mark: "-~+=".index(mark.sign))
    differs = bool(outcome.differing) or bool(outcome.plan.problems)
    if as_json:
        objects = [{"sign": mark.sign, "object": mark.what, "detail": mark.detail} for mark in marks]
        document = {"objects": objects, "findings": script.finding_documents(outcome), "ok": not differs}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for mark in marks:
            click.echo(printable(f"{mark.sign} {mark.what}{f': {mark.detail}' if mark.detail else ''}"))
        for finding in outcome.plan.findings:
            click.echo("\n".join(["", *script.finding_lines(finding)]))
    return Exit.PROBLEMS if differs else Exit.FINE
