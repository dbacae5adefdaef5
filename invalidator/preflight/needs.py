"""What the rules need of the database, in the words of ``postgres.provision``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invalidator.model import Operation
from invalidator.postgres.provision import Lookup, Need, Rows
from invalidator.rules import condition
from invalidator.rules.derivation import is_fixed as is_fixed_template
from invalidator.rules.lookup_sql import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from invalidator.postgres.catalog import Table
    from invalidator.rules import rule as rules_rule
    from invalidator.rules.rule import Rule


def needs(rules: Iterable[Rule]) -> tuple[Need, ...]:
    """One need per rule."""
    return tuple(_need(rule) for rule in rules)


def _need(rule: Rule) -> Need:
    used = [reference for template in rule.exact.templates for reference in template.references]
    used += [reference for lookup in rule.lookups for reference in lookup.sql.parameters]
    references = [reference for reference in used if reference.is_row_value]
    changed = rule.changed or frozenset()
    asked = rule.when.references if rule.when is not None else frozenset()
    sees_old = bool(rule.events & {Operation.UPDATE, Operation.DELETE})
    compared = changed | {name for scope, name in asked if scope in {"row", "old"}}
    return Need(
        rule=rule.name,
        place=f"{rule.place.file}:{rule.place.line}",
        schema=rule.schema,
        table=rule.table,
        columns=frozenset(reference.name for reference in references) | changed | {name for _, name in asked},
        old_columns=frozenset(r.name for r in references if sees_old and r.scope in {"row", "old"}),
        compared=compared if Operation.UPDATE in rule.events else frozenset(),
        operations=frozenset(operation.value for operation in rule.events),
        changed=rule.changed,
        rows=_rows(rule),
        lookups=tuple(_lookup(lookup) for lookup in rule.lookups),
    )


def _rows(rule: Rule) -> Rows | None:
    """What a row filter could be made of: a condition that asks the same of every image, and never for both at once."""
    asked = rule.when
    if asked is None or any(scope != "row" for scope, _ in asked.references):
        return None

    def written(table: Table) -> str | None:
        types = {column.name: condition.ColumnType(condition.kind_of(column.type_oid)) for column in table.columns}
        if condition.type_problems(asked, types):
            return None
        return condition.sql(asked, condition.kinds_of(types))

    is_fixed = all(map(is_fixed_template, rule.exact.templates))
    fires_for_all = rule.events >= {Operation.INSERT, Operation.UPDATE, Operation.DELETE}
    survives = is_fixed and fires_for_all and rule.changed is None and not rule.lookups
    return Rows(written, asked.columns, survives_updates=survives)


def _lookup(lookup: rules_rule.Lookup) -> Lookup:
    texts, columns = [""], list[str | None]()
    for part in lookup.sql.parts:
        if isinstance(part, Text):
            texts[-1] += part.text
        else:
            texts.append("")
            columns.append(part.reference.name if part.reference.is_row_value else None)
    return Lookup(lookup.name, tuple(texts), tuple(columns))
