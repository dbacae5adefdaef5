"""``invalidator snapshot-schema``: the facts that ``check`` needs of a database, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import load_settings, settings_options

if TYPE_CHECKING:
    from invalidator.postgres.connection import Dsn
    from invalidator.postgres.provision import Need


@click.command("snapshot-schema", short_help="Write what check needs of the database to a file.")
@settings_options
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Instead of standard output.")
@click.option("--dsn", metavar="DSN", help="Read this database instead of that of source.dsn.")
def command(settings_file: Path | None, overrides: tuple[str, ...], *, output: Path | None, dsn: str | None) -> int:
    """Write the tables that the rules name, with columns, indexes and replica identities, and their publications.

    `check --schema FILE` then finds in CI, without a database, what `check --online` would find there: misspelled
    columns, old values that are not sent, tables that are not published. The file holds no rows and no secrets, and
    two databases of the same schema give the same file: keep it beside the rules and write it again with each
    migration.
    """
    import asyncio

    from invalidator.cli.provisioning.source import needs_of
    from invalidator.errors import ConfigError
    from invalidator.sources import pgoutput

    settings = load_settings(settings_file, overrides)
    options = settings.source
    if not isinstance(options, pgoutput.Settings):
        msg = f"only a source of type 'pgoutput' has a schema to write; the settings say '{options.type}'"
        raise ConfigError(msg)
    address: Dsn = options.address if dsn is None else dsn
    text = asyncio.run(_read(address, needs_of(settings), options.slot, options.publication))
    if output is None:
        click.echo(text, nl=False)
        return Exit.FINE
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}"
        raise ConfigError(msg) from error
    click.echo(f"wrote {output}", err=True)
    return Exit.FINE


async def _read(dsn: Dsn, needs: tuple[Need, ...], slot: str, publication: str) -> str:
    from invalidator.postgres.connection import connect
    from invalidator.preflight import snapshot
    from invalidator.preflight.facts import gather

    async with await connect(dsn, application_name="invalidator/snapshot-schema") as connection:
        return snapshot.write(await gather(connection, needs, slot=slot, publication=publication))
