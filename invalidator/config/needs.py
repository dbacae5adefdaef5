"""What the rules need of the database, in the words of ``postgres.provision``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invalidator.model import Operation
from invalidator.postgres.provision import Need

if TYPE_CHECKING:
    from collections.abc import Iterable

    from invalidator.rules.rule import Rule


def needs(rules: Iterable[Rule]) -> tuple[Need, ...]:
    """One need per rule."""
    return tuple(_need(rule) for rule in rules)


def _need(rule: Rule) -> Need:
    exact = rule.exact
    references = [
        reference
        for template in (*exact.keys, *exact.tags, *exact.l1, *exact.cdn)
        for reference in template.references
        if reference.scope != "meta"
    ]
    changed = rule.changed or frozenset()
    sees_old = bool(rule.events & {Operation.UPDATE, Operation.DELETE})
    return Need(
        rule=rule.name,
        place=f"{rule.place.file}:{rule.place.line}",
        schema=rule.schema,
        table=rule.table,
        columns=frozenset(reference.name for reference in references) | changed,
        old_columns=frozenset(r.name for r in references if sees_old and r.scope in {"row", "old"}),
        compared=changed if Operation.UPDATE in rule.events else frozenset(),
    )
