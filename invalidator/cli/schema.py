"""``invalidator schema``: the JSON Schemas for editors, as they are shipped."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from invalidator.cli._exits import Exit


@click.command("schema", short_help="Print the JSON Schema of rule files or settings, for editors.")
@click.argument("what", type=click.Choice(["rules", "settings"]))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it there, and say what makes editors use it.",
)
def command(what: str, output: Path | None) -> int:
    """Print the JSON Schema of rule files (rules) or of the settings file (settings).

    An editor that has it completes fields, shows what they mean, and marks mistakes where `invalidator check` does.
    """
    text = resources.files("invalidator").joinpath("schema", f"{what}.json").read_text(encoding="utf-8")
    if output is None:
        click.echo(text, nl=False)
        return Exit.FINE
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(output), error.strerror) from None
    click.echo(f"wrote {output}; in the files that it is for, make the first line one of")
    click.echo(f"  # yaml-language-server: $schema={output.name}    VS Code, Neovim, Helix, Emacs")
    click.echo(f"  # $schema: {output.name}    IntelliJ")
    click.echo("with the path as seen from that file")
    return Exit.FINE
