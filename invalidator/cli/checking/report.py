"""Findings as people, programs and pull requests read them: what ``check`` and other verbs end with.

Report       collects findings, the text of their files, and what was looked at
show         prints a report as text, JSON, GitHub annotations or SARIF
exit_code    0 or 1
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import click

from invalidator.cli._exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from invalidator.yamlfile import Diagnostic

FORMATS: Final = ("text", "json", "github", "sarif")
Function = TypeVar("Function", bound="Callable[..., object]")


def report_options(function: Function) -> Function:
    """Add ``--strict``, ``--format`` and ``--json``; the function gets ``strict`` and ``form`` and ``as_json``."""
    function = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")(function)
    function = click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="github: annotations for a pull request; sarif: for code scanning.",
    )(function)
    return click.option("--strict", is_flag=True, help="Let warnings fail the check too.")(function)


@dataclass(slots=True)
class Report:
    """All findings, and how much was looked at."""

    findings: list[Diagnostic] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    """The text of each file by its name, for the excerpts."""
    rules: int = 0
    files: int = 0
    notes: list[str] = field(default_factory=list)
    """Lines for people about what was looked at and found right; printed before the summary."""
    counted: list[str] = field(default_factory=list)
    """What else was looked at, as the summary names it: ``3 tests``."""

    def add(self, findings: Iterable[Diagnostic], sources: Mapping[str, str] | None = None) -> None:
        """Take over findings; a finding that is there already is not repeated."""
        known = set(self.findings)
        self.findings += [finding for finding in dict.fromkeys(findings) if finding not in known]
        self.sources.update(sources or {})

    def add_error(self, error: Exception) -> None:
        """Take over what an error says: the findings of ``Invalid``, or the lines of any other ConfigError."""
        from invalidator import yamlfile

        if isinstance(error, yamlfile.Invalid):
            self.add(error.diagnostics, error.sources)
        else:
            self.add(_of_lines(str(error)))

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return sum(finding.severity == "warning" for finding in self.findings)

    @property
    def summary(self) -> str:
        """The last line of the text: how much was looked at and what came of it."""
        counts = [counted(self.rules, "rule") + " in " + counted(self.files, "file"), *self.counted]
        return f"{', '.join(counts)}: {self._verdict}"

    @property
    def _verdict(self) -> str:
        counts = [counted(self.errors, "error")] if self.errors else []
        counts += [counted(self.warnings, "warning")] if self.warnings else []
        return ", ".join(counts) or "no problem found"

    def exit_code(self, *, strict: bool = False) -> Exit:
        """1 if there is an error, or with ``strict`` a warning."""
        return Exit.PROBLEMS if self.errors or (strict and self.warnings) else Exit.FINE

    def in_order(self) -> list[Diagnostic]:
        """The findings by file, line and column."""
        return sorted(self.findings, key=lambda finding: (finding.file, finding.line, finding.column))


def show(report: Report, form: str) -> None:
    """Print the report on standard output."""
    match form:
        case "json":
            click.echo(json.dumps(_document(report), indent=2, ensure_ascii=False))
        case "sarif":
            from invalidator.cli.checking.sarif import log

            click.echo(json.dumps(log(report.in_order(), report.sources), indent=2, ensure_ascii=False))
        case "github":
            for finding in report.in_order():
                click.echo(_annotation(finding))
            click.echo(report.summary)
        case _:
            _show_text(report)


def counted(number: int, noun: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _of_lines(text: str) -> list[Diagnostic]:
    """Of the environment: it has no place in a file."""
    from invalidator import yamlfile

    found: list[Diagnostic] = []
    for line in text.split("\n"):
        if line.startswith("   = fix: ") and found:
            last = found.pop()
            found.append(
                yamlfile.Diagnostic(last.file, 0, 0, 1, last.code, last.message, fix=line[len("   = fix: ") :])
            )
        else:
            found.append(yamlfile.Diagnostic("settings", 0, 0, 1, "bad-settings", line))
    return found


def _document(report: Report) -> dict[str, object]:
    return {
        "findings": [asdict(finding) for finding in report.in_order()],
        "rules": report.rules,
        "files": report.files,
        "errors": report.errors,
        "warnings": report.warnings,
        "notes": report.notes,
    }


def _show_text(report: Report) -> None:
    from invalidator.yamlfile import split_lines
    from invalidator.yamlfile.diagnostic import printable

    lines = {file: split_lines(text) for file, text in report.sources.items()}
    for finding in report.in_order():
        click.echo(finding.render_lines(lines.get(finding.file, ())) + "\n")
    for note in report.notes:
        click.echo(printable(note))
    click.echo(report.summary)


def _annotation(finding: Diagnostic) -> str:
    """A workflow command; see GitHub's "Workflow commands for GitHub Actions" for the escapes."""
    level = {"error": "error", "warning": "warning"}.get(finding.severity, "notice")
    place = f"file={_property(finding.file)}"
    if finding.line:
        place += f",line={finding.line},col={finding.column},endColumn={finding.column + finding.width}"
    return f"::{level} {place},title={_property(finding.code)}::{_data(finding.full_text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
