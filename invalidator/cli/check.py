"""``invalidator check``: whether settings and rules are right."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import settings_options, split_overrides

if TYPE_CHECKING:
    from invalidator.config import Settings
    from invalidator.yamlfile import Diagnostic


@click.command("check", short_help="Check settings and rules without connecting to anything.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@settings_options
@click.option("--strict", is_flag=True, help="Let warnings fail the check too.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="github: annotations for a pull request.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    files: tuple[Path, ...],
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    strict: bool,
    form: str,
    as_json: bool,
) -> int:
    """Check the settings and the rules: syntax, names, templates, and what the CDNs can carry out.

    FILES are rule files or directories of them; without any, those of the settings. With FILES and no settings file,
    the rules alone are checked. Exit code 1 means that something is wrong.
    """
    report = _Report()
    settings = _settings(report, settings_file, overrides, is_needed=not files)
    paths = list(files) or (list(settings.rules) if settings is not None else [])
    if paths:
        _rules(report, paths, settings)
    _print(report, "json" if as_json else form)
    return Exit.PROBLEMS if report.errors or (strict and report.warnings) else Exit.FINE


@dataclass(slots=True)
class _Report:
    """All findings, and how much was looked at."""

    findings: list[Diagnostic] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    rules: int = 0
    files: int = 0

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return sum(finding.severity == "warning" for finding in self.findings)

    @property
    def summary(self) -> str:
        return f"{_count(self.rules, 'rule')} in {_count(self.files, 'file')}: {self._verdict}"

    @property
    def _verdict(self) -> str:
        counts = [_count(self.errors, "error")] if self.errors else []
        counts += [_count(self.warnings, "warning")] if self.warnings else []
        return ", ".join(counts) or "no problem found"


def _settings(
    report: _Report, settings_file: Path | None, overrides: tuple[str, ...], *, is_needed: bool
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
        _add(report, error)
        return None


def _rules(report: _Report, paths: list[Path], settings: Settings | None) -> None:
    from invalidator.config.agreement import disagreements
    from invalidator.errors import ConfigError
    from invalidator.rules import document

    try:
        loaded = document.load_with_warnings(paths)
    except ConfigError as error:
        _add(report, error)
        _count_broken(report, paths)
        return
    report.sources.update(loaded.sources)
    report.findings += loaded.warnings
    report.rules, report.files = len(loaded.ruleset.rules), len(loaded.sources)
    if settings is not None:
        report.findings += disagreements(settings, loaded.ruleset, loaded.sources)


def _add(report: _Report, error: Exception) -> None:
    from invalidator import yamlfile

    if isinstance(error, yamlfile.Invalid):
        report.findings += error.diagnostics
        report.sources.update(error.sources)
        return
    for line in str(error).split("\n"):  # of the environment: it has no place in a file
        if line.startswith("   = ") and report.findings:
            last = report.findings.pop()
            report.findings.append(yamlfile.Diagnostic(last.file, 0, 0, 1, last.code, last.message, line[5:]))
        else:
            report.findings.append(yamlfile.Diagnostic("settings", 0, 0, 1, "bad-settings", line))


def _count_broken(report: _Report, paths: list[Path]) -> None:
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


def _print(report: _Report, form: str) -> None:
    match form:
        case "json":
            document = {
                "findings": [asdict(finding) for finding in report.findings],
                "rules": report.rules,
                "files": report.files,
                "errors": report.errors,
                "warnings": report.warnings,
            }
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        case "github":
            for finding in report.findings:
                click.echo(_annotation(finding))
            click.echo(report.summary)
        case _:
            for finding in sorted(report.findings, key=lambda finding: (finding.file, finding.line, finding.column)):
                click.echo(finding.render(report.sources.get(finding.file, "")) + "\n")
            click.echo(report.summary)


def _annotation(finding: Diagnostic) -> str:
    """A workflow command; see GitHub's "Workflow commands for GitHub Actions" for the escapes."""
    level = {"error": "error", "warning": "warning"}.get(finding.severity, "notice")
    text = finding.message + (f" ({finding.help})" if finding.help else "")
    place = f"file={_property(finding.file)},line={max(1, finding.line)},col={max(1, finding.column)}"
    return f"::{level} {place},title={_property(finding.code)}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
