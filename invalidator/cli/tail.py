"""``invalidator tail``: what a running daemon does, while it does it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import settings_options


@click.command("tail", short_help="Watch what a running daemon does.")
@click.option("--table", "tables", multiple=True, metavar="GLOB", help='Rows of this table only, as in "public.*".')
@click.option("--rule", "rules", multiple=True, metavar="NAME", help="What this rule makes of rows only.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["keys", "tags", "patterns", "l1", "cdn"]),
    help="Names of this kind only.",
)
@click.option("--name", "names", multiple=True, metavar="GLOB", help='Names that match only, as in "user:42*".')
@click.option("--target", "targets", multiple=True, metavar="NAME", help="What happens at this target only.")
@click.option("--all", "wants_all", is_flag=True, help="Also rows for which a rule did not fire, with the reason.")
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="Begin with so many transactions that came before.",
)
@click.option("--socket", "path", metavar="PATH", help="Of the daemon.  [default: admin.socket of the settings]")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of text.")
def command(  # noqa: PLR0913  (one parameter per option)
    *,
    tables: tuple[str, ...],
    rules: tuple[str, ...],
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    targets: tuple[str, ...],
    wants_all: bool,
    last: int,
    path: str | None,
    settings_file: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show each transaction with its rows and the names that they made stale, what targets did, and the log.

    Each filter may be given again for more. With --table or --rule only rows are shown, with --target only what
    happens there. A daemon that is faster than this can show goes on undisturbed, and what was missed is counted. Ends
    with Ctrl-C, or when the daemon stops. Exit code 69: no daemon answers, or it is gone without a farewell.
    """
    from invalidator.cli import _admin

    query = {"table": tables, "rule": rules, "kind": kinds, "name": names, "target": targets, "last": [str(last)]}
    asked = {name: values for name, values in query.items() if values} | ({"all": ["1"]} if wants_all else {})
    try:
        socket = _admin.socket_path(path, settings_file, overrides)
        for record in _admin.follow(socket, f"/tail?{urlencode(asked, doseq=True)}"):
            _print(record, as_json=as_json)
            if record["record"] == "end":
                return Exit.FINE
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            click.echo()  # the line that begins with ^C
    return Exit.FINE


def _print(record: dict[str, Any], *, as_json: bool) -> None:
    from invalidator.cli.output.tail_lines import lines

    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        return
    color = False if os.environ.get("NO_COLOR") else None  # None: on a terminal only
    for line in lines(record):
        click.echo(line, color=color)
