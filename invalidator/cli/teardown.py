"""``invalidator teardown``: takes away all that the product left, and nothing that is not proved to be its own."""

from __future__ import annotations

import json
from pathlib import Path

import click

from invalidator.cli._options import json_option, load_settings, settings_options
from invalidator.cli.provisioning.source import KINDS, Source, needs_of, owner_options


@click.command("teardown", short_help="Take away what the daemon and setup left.")
@click.option("--apply", "is_applied", is_flag=True, help="Do it. Without this nothing is changed.")
@click.option(
    "--source",
    "kind",
    type=click.Choice(KINDS),
    help="What of: slot and publication, triggers and outbox, or notifications.  [default: source.type]",
)
@owner_options
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

    from invalidator.cli.provisioning.removal import tear_down
    from invalidator.postgres.provision import Request

    settings = load_settings(settings_file, overrides)
    source = Source.of(settings, kind=kind, dsn=dsn, role=role)
    request = Request(source.slot, source.publication, source.role)
    removal = asyncio.run(tear_down(settings, source, needs_of(settings), request, is_applied=is_applied))
    click.echo(json.dumps(removal.document(), indent=2, ensure_ascii=False) if as_json else removal.text())
    return removal.exit_code
