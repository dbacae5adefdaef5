"""Why a test got other names than it expects: which template makes a name, or would, and what stands in its way."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from invalidator.model import Invalidation, Operation, WidenReason
from invalidator.rules import derivation, inverse
from invalidator.rules.document import Loaded
from invalidator.rules.explain import Outcome, RuleExplanation, Scene, name_text
from invalidator.rules.inline_tests import InlineTest
from invalidator.rules.inverse import Solution, Value
from invalidator.rules.rows import JsonRow, read_message, value_text
from invalidator.rules.rule import Rule
from invalidator.rules.template import Reference, Template, encode

GROUP_OF: Final = {
    "keys": "keys",
    "tags": "tags",
    "key_patterns": "keys",
    "tag_patterns": "tags",
    "l1": "l1",
    "cdn": "cdn",
    "cdn_soft": "cdn",
}
"""Kind of an invalidation → the field of ``invalidate`` and ``coarse`` that it comes from."""

WIDEN_WORDS: Final = {
    WidenReason.TRUNCATE: "a TRUNCATE carries no row",
    WidenReason.BULK: "more rows than bulk_over in one transaction",
    WidenReason.OLD_UNAVAILABLE: "an old value is not in the replica identity, so it is not sent",
    WidenReason.VALUE_UNAVAILABLE: "a value was not sent (an unchanged large value)",
    WidenReason.UNSAFE_VALUE: "a value cannot be written as the CDNs' tags are",
    WidenReason.MISSING_COLUMN: "the table has no such column",
    WidenReason.RULE_ERROR: "the row could not be read, or does not fit the condition",
    WidenReason.LOOKUP_OVERFLOW: "a lookup found more rows than its limit",
    WidenReason.LOOKUP_TIMEOUT: "a lookup took too long",
    WidenReason.LOOKUP_ERROR: "a lookup failed",
}


@dataclass(frozen=True, slots=True)
class Reasons:
    """One test as it ran, for questions about its names."""

    loaded: Loaded
    test: InlineTest
    scene: Scene
    explanations: Sequence[RuleExplanation]
    _made: dict[tuple[str, str, Template], Invalidation] = field(default_factory=dict)
    """What each template made, by the rule's name and the group: finding out compiles it."""

    # -- what is there ------------------------------------------------------------------------------------------

    def unexpected(self, kind: str, name: bytes) -> list[str]:
        """Which rule and template made this name."""
        found: list[str] = []
        for each in self.explanations:
            if name in getattr(each.invalidation, kind):
                found += self._makers(each, kind, name)
        return found

    def _makers(self, explanation: RuleExplanation, kind: str, name: bytes) -> list[str]:
        rule = explanation.rule
        group = GROUP_OF[kind]
        exact = [
            f"rule '{rule.name}' ({self._place(rule, group, template)}): {template.text}"
            for template in getattr(rule.exact, group)
            if name in getattr(self._made_by(rule, group, template), kind)
        ]
        if exact:
            return exact
        why = "; ".join(WIDEN_WORDS[reason] for reason in explanation.widened)
        return [f"{_called(rule)}: the coarse form, because {why}"]

    def _made_by(self, rule: Rule, group: str, template: Template) -> Invalidation:
        made = self._made.get((rule.name, group, template))
        if made is None:
            made = self._made[rule.name, group, template] = self.scene.exact(rule, group, template)
        return made

    def widened(self, reason: str) -> list[str]:
        """Which rules widen for this reason."""
        return [
            f"{_called(each.rule)}: {WIDEN_WORDS[WidenReason(reason)]}"
            for each in self.explanations
            if reason in each.widened
        ]

    # -- what is not there --------------------------------------------------------------------------------------

    def missing(self, kind: str, name: bytes) -> list[str]:
        """Why no template made this name: those that could come first."""
        return (
            list(self._in_other_kinds(kind, name))
            or list(self._of_this_table(kind, name))
            or list(self._of_coarse_forms(kind, name))
            or list(self._of_other_tables(kind, name))
            or [self._nearest(kind, name)]
        )

    def _in_other_kinds(self, kind: str, name: bytes) -> Iterator[str]:
        for each in self.explanations:
            for other, group in GROUP_OF.items():
                if other != kind and name in getattr(each.invalidation, other):
                    soft = " (it has soft: true)" if other == "cdn_soft" and group == GROUP_OF[kind] else ""
                    yield f"it is under {other}, by rule '{each.rule.name}'{soft}"

    def _of_this_table(self, kind: str, name: bytes) -> list[str]:
        """What stands in the way of templates that can make it: only the nearest if the row has other values."""
        group = GROUP_OF[kind]
        if kind not in {group, "cdn_soft"}:
            return []  # patterns come of coarse forms
        hard: list[str] = []
        others: list[tuple[int, str]] = []
        for each in self.explanations:
            for template in getattr(each.rule.exact, group):
                ways = inverse.solutions(template, name, each.rule)
                if ways and (refusing := self._refusing(name)) and group == "cdn":
                    hard.append(f"{refusing} does not take it as a tag")
                elif ways:
                    differs, text = self._obstacle(each, group, template, ways)
                    others.append((-len(derivation.literal_text(template)), text)) if differs else hard.append(text)
        return hard or [text for _, text in sorted(others)[:1]]

    def _refusing(self, tag: bytes) -> str | None:
        return next((grammar.provider for grammar in self.scene.grammars if not grammar.allows(tag)), None)

    def _obstacle(
        self, explanation: RuleExplanation, group: str, template: Template, ways: list[Solution]
    ) -> tuple[bool, str]:
        """Whether it is just that the row has other values, and the text."""
        rule = explanation.rule
        front = f"rule '{rule.name}' has {template.text} ({self._place(rule, group, template)}), but"
        if explanation.outcome is Outcome.FIRED:
            _, differs, text = min(self._mismatch(rule, group, template, way) for way in ways)
            return differs, text
        return False, f"{front} {explanation.why_not}"

    def _mismatch(self, rule: Rule, group: str, template: Template, way: Solution) -> tuple[int, bool, str]:
        """How many values are not rendered, whether the row has others instead, and the text about the first."""
        place = self._place(rule, group, template)
        written = {(part.scope, part.name): part for part in template.references}
        misfits = [
            (misfit[0], f"rule '{rule.name}' uses {_braces(written[reference])} ({place}): {misfit[1]}")
            for reference, value in {(value.reference.scope, value.reference.name): value for value in way}.items()
            if (misfit := self._misfit(value)) is not None
        ]
        if misfits:
            return len(misfits), *min(misfits)
        return 0, False, f"rule '{rule.name}' has {template.text} ({place}), but no one image has all of these values"

    def _misfit(self, value: Value) -> tuple[bool, str] | None:
        """Whether the row has another value, and why this one is not rendered; None if nothing is in its way."""
        scope, column = value.reference.scope, value.reference.name
        if not value.reference.is_row_value:
            return None if value.reference.scope == "meta" else (True, f"the lookup finds no row with {value}")
        fits = [image for image, row in self._given() if column in row and value.holds(value_text(row[column]))]
        wanted = [scope] if scope in {"new", "old"} else fits
        rendered = [image for image in wanted if image in fits]
        if rendered:
            unsent = [self._unsent(column, image) for image in rendered]
            return None if None in unsent else (False, str(unsent[0]))
        return (False, f"the {fits[0]} {column} is never rendered") if fits else (True, self._differs(value))

    def _differs(self, value: Value) -> str:
        has = dict.fromkeys(_shown(row.get(value.reference.name)) for _, row in self._given())
        return f"it would need {value}, and the row has {' and '.join(has) or 'no value'}"

    def _unsent(self, column: str, image: str) -> str | None:
        if column in dict(self._sent()).get(image, {}):
            return None
        identity = ", ".join(each.name for each in self.scene.relation.columns if each.is_identity)
        return f"the {image} {column} is not sent, because the replica identity is {identity}"

    def _given(self) -> list[tuple[str, JsonRow]]:
        images = (("old", self.test.old), ("new", self.test.new))
        return [(image, row) for image, row in images if row is not None]

    def _sent(self) -> list[tuple[str, JsonRow]]:
        if self.scene.operation is Operation.TRUNCATE:
            return []
        _, old, new = read_message(self.scene.relation, self.scene.message)
        keys = {column.name for column in self.scene.relation.columns if column.is_identity}
        if old is None and new is not None and self.scene.relation.replica_identity != "f":
            old = {name: value for name, value in new.items() if name in keys}  # it would have been sent if changed
        return [(image, row) for image, row in (("old", old), ("new", new)) if row is not None]

    def _of_coarse_forms(self, kind: str, name: bytes) -> Iterator[str]:
        """Rules for the table whose coarse form makes it, and was not applied."""
        field = "cdn" if kind == "cdn_soft" else kind
        for each in self.explanations:
            for template in getattr(each.rule.coarse, field):
                if name == encode(template.text) or inverse.solutions(template, name, each.rule):
                    form = f"{_called(each.rule)} has {template.text} in its coarse form"
                    yield f"{form}, and this change needs none: the exact names are known"

    def _of_other_tables(self, kind: str, name: bytes) -> Iterator[str]:
        own = {each.rule.name for each in self.explanations}
        for dropper in inverse.droppers(self.loaded.ruleset, GROUP_OF[kind], name):
            rule = dropper.rule
            if rule.name not in own and not dropper.is_coarse:
                line = self._place(rule, dropper.group, dropper.template)
                table = f"{rule.schema}.{rule.table}"
                yield f"rule '{rule.name}' has {dropper.template.text} ({line}), but is for {table}"

    def _nearest(self, kind: str, name: bytes) -> str:
        group = GROUP_OF[kind]
        known = {
            template.text: f"{template.text} of rule '{each.rule.name}' ({self._place(each.rule, group, template)})"
            for each in self.explanations
            for template in getattr(each.rule.exact, group)
        }
        near = difflib.get_close_matches(name_text(name), known, 1, 0.4)
        own = f"no rule for {self.test.schema}.{self.test.table} makes such a name"
        return f"{own}; the nearest is {known[near[0]]}" if near else own

    def _place(self, rule: Rule, group: str, template: Template) -> str:
        place = self.loaded.places.get((rule.name, group, template.text), rule.place)
        return f"{place.file}:{place.line}"


def _called(rule: Rule) -> str:
    return f"rule '{rule.name}' ({rule.place.file}:{rule.place.line})"


def _braces(reference: Reference) -> str:
    name = reference.name if reference.scope == "row" else f"{reference.scope}.{reference.name}"
    return "{" + "|".join([name, *(step.name for step in reference.filters)]) + "}"


def _shown(value: object) -> str:
    text = value_text(value)
    return "NULL" if text is None else f"'{name_text(text)}'"
