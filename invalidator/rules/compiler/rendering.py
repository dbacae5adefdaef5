"""Source of one rule for one form of message: does it fire, what does it name, must it widen.

Which images a message of a form carries is known while compiling, so most questions ("is the old value there?") are
answered here and cost nothing per row. A row that cannot be rendered exactly keeps what could be, and adds the
rule's coarse form: more than needed is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from invalidator.model import Operation, WidenReason
from invalidator.rules import condition
from invalidator.rules.coarse import REASON_BITS
from invalidator.rules.compiler.asking import AskingCode
from invalidator.rules.compiler.bound import BoundRule
from invalidator.rules.compiler.parts import Part, Parts, Value, identity, reasons
from invalidator.rules.namespace import Namespace, indented
from invalidator.rules.reading import Images
from invalidator.rules.template import Template

_JOIN_FROM: Final = 4
"""From so many parts on, one join is cheaper than concatenations."""


class RuleCode:
    """The lines of one rule in one form.

    Args:
        bound: the rule.
        images: the form's images; asked for what the rule needs.
        namespace: where the source finds objects.
        repeats: delays -> the variable that holds what is repeated after them; shared by the rules of a form.
    """

    def __init__(
        self, bound: BoundRule, images: Images, namespace: Namespace, repeats: dict[tuple[float, ...], str]
    ) -> None:
        self._bound = bound
        self._rule = bound.rule
        self._images = images
        self._operation = images.form.operation
        self._name = namespace.name
        self._repeats = repeats
        self._parts = Parts(bound, images, namespace)
        self._bits = REASON_BITS[WidenReason.MISSING_COLUMN] if bound.missing else 0  # known while compiling
        self._bits |= REASON_BITS[WidenReason.RULE_ERROR] if bound.misfit is not None else 0
        self._may_widen = False  # something is known only when a row is there

    def lines(self) -> list[str]:
        """Everything that the rule does with one row."""
        state = self._name(self._bound.state)
        changed = self._changed()
        when = True if changed is False else self._condition()
        fired = [] if when is False or changed is False else self._fired()
        return _if(changed, _if(when, fired, f"{state}.condition_false += 1"), f"{state}.unchanged += 1")

    def _fired(self) -> list[str]:
        state = self._bound.state
        lines = [f"{self._name(state.matches)}[{self._name(self._operation)}] += 1"]
        if self._bound.misfit is not None:
            lines.append(f"{self._name(state.errors)}[{self._name(WidenReason.RULE_ERROR)}] += 1")
        return [*lines, *self._bounded()]

    def _condition(self) -> str | bool:
        """Whether the rule's `when` holds or may; a bool if that is known already. What cannot be asked may hold."""
        when, bound = self._rule.when, self._bound
        if when is None or bound.misfit is not None or when.columns & bound.missing:
            return True
        kinds = condition.kinds_of(condition.column_types(bound.relation))
        return condition.condition_source(when, kinds, self._images, self._name)

    def _changed(self) -> str | bool:
        """Whether one of the rule's `changed` columns changed or may have; a bool if that is known already."""
        changed = self._rule.changed
        if self._operation is not Operation.UPDATE or changed is None or changed & self._bound.missing:
            return True
        images = self._images
        terms: list[str] = []
        for column in sorted(images.columns[name] for name in changed):
            if images.form.old == "N" and column in images.key_columns:
                continue  # unchanged, or the old identity would have been sent
            old = images.old_value(column)
            terms.append(images.was_sent(column) if old is None else f"{old} != {images.new_value(column)}")
        return " or ".join(terms) or False

    def _bounded(self) -> list[str]:
        """The exact form up to the bound of rows in one transaction, then the coarse form, once."""
        exact = self._exact() or ["pass"]
        limit = self._rule.bulk_over
        if limit is None:
            return exact
        key = self._name((self._bound.index, self._bound.relation.name))
        return [
            "bulk = tx.bulk_rows",
            f"seen = bulk[{key}] = bulk.get({key}, 0) + 1",
            f"if seen <= {limit}:",
            *indented(exact),
            f"elif seen == {limit + 1}: {self._widen()}(inv, tx, {REASON_BITS[WidenReason.BULK]})",
        ]

    def _widen(self) -> str:
        return self._name(self._bound.widener(self._operation))

    def _exact(self) -> list[str]:
        """All templates, each for its images; then the coarse form if one of them could not be told exactly."""
        exact = self._rule.exact
        lines: list[str] = []
        for group, templates in (("keys", exact.keys), ("tags", exact.tags), ("l1", exact.l1), ("cdn", exact.cdn)):
            for template in templates:
                if not template.columns & self._bound.missing and not template.lookups:
                    lines += self._template(group, template)
        asking = AskingCode(self._bound, self._parts, self._name)
        for lookup in self._rule.lookups:
            lines += asking.lines(lookup)
        self._bits |= asking.bits
        self._may_widen = self._may_widen or asking.may_widen
        if self._may_widen:
            call = f"{self._widen()}(inv, tx, w)"
            return [f"w = {self._bits}", *lines, call if self._bits else f"if w: {call}"]
        return [*lines, f"{self._widen()}(inv, tx, {self._bits})"] if self._bits else lines

    def _template(self, group: str, template: Template) -> list[str]:
        lines: list[str] = []
        seen: list[object] = []
        for scope in self._parts.scopes(template.references):
            parts, unavailable = self._parts.resolve(group, template, scope)
            same = [identity(part) for part in parts]
            if unavailable:
                self._bits |= unavailable
            elif same not in seen:  # the old row may be known to have the new row's values
                seen.append(same)
                lines += self._instance(group, parts)
        return lines

    def _instance(self, group: str, parts: Sequence[Part]) -> list[str]:
        """Render for one image, if all its values were sent and none is NULL without a default."""
        add = self._add(group, parts)
        values: dict[str, int] = {}  # name -> reasons if it was not sent
        strict: dict[str, None] = {}
        for part in parts:
            if isinstance(part, Value):
                values[part.name] = values.get(part.name, 0) | part.bit
                if part.reference.filtered(None) is None:
                    strict[part.name] = None
        if not values:
            return add
        self._may_widen = True
        unsent = " or ".join(f"{name} is False" for name in values)
        lines = [f"if {unsent}: w |= {reasons(values)}"]
        if strict:
            nulls = " or ".join(f"{name} is None" for name in strict)
            lines.append(f"elif {nulls}: {self._name(self._bound.state)}.null_skips += 1")
        lines += ["else:", *indented(add)]
        if len(strict) == len(values):
            # Most rows take this branch. An empty text is not true and goes on to the last one.
            return [f"if {' and '.join(values)}:", *indented(add), f"el{lines[0]}", *lines[1:]]
        return lines

    def _add(self, group: str, parts: Sequence[Part]) -> list[str]:
        """Add the rendered name, and once more to what is repeated."""
        expressions = [self._parts.expression(group, part) for part in parts] or ["b''"]
        rendered = " + ".join(expressions)
        if len(expressions) >= _JOIN_FROM:
            rendered = f"b''.join(({', '.join(expressions)}))"
        target = "cdn_soft" if group == "cdn" and self._rule.soft else group
        delays = self._rule.repeat_after
        is_checked = group == "cdn" and bool(self._bound.grammars)
        if not delays and not is_checked:
            return [f"inv.{target}.add({rendered})"]
        lines = [f"inv.{target}.add(v)"]
        if delays:
            repeat = self._repeats.setdefault(delays, f"r{len(self._repeats)}")
            lines.append(f"if {repeat} is None: {repeat} = inv.repeated({self._name(delays)})")
            lines.append(f"{repeat}.{target}.add(v)")
        return [f"v = {rendered}", *(self._checked(parts, lines) if is_checked else lines)]

    def _checked(self, parts: Sequence[Part], lines: list[str]) -> list[str]:
        """Add the CDN tag ``v`` only if every CDN takes it (``TagGrammar.allows``, without the calls)."""
        unsafe = REASON_BITS[WidenReason.UNSAFE_VALUE]
        if len(parts) == 1 and isinstance(parts[0], bytes):
            if self._bound.takes(parts[0]):
                return lines
            self._bits |= unsafe
            return []
        self._may_widen = True
        grammars = self._bound.grammars
        terms = [f"len(v) <= {min(grammar.max_bytes for grammar in grammars)}"]
        terms += [f"{self._name(pattern)}.fullmatch(v)" for pattern in {grammar.pattern: None for grammar in grammars}]
        return [f"if {' and '.join(terms)}:", *indented(lines), f"else: w |= {unsafe}"]


def _if(test: str | bool, then: Sequence[str], otherwise: str) -> list[str]:
    if isinstance(test, bool):
        return list(then) if test else [otherwise]
    return [f"if {test}:", *indented(then), f"else: {otherwise}"]
