"""The checks, one after the other. Pure: the same facts and rules give the same findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from invalidator.preflight import columns, identity, outbox, publication, server, standbys
from invalidator.preflight.case import Case, case
from invalidator.preflight.facts import Facts
from invalidator.preflight.finding import At, Finding
from invalidator.preflight.places import Places
from invalidator.rules.rule import RuleSet

Check = Callable[[Case], Iterator[Finding]]

OF_A_SERVER: Final[tuple[Check, ...]] = (
    server.wrong_server,
    server.unprivileged_role,
    server.unbounded_wal,
)
"""Those that a schema file cannot answer."""
OF_A_SCHEMA: Final[tuple[Check, ...]] = (
    publication.missing_publication,
    publication.published_via_root,
    publication.unpublished_operations,
    columns.unknown_tables,
    columns.unknown_columns,
    columns.unfit_conditions,
    columns.unsendable_columns,
    publication.unpublished_tables,
    publication.hidden_columns,
    publication.filtered_rows,
    publication.moved_rows,
    identity.missing_identities,
    identity.unfit_publications,
    identity.old_values,
    columns.long_values,
    columns.session_dependent,
)
AFTER_THE_PUBLICATION: Final[tuple[Check, ...]] = (server.wrong_slot, standbys.unready_for_failover)
"""A slot decodes nothing that is older than the publication, so that one comes first."""
OF_AN_OUTBOX: Final[tuple[Check, ...]] = (
    server.wrong_server,
    server.barred_functions,
    outbox.missing_outbox,
    columns.unknown_tables,
    columns.unknown_columns,
    columns.unfit_conditions,
    outbox.unseen_columns,
    outbox.wrong_triggers,
    columns.session_dependent,
)
"""Those for changes that triggers write down."""
OF_NOTIFICATIONS: Final[tuple[Check, ...]] = (
    server.wrong_server,
    server.barred_functions,
    columns.unknown_tables,
    columns.unknown_columns,
    columns.unfit_conditions,
    columns.session_dependent,
)
"""Those for changes that the application tells by itself: what it sends cannot be known before."""
MADE_AT_START: Final = frozenset({"publication-missing", "slot-missing", "not-published"})
"""What the daemon makes at its first start when ``source.create`` asks for it."""


def examine(
    ruleset: RuleSet,
    sources: Mapping[str, str],
    facts: Facts,
    *,
    settings_at: Mapping[str, At] | None = None,
    is_made_at_start: bool = False,
) -> list[Finding]:
    """Everything that keeps these rules from working as written on this database, each thing once.

    Args:
        ruleset: the rules.
        sources: the text of each rule file by its name.
        facts: the database.
        settings_at: where the settings name ``dsn``, ``slot`` and ``publication``.
        is_made_at_start: ``source.create`` is on and the daemon has not run yet.
    """
    checked = case(ruleset, Places(sources), facts, settings_at)
    found: dict[tuple[object, ...], Finding] = {}
    for check in _checks(facts):
        for each in check(checked):
            said = each.diagnostic
            found.setdefault((each.subject, said.code, said.file, said.line, said.column, said.message), each)
    if is_made_at_start:
        return [_announced(each) if each.code in MADE_AT_START else each for each in found.values()]
    return list(found.values())


def _checks(facts: Facts) -> tuple[Check, ...]:
    if facts.outbox is not None:
        return OF_AN_OUTBOX
    if facts.is_notified:
        return OF_NOTIFICATIONS
    return (*OF_A_SERVER, *OF_A_SCHEMA, *AFTER_THE_PUBLICATION) if facts.is_live else OF_A_SCHEMA


def _announced(each: Finding) -> Finding:
    help_text = "source.create is on: the daemon makes it at its first start"
    return replace(each, diagnostic=replace(each.diagnostic, severity="info", help=help_text, why=None))
