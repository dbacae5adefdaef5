"""What rules name and the database does not have, with what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from invalidator.postgres.catalog import Table
from invalidator.postgres.provision.words import Finding, Need


def missing_tables(needs: Sequence[Need], tables: Iterable[Table], known: Iterable[str]) -> list[Finding]:
    """A finding for each need that no table meets.

    Args:
        needs: of all rules.
        tables: those of the database that a need may mean.
        known: the full names of all tables of the database.
    """
    return [
        Finding(f"rule '{need.rule}' ({need.place}): no table matches {need.full_name}", similar(need.full_name, known))
        for need in needs
        if not any(need.wants(table) for table in tables)
    ]


def similar(name: str, known: Iterable[str]) -> str | None:
    """The fix for a name that there is not: the one that comes nearest; None when none comes near."""
    near = difflib.get_close_matches(name, sorted(known), 1, 0.6)
    return f"write '{near[0]}' in the rule, if that is meant" if near else None
