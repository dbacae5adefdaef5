"""``invalidator test``: whether the rules do what their own tests say."""

from __future__ import annotations

from pathlib import Path

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import has_settings, load_settings, settings_options

FORMATS = ("text", "json", "junit")


@click.command("test", short_help="Run the tests that stand in the rule files.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@settings_options
@click.option("-k", "select", metavar="TEXT", default="", help="Only tests whose name holds this text.")
@click.option("--coverage", is_flag=True, help="Also list the rules and templates that no test fires.")
@click.option(
    "--online",
    is_flag=True,
    help="Run the lookups for which a test says nothing in the database, read-only.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="junit: XML that CI systems show as test results.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(  # noqa: PLR0913  (one parameter per option)
    files: tuple[Path, ...],
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    select: str,
    coverage: bool,
    online: bool,
    form: str,
    as_json: bool,
) -> int:
    """Run the tests in the rule files: one change each, and exactly what all rules together must make of it.

    FILES are rule files or directories of them; without any, those of the settings. With FILES and no settings file,
    what the CDNs take as a tag is not looked at. Nothing is dropped. Exit code 1 means
    that a test fails, 78 that the rules cannot be used at all.

    Lookups are answered by the rows that a test gives under `lookup:`. With --online, those of other tests run in the
    database of the settings, in read-only transactions: such tests need data that is there.
    """
    from invalidator.cli.explaining import lookups
    from invalidator.cli.output import test_results
    from invalidator.config.agreement import tag_grammars
    from invalidator.rules import document, testing

    is_needed = online or not files or has_settings(settings_file)
    settings = load_settings(settings_file, overrides) if is_needed else None
    loaded = document.load_with_warnings(files or ([] if settings is None else settings.rules))
    grammars = [] if settings is None else list(tag_grammars(settings).values())
    otherwise = lookups.online(settings) if online and settings is not None else None
    report = testing.run(loaded, cdn_grammars=grammars, select=select, otherwise=otherwise)
    shown = test_results.Shown(loaded, report, testing.untested_templates(loaded, report) if coverage else None)
    click.echo(test_results.RENDERERS["json" if as_json else form](shown))
    return Exit.PROBLEMS if report.failures or not report.results else Exit.FINE
