"""Old values: what the rules need of the row before a change, and what the replica identity sends of it.

Every partition counts by itself, because each has an identity of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from psycopg import sql

from invalidator.model import Operation
from invalidator.postgres.catalog import Table
from invalidator.postgres.provision import fitness
from invalidator.preflight.case import Case, Subject
from invalidator.preflight.finding import At, Finding, finding, listed
from invalidator.preflight.places import Use
from invalidator.rules.rule import Rule
from invalidator.yamlfile import Severity

_REFUSED = "Postgres refuses every UPDATE and DELETE on it, those of the application too"
_NAMING = frozenset({"template", "lookup"})
"""Parts of a rule that say what is dropped; the others say whether anything is."""
_NEEDING_OLD = {Operation.UPDATE: "UPDATE", Operation.DELETE: "DELETE"}

_WORDS: Final = {
    "keys": "key",
    "key_patterns": "keys",
    "tags": "tag",
    "tag_patterns": "tags",
    "l1": "L1",
    "cdn": "CDN tag",
}
"""Field of a coarse form → what its names are called in messages."""


def missing_identities(case: Case) -> Iterator[Finding]:
    """Published tables on which the application's own UPDATE and DELETE fail, also those that no rule is about."""
    for table, at in _with_others(case):
        bare = [part for part in case.facts.parts(table) if part.identity is None]
        blamed = [part for part in bare if _refusing(case, part)]
        if not blamed:
            continue
        publications = listed(sorted({name for part in blamed for name in _refusing(case, part)}))
        message = f"{_named(table, blamed)} has no replica identity, but updates of it are published by {publications}"
        if table.oid in case.tables:
            help_text = "a primary key is better than FULL, which writes the whole old row to the WAL"
            fix = "\n".join(made_full(case, part) for part in blamed[:5])
        else:
            help_text = (
                "no rule is about it; publications of tables by name hold only what rules need: invalidator setup"
            )
            fix = _left(case, table)
        yield finding(table.full_name, at, "no-identity", message, why=_REFUSED, help=help_text, fix=fix)


def unfit_publications(case: Case) -> Iterator[Finding]:
    """Column lists and row filters that do not fit the identity of a table, so that its UPDATE and DELETE fail."""
    tables = {each.oid: each for each in (*case.facts.database.tables, *case.facts.database.others)}
    for table, at in _with_others(case):
        for part in case.facts.parts(table):
            for misfit in fitness.misfits(part, tables, case.facts.database):
                name = misfit.publication.name
                if table.oid not in case.tables and name != case.facts.request.publication:
                    continue  # nobody asked about it
                message = f"publication '{name}' does not fit the replica identity of {part.full_name}: {misfit.reason}"
                help_text = f"identity: {_identity(part)}"
                fix = fitness.mended(part, misfit)
                subject = f"{part.full_name} {name}"
                yield finding(subject, at, "identity-not-covered", message, why=_REFUSED, help=help_text, fix=fix)


def _with_others(case: Case) -> Iterator[tuple[Table, At]]:
    """The rules' tables, each with a rule that names it, then the others of our publication."""
    for table, subjects in case.tables.values():
        yield table, subjects[0].at_table
    for table in case.facts.database.others:
        yield table, case.at_setting("publication")


def made_full(case: Case, part: Table) -> str:
    """The SQL of FULL, with which our publication must have no list; in one transaction, so that no UPDATE fails."""
    alter = fitness.altered(part, sql.SQL("FULL"))
    publication = case.facts.publication
    entry = publication.table(part.oid) if publication is not None else None
    if publication is None or entry is None or (entry.columns is None and not entry.has_row_filter):
        return alter
    target = fitness.fitted(part, entry, frozenset(), is_full=True)
    return fitness.republished(part, publication.name, [alter], target)


def _left(case: Case, table: Table) -> str:
    """What no rule needs leaves the publication, if it is named there."""
    publication = case.facts.publication
    if publication is None or publication.table(table.oid) is None:
        return fitness.altered(table, sql.SQL("FULL"))
    return fitness.removed(table, publication.name)


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
    drops = listed(_coarse(rule)) or "everything at the CDN"
    return (
        f"Postgres does not send the old '{use.column}', so every {verbs} that fires the rule drops {drops} instead"
        f" of {use.around} of the old row"
    )


def _coarse(rule: Rule) -> list[str]:
    return [f"{word} '{template.text}'" for kind, word in _WORDS.items() for template in getattr(rule.coarse, kind)]


def _help(use: Use) -> str | None:
    if use.part == "changed":
        return "or leave it: the rule then fires for every UPDATE, which drops too much and never too little"
    if use.part not in _NAMING:
        return "fine as it is: more is dropped than has to be, and never less"
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
