"""Findings as a SARIF 2.1.0 log, the format of code scanning.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from invalidator import __version__, codes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from invalidator.yamlfile import Diagnostic

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {"error": "error", "warning": "warning", "info": "note"}


def log(findings: Sequence[Diagnostic], sources: Mapping[str, str]) -> dict[str, object]:
    """The whole log: one run, its rules, its results.

    Args:
        findings: in the order in which they are to be shown.
        sources: the files that were read; a finding of anything else (a variable) has a logical location.
    """
    names = sorted({finding.code for finding in findings})
    driver = {"name": "invalidator", "version": __version__, "rules": [_rule(name) for name in names]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, names.index(finding.code), sources) for finding in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, object]:
    """What there is to read about a code; without `helpUri`, which would have to be absolute (SARIF 3.49.12)."""
    explained = codes.find(code)
    if explained is None:
        return {"id": code}
    page = codes.page(explained)
    return {
        "id": code,
        "shortDescription": {"text": explained.meaning},
        "fullDescription": {"text": f"{explained.meaning} {explained.why}".rstrip()},
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": _LEVELS[explained.severity]},
    }


def _result(finding: Diagnostic, rule_index: int, sources: Mapping[str, str]) -> dict[str, object]:
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.full_text},
        "locations": [_location(finding, sources)],
    }


def _location(finding: Diagnostic, sources: Mapping[str, str]) -> dict[str, object]:
    if not finding.line and finding.file not in sources:
        return {"logicalLocations": [{"fullyQualifiedName": finding.file}]}
    physical: dict[str, object] = {"artifactLocation": {"uri": quote(PurePath(finding.file).as_posix())}}
    if finding.line:
        physical["region"] = {
            "startLine": finding.line,
            "startColumn": finding.column,
            "endColumn": finding.column + finding.width,
        }
    return {"physicalLocation": physical}
