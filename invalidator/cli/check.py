"""``invalidator check``: whether settings and rules are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import has_settings, settings_options, split_overrides
from invalidator.cli.checking import rule_files
from invalidator.cli.checking.report import Report, report_options, show

if TYPE_CHECKING:
    from invalidator.config import Settings
    from invalidator.rules.document import Loaded


@click.command("check", short_help="Check settings and rules; with --online also database, Redis and CDNs.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@settings_options
@report_options
@click.option("--online", is_flag=True, help="Ask the database and every target of the settings too.")
@click.option(
    "--schema",
    "schema_file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Hold the rules against a file of snapshot-schema, without a database.",
)
@click.option("--explain", "explained", metavar="CODE", help="Print what a code means, and check nothing.")
def command(  # noqa: PLR0913  (one parameter per option)
    files: tuple[Path, ...],
    settings_file: Path | None,
    overrides: tuple[str, ...],
    explained: str | None,
    schema_file: Path | None,
    *,
    online: bool,
    strict: bool,
    form: str,
    as_json: bool,
) -> int:
    """Check the settings and the rules: syntax, names, templates, and what the CDNs can carry out.

    FILES are rule files, directories of them, or Markdown pages with rule files in blocks marked yaml; without any, the
    rule files of the settings. With FILES and no settings file, the rules alone are checked. Exit code 1 means that
    something is wrong.

    With --online it says also what the database lacks for the rules (tables, columns, old values, publication, slot,
    privileges) and whether each target would take our calls; nothing is changed there. Exit code 69: a server did not
    answer, so that not everything was checked.
    """
    if explained is not None:
        click.echo(_explanation(explained))
        return Exit.FINE
    if online and schema_file is not None:
        msg = "--online and --schema exclude each other"
        raise click.UsageError(msg)
    if online and any(map(rule_files.is_page, files)):
        msg = "--online looks at rule files, not at Markdown"
        raise click.UsageError(msg)
    report = Report()
    settings = _settings(report, settings_file, overrides, is_needed=online or not files)
    paths = list(files) or (list(settings.rules) if settings is not None else [])
    found = rule_files.check_files(report, paths, settings)
    is_answered = _elsewhere(report, settings, found, schema_file, online=online)
    show(report, "json" if as_json else form)
    return report.exit_code(strict=strict) if is_answered else Exit.UNREACHABLE


def _elsewhere(
    report: Report, settings: Settings | None, found: list[Loaded], schema_file: Path | None, *, online: bool
) -> bool:
    """Look beyond the files; False: a server did not answer."""
    from invalidator.cli.checking import servers

    if schema_file is not None and found:
        servers.check_schema(report, schema_file, found)
    return not online or settings is None or servers.check_servers(report, settings, found[0] if found else None)


def _explanation(name: str) -> str:
    from invalidator import codes
    from invalidator.telemetry.problems import CODES

    code = codes.find(name)
    problem = (
        f"`{name}` is a problem of a running daemon: docs/operations/{name}.md tells what it means and what to do."
    )
    if code is not None:
        return codes.page(code) + (f"\n\n{problem}" if name in CODES else "")
    if name not in CODES:
        import difflib

        near = codes.similar(name) + difflib.get_close_matches(name, CODES, 1, 0.7)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join([*codes.all_codes(), *CODES])}"
        msg = f"there is no code '{name}': {hint}"
        raise click.UsageError(msg)
    return problem


def _settings(
    report: Report, settings_file: Path | None, overrides: tuple[str, ...], *, is_needed: bool
) -> Settings | None:
    from invalidator import config
    from invalidator.config.doubts import bounds_unused, debts_unwritten, pooled, unheard
    from invalidator.errors import ConfigError

    if not (is_needed or has_settings(settings_file)):
        return None
    try:
        settings = config.load(settings_file, split_overrides(overrides))
    except ConfigError as error:
        report.add_error(error)
        return None
    doubts = (pooled, unheard, bounds_unused, debts_unwritten)
    report.add([each for doubt in doubts for each in doubt(settings)], _text_of(settings.file))
    return settings


def _text_of(file: Path | None) -> dict[str, str]:
    return {} if file is None else {str(file): file.read_text(encoding="utf-8-sig", errors="replace")}
