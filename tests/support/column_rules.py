"""Rules that name every column of a relation, so that its row function reads all of them."""

from __future__ import annotations

from collections.abc import Sequence

from invalidator.model import Operation, Relation
from invalidator.rules.rule import Coarse, Exact, Place, Rule
from invalidator.rules.template import literal, parse

COARSE = b"COARSE"
"""The tag that these rules widen to."""


def column_rules(relation: Relation) -> list[Rule]:
    """One rule for each column: the bare one and each image; and some that look at changed columns only."""
    made = []
    for at, column in enumerate(relation.columns):
        name = '"' + column.name.replace('"', '""') + '"'
        exact = Exact(
            keys=(parse(f"k{at}:{{{name}}}"),),
            tags=(parse(f"new{at}:{{new.{name}}}"),),
            l1=(parse(f"old{at}:{{old.{name}}}"),),
        )
        made.append(_rule(f"r{at}", exact))
    pairs = [[left.name, right.name] for left, right in zip(relation.columns, relation.columns[1:], strict=False)]
    return made + [_rule(f"changed{at}", Exact(keys=(parse(f"c{at}:"),)), pair) for at, pair in enumerate(pairs[::5])]


def _rule(name: str, exact: Exact, changed: Sequence[str] | None = None) -> Rule:
    return Rule(
        name=name,
        schema="*",
        table="*",
        events=frozenset(Operation),
        changed=None if changed is None else frozenset(changed),
        exact=exact,
        coarse=Coarse(tags=(literal(COARSE.decode()),)),
        bulk_over=None,
        repeat_after=(),
        soft=False,
        place=Place("rules.yaml", 1, 1),
    )
