"""What ``explain`` says of each rule: fired or why not, what it would drop, and which line of the rules makes it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invalidator.rules.explain import KINDS, Outcome, explanation_document, name_text
from invalidator.rules.rule import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from invalidator.cli.explaining.change import Change
    from invalidator.model import Invalidation, Relation
    from invalidator.rules.document import Loaded
    from invalidator.rules.explain import Answer, RuleExplanation, Scene
    from invalidator.rules.rule import Rule

_VERBS = {
    "keys": "unlink",
    "tags": "unlink the tag sets' keys",
    "key_patterns": "scan and unlink",
    "tag_patterns": "scan for tag sets and unlink their keys",
    "l1": "publish",
    "cdn": "purge",
    "cdn_soft": "purge softly",
}
_LABELS = {"key_patterns": "keys", "tag_patterns": "tags", "cdn_soft": "cdn"}


@dataclass(frozen=True, slots=True)
class Explained:
    """One change, and what the rules for its table would do."""

    change: Change
    scene: Scene
    loaded: Loaded
    explanations: Sequence[RuleExplanation]
    """Of the rules for the table."""

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "event": self.change.operation.value,
            "table": self.change.relation.name,
            "rules": [explanation_document(each) for each in self.explanations],
        }

    def lines(self) -> list[str]:
        """For people."""
        if not self.explanations:
            return list(_nothing(self.change.relation, self.loaded))
        lines = [line for each in self.explanations for line in self._rule(each)]
        if self.change.note:
            lines.append(f"({self.change.note})")
        others = len(self.loaded.ruleset.rules) - len(self.explanations)
        if others:
            lines.append(f"({others} {'rule is' if others == 1 else 'rules are'} for other tables)")
        return lines

    def _rule(self, explanation: RuleExplanation) -> Iterator[str]:
        rule = explanation.rule
        head = f"rule {rule.name} ({rule.place.file}:{rule.place.line})"
        if explanation.outcome is not Outcome.FIRED:
            yield f"{head:<40} not fired: {explanation.why_not}"
            return
        yield f"{head:<40} {str(self.change.operation).upper()}"
        if rule.changed is not None and self.change.operation == "update":
            yield _row("changed", _differences(rule.changed, self.change, self.scene))
        if explanation.condition is not None and rule.when is not None:
            yield _row("when", rule.when.text, explanation.condition)
        for question in explanation.questions:
            asked = ", ".join(f"{name} = {json.dumps(value)}" for name, value in question.parameters)
            what = "" if question.is_answered else "not run: tell what it finds with --lookup, or use --online"
            yield _row("lookup", f"{question.lookup.name} with {asked}", what)
        yield from self._names(explanation)
        for delays in explanation.invalidation.repeats:
            yield _row("repeat", ", ".join(f"+{delay:g}s" for delay in delays))
        if explanation.missing_columns:
            yield _row("missing", ", ".join(explanation.missing_columns), "the table has no such column")
        if explanation.not_given:
            columns = ", ".join(explanation.not_given)
            yield _row("not told", columns, "the row lacks them: templates that need them are left out")
        if explanation.null_skips:
            yield _row("skipped", str(explanation.null_skips), "templates with a NULL in them")

    def _names(self, explanation: RuleExplanation) -> Iterator[str]:
        """Per kind: the names, and beneath them what made them."""
        invalidation = explanation.invalidation
        templates = list(self._templates(explanation.rule))
        for kind in KINDS:
            names = getattr(invalidation, kind)
            if not names:
                continue
            yield _row(_LABELS.get(kind, kind), "  ".join(name_text(name) for name in sorted(names)), _VERBS[kind])
            yield from (_row("", f"← {origin}") for origin, alone in templates if getattr(alone, kind))
            if names.difference(*(getattr(alone, kind) for _, alone in templates)):
                yield _row("", "← the coarse form")
        if invalidation.cdn_all:
            yield _row("cdn", "everything", "purge, where purge_all_on_gap consents")
        if explanation.widened:
            from invalidator.rules.reasons import WIDEN_WORDS

            why = "; ".join(f"{reason}: {WIDEN_WORDS[reason]}" for reason in explanation.widened)
            yield _row("widened", why)

    def _templates(self, rule: Rule) -> Iterator[tuple[str, Invalidation]]:
        """Each exact template of the rule, with its place, and what it makes by itself."""
        for group in GROUPS:
            for template in getattr(rule.exact, group):
                place = self.loaded.places.get((rule.name, group, template.text), rule.place)
                yield f"{template.text} ({place.file}:{place.line})", self.scene.exact(rule, group, template)


def _nothing(relation: Relation, loaded: Loaded) -> Iterator[str]:
    yield f"no rule is for {relation.name}"
    tables = sorted({f"{rule.schema}.{rule.table}" for rule in loaded.ruleset.rules})
    near = difflib.get_close_matches(relation.name, tables, 1, 0.5)
    yield f"   = help: did you mean {near[0]}?" if near else f"   = help: there are rules for {', '.join(tables)}"


def _differences(changed: Iterable[str], change: Change, scene: Scene) -> str:
    """What changed, as Postgres sends it: of the old row the replica identity only."""
    from invalidator.rules.explain import known_rows

    old: Mapping[str, Any] = change.old or {}
    new: Mapping[str, Any] = change.new or {}
    sent = known_rows(scene.relation, scene.message)[0] or {}
    parts = []
    for name in sorted(changed):
        if name not in old and name not in new:
            parts.append(f"{name} (not told: counts as unchanged)")
        elif name not in old or name not in new or name not in sent:
            parts.append(f"{name} (not sent, so it may have changed)")
        elif old[name] != new[name]:
            parts.append(f"{name} {json.dumps(old[name])} → {json.dumps(new[name])}")
    return ", ".join(parts) or "nothing"


def _row(label: str, value: str, verb: str = "") -> str:
    return f"  {label:<8} {value:<34} {verb}".rstrip()


def explained(change: Change, loaded: Loaded, grammars: Sequence[Any], answer: Answer | None = None) -> Explained:
    """What the rules would do with the change.

    Raises:
        ConfigError: a row names a column that the relation does not have.
    """
    from dataclasses import replace

    from invalidator.model import Column
    from invalidator.rules.explain import needed_columns, rules_for, scene
    from invalidator.rules.guessing import with_likely_types

    relation, rules = change.relation, rules_for(loaded.ruleset, change.relation)
    lacking: frozenset[str] = frozenset()
    rows = [row for row in (change.old, change.new) if row is not None]
    if rows and not change.is_whole:  # nobody told what else the table has, so no column counts as missing
        needed: frozenset[str] = frozenset().union(*map(needed_columns, rules))
        lacking = needed - {column.name for column in relation.columns}
        more = tuple(Column(name, 25, is_identity=relation.replica_identity == "f") for name in sorted(lacking))
        relation = with_likely_types(replace(relation, columns=(*relation.columns, *more)), rows, rules)
    images = change.old, change.new
    shown = scene(relation, change.operation, *images, cdn_grammars=grammars, not_given=lacking, answer=answer)
    return Explained(change, shown, loaded, [shown.explain(rule) for rule in rules])
