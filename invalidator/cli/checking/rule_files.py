"""What ``check`` does with rule files, and with those that stand in Markdown pages."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from invalidator.cli.checking.report import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from invalidator.cli.checking.report import Report
    from invalidator.config import Settings
    from invalidator.ports import TagGrammar
    from invalidator.rules import testing
    from invalidator.rules.document import Loaded


def check_files(report: Report, paths: Sequence[Path], settings: Settings | None) -> list[Loaded]:
    """Read and test the rules: those of all rule files together, and each block of a Markdown page by itself.

    Returns:
        What can be used.
    """
    from invalidator.errors import ConfigError
    from invalidator.rules import document

    pages = [path for path in paths if is_page(path)]
    files = [path for path in paths if path not in pages]
    found: list[Loaded] = []
    if files:
        try:
            found.append(document.load_with_warnings(files))
        except ConfigError as error:
            report.add_error(error)
            _count_broken(report, files)
        else:
            report.files += len(found[0].sources)
    found += [loaded for page in pages for loaded in _blocks(report, page)]
    results = [result for loaded in found for result in _checked(report, loaded, settings)]
    _note_tests(report, results)
    if settings is None:
        _note_unread(report, found)
    return found


def is_page(path: Path) -> bool:
    """Whether this is Markdown with rule files in it."""
    from invalidator.rules import markdown

    return path.suffix.lower() in markdown.SUFFIXES


def _blocks(report: Report, page: Path) -> Iterable[Loaded]:
    from invalidator import yamlfile
    from invalidator.errors import ConfigError
    from invalidator.rules import document, markdown

    report.files += 1
    try:
        text = yamlfile.read_text(page)
    except ConfigError as error:
        report.add_error(error)
        return
    blocks = markdown.rule_blocks(text)
    report.notes.append(f"{page}: {counted(len(blocks), 'block')} of rules")
    for block in blocks:
        try:
            yield document.load_text(block, os.fspath(page))
        except ConfigError as error:
            report.add_error(error)
            report.rules += _rules_in(block)
    report.sources[os.fspath(page)] = text


def _checked(report: Report, loaded: Loaded, settings: Settings | None) -> Sequence[testing.Result]:
    from invalidator.config.agreement import disagreements, tag_grammars
    from invalidator.config.doubts import unserved
    from invalidator.rules import testing

    report.add(loaded.warnings, {file: text for file, text in loaded.sources.items() if file not in report.sources})
    report.rules += len(loaded.ruleset.rules)
    grammars: list[TagGrammar] = []
    if settings is not None:
        report.add(disagreements(settings, loaded.ruleset, loaded.sources))
        report.add(unserved(settings, loaded.ruleset, loaded.sources))
        grammars = list(tag_grammars(settings).values())
    tested = testing.run(loaded, cdn_grammars=grammars)
    report.add(testing.findings(tested))
    return tested.results


def _note_tests(report: Report, results: Sequence[testing.Result]) -> None:
    skipped = [result for result in results if result.needs is not None]
    if results:
        more = f" ({len(skipped)} skipped)" if skipped else ""
        report.counted.append(counted(len(results), "test") + more)
    report.notes += [result.note for result in skipped]


def _note_unread(report: Report, found: Sequence[Loaded]) -> None:
    tagging = [rule for loaded in found for rule in loaded.ruleset.rules if rule.exact.cdn or rule.coarse.cdn]
    if tagging:
        report.notes.append(
            f"no settings were read, so the CDN tags of {counted(len(tagging), 'rule')} were not checked"
            " (coarse-missing, cdn-tag-grammar): add --settings FILE"
        )


def _count_broken(report: Report, paths: Sequence[Path]) -> None:
    """How many rules there seem to be, for the summary."""
    from invalidator import yamlfile

    files: set[Path] = set()
    for path in paths:
        with contextlib.suppress(OSError):  # that it cannot be read is a finding already
            files.update(path.glob("*.y*ml") if path.is_dir() else [path])
    report.files += len(files)
    for file in files:
        try:
            report.rules += _rules_in(yamlfile.read_text(file))
        except yamlfile.Invalid:
            continue


def _rules_in(text: str) -> int:
    from invalidator import yamlfile

    try:
        data = yamlfile.parse(text, "").data
    except yamlfile.Invalid:
        return 0
    rules = data.get("rules") if isinstance(data, dict) else None
    return len(rules) if isinstance(rules, list) else 0
