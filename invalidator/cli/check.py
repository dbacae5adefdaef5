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
    from invalidator.ports import TagGrammar
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

    FILES are rule files or directories of them; without any, those of the settings. With FILES and no settings file,
    the rules alone are checked. Exit code 1 means that something is wrong.

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
    report = Report()
    settings = _settings(report, settings_file, overrides, is_needed=online or not files)
    paths = list(files) or (list(settings.rules) if settings is not None else [])
    loaded = _rules(report, paths, settings) if paths else None
    is_answered = _elsewhere(report, settings, loaded, schema_file, online=online)
    show(report, "json" if as_json else form)
    return report.exit_code(strict=strict) if is_answered else Exit.UNREACHABLE


def _elsewhere(
    report: Report, settings: Settings | None, loaded: Loaded | None, schema_file: Path | None, *, online: bool
) -> bool:
    """Look beyond the files; False: a server did not answer."""
    from invalidator.cli import _online

    if schema_file is not None and loaded is not None:
        _online.check_schema(report, schema_file, loaded)
    return not online or settings is None or _online.check_servers(report, settings, loaded)


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
    from invalidator.config.doubts import pooled
    from invalidator.errors import ConfigError

    is_given = settings_file is not None or bool(os.environ.get("INVALIDATOR_SETTINGS")) or config.DEFAULT_PATH.exists()
    if not (is_needed or is_given):
        return None
    try:
        settings = config.load(settings_file, split_overrides(overrides))
    except ConfigError as error:
        report.add_error(error)
        return None
    report.add(pooled(settings), _text_of(settings.file))
    return settings


def _text_of(file: Path | None) -> dict[str, str]:
    return {} if file is None else {str(file): file.read_text(encoding="utf-8-sig", errors="replace")}


def _rules(report: Report, paths: list[Path], settings: Settings | None) -> Loaded | None:
    from invalidator.config.agreement import disagreements, tag_grammars
    from invalidator.config.doubts import unserved
    from invalidator.errors import ConfigError
    from invalidator.rules import document, testing

    try:
        loaded = document.load_with_warnings(paths)
    except ConfigError as error:
        report.add_error(error)
        _count_broken(report, paths)
        return None
    report.add(loaded.warnings, loaded.sources)
    report.rules, report.files = len(loaded.ruleset.rules), len(loaded.sources)
    grammars: list[TagGrammar] = []
    if settings is not None:
        report.add(disagreements(settings, loaded.ruleset, loaded.sources))
        report.add(unserved(settings, loaded.ruleset, loaded.sources))
        grammars = list(tag_grammars(settings).values())
    report.add(testing.findings(loaded, cdn_grammars=grammars))
    report.counted += [f"{len(loaded.tests)} test{'s' * (len(loaded.tests) != 1)}"] * bool(loaded.tests)
    return loaded


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
