"""``invalidator check``: whether settings and rules are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import settings_options, split_overrides
from invalidator.cli._report import Report, report_options, show

if TYPE_CHECKING:
    from invalidator.config import Settings


@click.command("check", short_help="Check settings and rules without connecting to anything.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@settings_options
@report_options
@click.option("--explain", "explained", metavar="CODE", help="Print what a code means, and check nothing.")
def command(
    files: tuple[Path, ...],
    settings_file: Path | None,
    overrides: tuple[str, ...],
    explained: str | None,
    *,
    strict: bool,
    form: str,
    as_json: bool,
) -> int:
    """Check the settings and the rules: syntax, names, templates, and what the CDNs can carry out.

    FILES are rule files or directories of them; without any, those of the settings. With FILES and no settings file,
    the rules alone are checked. Exit code 1 means that something is wrong.
    """
    if explained is not None:
        click.echo(_explanation(explained))
        return Exit.FINE
    report = Report()
    settings = _settings(report, settings_file, overrides, is_needed=not files)
    paths = list(files) or (list(settings.rules) if settings is not None else [])
    if paths:
        _rules(report, paths, settings)
    show(report, "json" if as_json else form)
    return report.exit_code(strict=strict)


def _explanation(name: str) -> str:
    from invalidator import codes

    code = codes.find(name)
    if code is None:
        near = codes.similar(name)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(codes.all_codes())}"
        msg = f"there is no code '{name}': {hint}"
        raise click.UsageError(msg)
    return codes.page(code)


def _settings(
    report: Report, settings_file: Path | None, overrides: tuple[str, ...], *, is_needed: bool
) -> Settings | None:
    import os

    from invalidator import config
    from invalidator.errors import ConfigError

    is_given = settings_file is not None or bool(os.environ.get("INVALIDATOR_SETTINGS")) or config.DEFAULT_PATH.exists()
    if not (is_needed or is_given):
        return None
    try:
        return config.load(settings_file, split_overrides(overrides))
    except ConfigError as error:
        report.add_error(error)
        return None


def _rules(report: Report, paths: list[Path], settings: Settings | None) -> None:
    from invalidator.config.agreement import disagreements
    from invalidator.errors import ConfigError
    from invalidator.rules import document

    try:
        loaded = document.load_with_warnings(paths)
    except ConfigError as error:
        report.add_error(error)
        _count_broken(report, paths)
        return
    report.add(loaded.warnings, loaded.sources)
    report.rules, report.files = len(loaded.ruleset.rules), len(loaded.sources)
    if settings is not None:
        report.add(disagreements(settings, loaded.ruleset, loaded.sources))


def _count_broken(report: Report, paths: list[Path]) -> None:
    """How many rules there seem to be, for the summary."""
    from invalidator import yamlfile

    files = {file for path in paths for file in (path.glob("*.y*ml") if path.is_dir() else [path])}
    report.files = len(files)
    for file in files:
        try:
            data = yamlfile.read(file).data
        except yamlfile.Invalid:
            continue
        rules = data.get("rules") if isinstance(data, dict) else None
        report.rules += len(rules) if isinstance(rules, list) else 0
