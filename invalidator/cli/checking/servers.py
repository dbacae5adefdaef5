"""What ``check`` does with a database, with targets, or with a schema file in place of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.cli.checking.report import Report
    from invalidator.config import Settings
    from invalidator.rules.document import Loaded


def check_servers(report: Report, settings: Settings, loaded: Loaded | None) -> bool:
    """Ask the servers; without rules that can be read, only what needs none. False: one of them did not answer."""
    import asyncio
    import os

    from invalidator.preflight.online import look
    from invalidator.rules.rule import RuleSet

    ruleset, sources = (RuleSet((), ""), {}) if loaded is None else (loaded.ruleset, loaded.sources)
    seen = asyncio.run(look(settings, ruleset, sources))
    texts = {}
    if settings.file is not None:
        texts[os.fspath(settings.file)] = settings.file.read_text(encoding="utf-8-sig")
    report.add((each.diagnostic for each in seen.findings), texts)
    report.notes += seen.notes
    return not seen.is_unreachable


def check_schema(report: Report, path: Path, found: Sequence[Loaded]) -> None:
    """Hold the rules against a schema file."""
    import os

    from invalidator import yamlfile
    from invalidator.cli.checking.report import counted
    from invalidator.errors import ConfigError
    from invalidator.preflight import snapshot
    from invalidator.preflight.examine import examine

    try:
        facts = snapshot.read(yamlfile.read_text(path), os.fspath(path))
    except ConfigError as error:
        report.add_error(error)
        return
    for loaded in found:
        report.add(each.diagnostic for each in examine(loaded.ruleset, loaded.sources, facts))
    tables = sum(table.root_oid is None for table in facts.database.tables)
    report.notes.append(f"checked against {path}: {counted(tables, 'table')}; server, slot and targets were not asked")
