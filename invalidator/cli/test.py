"""``invalidator test``: whether the rules do what their own tests say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import load_settings, settings_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.ports import TagGrammar

FORMATS = ("text", "json", "junit")


@click.command("test", short_help="Run the tests that stand in the rule files.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@settings_options
@click.option("-k", "select", metavar="TEXT", default="", help="Only tests whose name holds this text.")
@click.option("--coverage", is_flag=True, help="Also list the rules and templates that no test fires.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="junit: XML that CI systems show as test results.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    files: tuple[Path, ...],
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    select: str,
    coverage: bool,
    form: str,
    as_json: bool,
) -> int:
    """Run the tests in the rule files: one change each, and exactly what all rules together must make of it.

    FILES are rule files or directories of them; without any, those of the settings. With FILES and no settings file,
    what the CDNs take as a tag is not looked at. Nothing is connected to and nothing is dropped. Exit code 1 means
    that a test fails, 78 that the rules cannot be used at all.
    """
    from invalidator.cli import _test_output
    from invalidator.rules import document, testing

    paths, grammars = _inputs(files, settings_file, overrides)
    loaded = document.load_with_warnings(paths)
    report = testing.run(loaded, cdn_grammars=grammars, select=select)
    shown = _test_output.Shown(loaded, report, testing.untested_templates(loaded, report) if coverage else None)
    click.echo(_test_output.RENDERERS["json" if as_json else form](shown))
    return Exit.PROBLEMS if report.failures or not report.results else Exit.FINE


def _inputs(
    files: tuple[Path, ...], settings_file: Path | None, overrides: tuple[str, ...]
) -> tuple[Sequence[Path], list[TagGrammar]]:
    """The rule files, and what the configured CDNs take."""
    import os

    from invalidator import config
    from invalidator.config.agreement import tag_grammars

    is_given = settings_file is not None or bool(os.environ.get("INVALIDATOR_SETTINGS")) or config.DEFAULT_PATH.exists()
    if files and not is_given:
        return files, []
    settings = load_settings(settings_file, overrides)
    return files or settings.rules, list(tag_grammars(settings).values())
