"""Source that notes what a lookup is to be asked with, for one rule in one form of message.

The same questions are answered here as for names that need no lookup: which images there are, what was sent, what is
NULL. What the lookup finds is rendered later (``lookup.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from invalidator.rules.compiler.bound import BoundRule, parameter_columns
from invalidator.rules.compiler.parts import Part, Parts, Value, identity, reasons
from invalidator.rules.lookup import LookupPlan
from invalidator.rules.namespace import indented
from invalidator.rules.rule import Lookup


class AskingCode:
    """The lines of one rule's lookups in one form.

    Args:
        bound: the rule.
        parts: resolves what is asked with.
        name: the name of an object in the source.
    """

    def __init__(self, bound: BoundRule, parts: Parts, name: Callable[[object], str]) -> None:
        self._bound = bound
        self._parts = parts
        self._name = name
        self.bits = 0
        """Why it must widen in any case."""
        self.may_widen = False
        """Whether the lines may set bits of ``w``."""

    def lines(self, lookup: Lookup) -> list[str]:
        """Note the values that a lookup is to be asked with, for each image; rendered is when it was answered."""
        missing, asked_with = self._bound.missing, lookup.sql.parameters
        exact = self._bound.rule.exact
        templates = [
            (group, template)
            for group, members in (("keys", exact.keys), ("tags", exact.tags), ("l1", exact.l1), ("cdn", exact.cdn))
            for template in members
            if lookup.name in template.lookups
            and not template.columns & missing
            and self._parts.scopes((*template.references, *asked_with))
        ]
        if not templates or parameter_columns(lookup) & missing:
            return []
        plan = self._bound.plan(lookup, templates)
        lines: list[str] = []
        seen: list[object] = []
        for scope in self._parts.scopes(plan.slots):
            parts, unavailable = self._asked(plan, scope)
            same = [identity(part) for part in parts]
            if unavailable:
                self.bits |= unavailable
            elif same not in seen:
                seen.append(same)
                lines += self._ask(plan, parts)
        return lines

    def _asked(self, plan: LookupPlan, image: str) -> tuple[list[Part], int]:
        """The values of one image as the plan wants them; and why they cannot be told, as bits."""
        parts: list[Part] = []
        unavailable = 0
        for slot in plan.slots:
            if slot.scope == "meta":
                parts.append(self._parts.fact("", slot))
                continue
            value, bit = self._parts.value(slot, image if slot.scope == "row" else slot.scope)
            if value is None:
                unavailable |= bit
            else:
                parts.append(value)
        return parts, unavailable

    def _ask(self, plan: LookupPlan, parts: Sequence[Part]) -> list[str]:
        """Note one image's values, if all were sent and no parameter is NULL: that would find nothing."""
        name = self._name(plan)
        values = "".join(f"{self._parts.expression('', part)}, " for part in parts)
        ask = [
            f"a = inv.lookups.get({name})",
            f"if a is None: a = inv.lookups[{name}] = set()",
            f"a.add(({values}))",
            "inv.lookup_transactions[tx.xid] = tx.final_lsn",
        ]
        sent = {part.name: part.bit for part in parts if isinstance(part, Value)}
        if not sent:
            return ask
        self.may_widen = True
        bound = {part.name: None for part in parts[: len(plan.type_oids)] if isinstance(part, Value)}
        lines = [f"if {' or '.join(f'{value} is False' for value in sent)}: w |= {reasons(sent)}"]
        if bound:
            nulls = " or ".join(f"{value} is None" for value in bound)
            lines.append(f"elif {nulls}: {self._name(self._bound.state)}.null_skips += 1")
        return [*lines, "else:", *indented(ask)]
