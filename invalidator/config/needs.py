"""What the rules need of the database, in the words of ``postgres.provision``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invalidator.model import Operation
from invalidator.postgres.provision import Lookup, Need
from invalidator.rules.lookup_sql import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from invalidator.rules import rule as rules_rule
    from invalidator.rules.rule import Rule


def needs(rules: Iterable[Rule]) -> tuple[Need, ...]:
    """One need per rule."""
    return tuple(_need(rule) for rule in rules)


def _need(rule: Rule) -> Need:
    exact = rule.exact
    templates = (*exact.keys, *exact.tags, *exact.l1, *exact.cdn)
    used = [reference for template in templates for reference in template.references]
    used += [reference for lookup in rule.lookups for reference in lookup.sql.parameters]
    references = [reference for reference in used if reference.is_row_value]
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
        operations=frozenset(operation.value for operation in rule.events),
        lookups=tuple(_lookup(lookup) for lookup in rule.lookups),
    )


def _lookup(lookup: rules_rule.Lookup) -> Lookup:
    texts, columns = [""], list[str | None]()
    for part in lookup.sql.parts:
        if isinstance(part, Text):
            texts[-1] += part.text
        else:
            texts.append("")
            columns.append(part.reference.name if part.reference.is_row_value else None)
    return Lookup(lookup.name, tuple(texts), tuple(columns))
