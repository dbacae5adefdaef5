"""Findings as a SARIF 2.1.0 log, the format of code scanning.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from invalidator import __version__
from invalidator.cli._report import full_text

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
    codes = sorted({finding.code for finding in findings})
    driver = {"name": "invalidator", "version": __version__, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, codes.index(finding.code), sources) for finding in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, object]:
    return {"id": code}


def _result(finding: Diagnostic, rule_index: int, sources: Mapping[str, str]) -> dict[str, object]:
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": _LEVELS[finding.severity],
        "message": {"text": full_text(finding)},
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
