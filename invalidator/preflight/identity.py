"""Old values: what the rules need of the row before a change, and what the replica identity sends of it.

Every partition counts by itself, because each has an identity of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from invalidator.model import Operation
from invalidator.postgres.catalog import Table
from invalidator.postgres.provision.words import identifier
from invalidator.preflight.case import Case, Subject
from invalidator.preflight.finding import Finding, finding, listed
from invalidator.preflight.places import Use
from invalidator.rules.rule import Rule
from invalidator.yamlfile import Severity

_NAMING = frozenset({"template", "lookup"})
"""Parts of a rule that say what is dropped; the others say whether anything is."""
_NEEDING_OLD = {Operation.UPDATE: "UPDATE", Operation.DELETE: "DELETE"}


def missing_identities(case: Case) -> Iterator[Finding]:
    """Published tables on which the application's own UPDATE and DELETE fail."""
    for table, subjects in case.tables.values():
        bare = [part for part in case.facts.parts(table) if part.identity is None]
        blamed = [part for part in bare if _refusing(case, part)]
        if not blamed:
            continue
        publications = listed(sorted({name for part in blamed for name in _refusing(case, part)}))
        message = f"{_named(table, blamed)} has no replica identity, but updates of it are published by {publications}"
        why = "Postgres refuses every UPDATE and DELETE on it, those of the application too"
        fix = "\n".join(f"ALTER TABLE {identifier(part).as_string(None)} REPLICA IDENTITY FULL;" for part in blamed[:5])
        help_text = "a primary key is better than FULL, which writes the whole old row to the WAL"
        yield finding(table.full_name, subjects[0].at_table, "no-identity", message, why=why, help=help_text, fix=fix)


def _refusing(case: Case, part: Table) -> list[str]:
    return [
        publication.name
        for publication in case.facts.database.publications.values()
        if publication.operations & {"update", "delete"} and case.facts.is_published(part, publication)
    ]


def old_values(case: Case) -> Iterator[Finding]:
    """Columns whose old value a rule needs and an identity does not hold."""
    for subject, table in case.pairs:
        known = {column.name for column in table.columns}
        parts = [part for part in case.facts.parts(table) if part.identity is not None]
        for use in subject.uses:
            lacking = [part for part in parts if use.column not in (part.identity or ())]
            if use.needs_old and lacking and use.column in known:
                yield _old_value(case, subject, table, use, lacking)


def _old_value(case: Case, subject: Subject, table: Table, use: Use, lacking: list[Table]) -> Finding:
    identity = _identity(lacking[0])
    message = f"{_shown(use)} is not in the replica identity of {_named(table, lacking)} (identity: {identity})"
    fix = case.mending(table)
    if fix is not None and "REPLICA IDENTITY" not in fix:
        fix = None
    return finding(
        f"{table.full_name} {use.column}",
        use.at,
        "old-value-needed",
        message,
        severity=_severity(case, use),
        why=_why(subject.rule, use),
        help=_help(use),
        fix=fix,
    )


def _severity(case: Case, use: Use) -> Severity:
    """An error only where every such change would drop what nobody has agreed to drop."""
    coarse = use.rule.coarse
    is_dear = bool(coarse.key_patterns or coarse.tag_patterns or coarse.cdn_all)
    return "error" if use.part in _NAMING and is_dear and not case.places.has_written_coarse(use.rule) else "warning"


def _why(rule: Rule, use: Use) -> str:
    verbs = " and ".join(text for event, text in _NEEDING_OLD.items() if event in rule.events)
    if use.part not in _NAMING:
        verbs = "UPDATE" if use.part == "changed" else verbs
        return f"without the old '{use.column}' the rule fires for every {verbs} that it might be about"
    drops = listed([f"'{text}'" for text in _coarse(rule)]) or "everything at the CDN"
    return (
        f"Postgres does not send the old '{use.column}', so every {verbs} that fires the rule drops {drops} instead"
        f" of {use.around} of the old row"
    )


def _coarse(rule: Rule) -> list[str]:
    coarse = rule.coarse
    groups = (coarse.keys, coarse.key_patterns, coarse.tags, coarse.tag_patterns, coarse.l1, coarse.cdn)
    return [template.text for group in groups for template in group]


def _help(use: Use) -> str | None:
    if use.part not in _NAMING:
        return None
    new = "{new." + use.written[1:].replace("old.", "", 1).lstrip()
    if use.scope == "row":
        return f"or write {new} if what stands under the old value may live on until it expires"
    return None


def _shown(use: Use) -> str:
    return use.written if use.part in _NAMING else f"'{use.column}' of {use.part}:"


def _identity(table: Table) -> str:
    columns = listed(sorted(table.identity or ()))
    return {"d": f"primary key {columns}", "i": f"index over {columns}"}.get(table.replica_identity, columns)


def _named(table: Table, parts: list[Table]) -> str:
    """The table, or those of its partitions that are meant."""
    if parts == [table]:
        return table.full_name
    return f"{listed([part.full_name for part in parts], most=3)} (partition of {table.full_name})"
