"""Source of one rule for one form of message: does it fire, what does it name, must it widen.

Which images a message of a form carries is known while compiling, so most questions ("is the old value there?") are
answered here and cost nothing per row. A row that cannot be rendered exactly keeps what could be, and adds the
rule's coarse form: more than needed is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.model import Operation, Relation, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules import globs
from invalidator.rules.coarse import REASON_BITS, TRANSACTION_FACT_FUNCTIONS, CoarseForm, Widen, relation_facts, widener
from invalidator.rules.lookup import LookupPlan, l1_escaper
from invalidator.rules.reading import Images
from invalidator.rules.rule import Lookup, Rule
from invalidator.rules.source import Namespace, indented
from invalidator.rules.template import DEFAULT, FILTERS, Literal, Reference, Template, encode
from invalidator.telemetry.state import RuleState

_JOIN_FROM: Final = 4
"""From so many parts on, one join is cheaper than concatenations."""


def missing_columns(rule: Rule, relation: Relation) -> frozenset[str]:
    """The columns that the rule names and the relation does not have."""
    exact = rule.exact
    named = set(rule.changed or ())
    for template in (*exact.keys, *exact.tags, *exact.l1, *exact.cdn):
        named |= template.columns
    for lookup in rule.lookups:
        named |= _parameter_columns(lookup)
    return frozenset(named - {column.name for column in relation.columns})


class BoundRule:
    """One rule of one relation: its state, and the functions that the generated source calls."""

    def __init__(
        self, index: int, rule: Rule, relation: Relation, state: RuleState, grammars: Sequence[TagGrammar]
    ) -> None:
        self.index = index
        self.rule = rule
        self.relation = relation
        self.state = state
        self.grammars = grammars
        self.missing = missing_columns(rule, relation)
        self.escape = l1_escaper(state)
        self._wideners: dict[Operation, Widen] = {}
        self._plans: dict[tuple[str, tuple[tuple[str, str], ...]], LookupPlan] = {}

    def widener(self, operation: Operation) -> Widen:
        """Counts the reasons and adds the rule's coarse form."""
        made = self._wideners.get(operation)
        if made is None:
            form = CoarseForm(self.rule, relation_facts(self.relation, operation), self.grammars)
            made = self._wideners[operation] = widener(self.state, form)
        return made

    def takes(self, tag: bytes) -> bool:
        """Whether every CDN takes this tag."""
        return all(grammar.allows(tag) for grammar in self.grammars)

    def plan(self, lookup: Lookup, templates: Sequence[tuple[str, Template]]) -> LookupPlan:
        """What is asked, and done with the answers, for these templates; the same ones are asked for together."""
        key = lookup.name, tuple((group, template.text) for group, template in templates)
        made = self._plans.get(key)
        if made is None:
            made = LookupPlan(self.rule, lookup, templates, self.relation, self.state, self.grammars, self.escape)
            self._plans[key] = made
        return made


def _parameter_columns(lookup: Lookup) -> set[str]:
    return {reference.name for reference in lookup.sql.parameters if reference.is_row_value}


@dataclass(frozen=True, slots=True)
class _Value:
    """A row value in a template, for one image."""

    name: str
    reference: Reference
    bit: int
    """The reason to widen if it was not sent."""


@dataclass(frozen=True, slots=True)
class _Fact:
    """A fact of the transaction."""

    expression: str
    reference: Reference


_Part = bytes | _Value | _Fact


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
        self._facts = relation_facts(bound.relation, self._operation)
        self._bits = REASON_BITS[WidenReason.MISSING_COLUMN] if bound.missing else 0  # known while compiling
        self._may_widen = False  # something is known only when a row is there

    def lines(self) -> list[str]:
        """Everything that the rule does with one row."""
        state = self._name(self._bound.state)
        unchanged = f"{state}.unchanged += 1"
        condition = self._condition()
        if condition is False:
            return [unchanged]
        fired = [f"{self._name(self._bound.state.matches)}[{self._name(self._operation)}] += 1", *self._bounded()]
        if condition is True:
            return fired
        return [f"if {condition}:", *indented(fired), f"else: {unchanged}"]

    def _condition(self) -> str | bool:
        """When the rule fires; a bool if that is known already."""
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
        for lookup in self._rule.lookups:
            lines += self._lookup(lookup)
        if self._may_widen:
            call = f"{self._widen()}(inv, tx, w)"
            return [f"w = {self._bits}", *lines, call if self._bits else f"if w: {call}"]
        return [*lines, f"{self._widen()}(inv, tx, {self._bits})"] if self._bits else lines

    def _template(self, group: str, template: Template) -> list[str]:
        lines: list[str] = []
        seen: list[object] = []
        for scope in self._scopes(template.references):
            parts, unavailable = self._resolve(group, template, scope)
            same = [_identity(part) for part in parts]
            if unavailable:
                self._bits |= unavailable
            elif same not in seen:  # the old row may be known to have the new row's values
                seen.append(same)
                lines += self._instance(group, parts)
        return lines

    def _scopes(self, references: Iterable[Reference]) -> tuple[str, ...]:
        """The images it is rendered for: each one there is if it has a bare column, else one."""
        there = {"new": self._images.form.has_new, "old": bool(self._images.form.old)}
        used = {reference.scope for reference in references}
        if any(scope in used and not exists for scope, exists in there.items()):
            return ()
        if "row" in used:
            return tuple(scope for scope, exists in there.items() if exists)
        return ("new",)

    def _resolve(self, group: str, template: Template, image: str) -> tuple[list[_Part], int]:
        """The parts for one image, constants merged; and why it cannot be rendered, as bits."""
        parts: list[_Part] = []
        unavailable = 0
        for part in template.parts:
            made: _Part | None
            if isinstance(part, Literal):
                made = encode(part.text)
            elif part.scope == "meta":
                made = self._fact(group, part)
            else:
                made, bit = self._value(part, image if part.scope == "row" else part.scope)
                unavailable |= 0 if made else bit
            if isinstance(made, bytes) and parts and isinstance(parts[-1], bytes):
                parts[-1] += made
            elif made is not None:
                parts.append(made)
        return parts, unavailable

    def _fact(self, group: str, reference: Reference) -> bytes | _Fact:
        known = self._facts.get(reference.name)
        if known is not None:
            value = reference.filtered(known) or b""
            escaped = globs.escape_for_message(value) if group == "l1" else value
            return b"*" if escaped is None else escaped
        expression = f"{self._name(TRANSACTION_FACT_FUNCTIONS[reference.name])}(tx)"
        return _Fact(self._filtered(group, reference, expression), reference)

    def _value(self, reference: Reference, scope: str) -> tuple[_Value | None, int]:
        column = self._images.columns[reference.name]
        if scope == "new":
            name: str | None = self._images.new_value(column)
            bit = REASON_BITS[WidenReason.VALUE_UNAVAILABLE]
        else:
            name = self._images.old_value(column)
            bit = REASON_BITS[WidenReason.OLD_UNAVAILABLE]
        return (None if name is None else _Value(name, reference, bit)), bit

    def _instance(self, group: str, parts: Sequence[_Part]) -> list[str]:
        """Render for one image, if all its values were sent and none is NULL without a default."""
        add = self._add(group, parts)
        values: dict[str, int] = {}  # name -> reasons if it was not sent
        strict: dict[str, None] = {}
        for part in parts:
            if isinstance(part, _Value):
                values[part.name] = values.get(part.name, 0) | part.bit
                if part.reference.filtered(None) is None:
                    strict[part.name] = None
        if not values:
            return add
        self._may_widen = True
        unsent = " or ".join(f"{name} is False" for name in values)
        lines = [f"if {unsent}: w |= {_reasons(values)}"]
        if strict:
            nulls = " or ".join(f"{name} is None" for name in strict)
            lines.append(f"elif {nulls}: {self._name(self._bound.state)}.null_skips += 1")
        lines += ["else:", *indented(add)]
        if len(strict) == len(values):
            # Most rows take this branch. An empty text is not true and goes on to the last one.
            return [f"if {' and '.join(values)}:", *indented(add), f"el{lines[0]}", *lines[1:]]
        return lines

    def _lookup(self, lookup: Lookup) -> list[str]:
        """Note the values that a lookup is to be asked with, for each image; rendered is when it was answered."""
        missing, asked_with = self._bound.missing, lookup.sql.parameters
        exact = self._rule.exact
        templates = [
            (group, template)
            for group, members in (("keys", exact.keys), ("tags", exact.tags), ("l1", exact.l1), ("cdn", exact.cdn))
            for template in members
            if lookup.name in template.lookups
            and not template.columns & missing
            and self._scopes((*template.references, *asked_with))
        ]
        if not templates or _parameter_columns(lookup) & missing:
            return []
        plan = self._bound.plan(lookup, templates)
        lines: list[str] = []
        seen: list[object] = []
        for scope in self._scopes(plan.slots):
            parts, unavailable = self._asked(plan, scope)
            same = [_identity(part) for part in parts]
            if unavailable:
                self._bits |= unavailable
            elif same not in seen:
                seen.append(same)
                lines += self._ask(plan, parts)
        return lines

    def _asked(self, plan: LookupPlan, image: str) -> tuple[list[_Part], int]:
        """The values of one image as the plan wants them; and why they cannot be told, as bits."""
        parts: list[_Part] = []
        unavailable = 0
        for slot in plan.slots:
            if slot.scope == "meta":
                parts.append(self._fact("", slot))
                continue
            value, bit = self._value(slot, image if slot.scope == "row" else slot.scope)
            if value is None:
                unavailable |= bit
            else:
                parts.append(value)
        return parts, unavailable

    def _ask(self, plan: LookupPlan, parts: Sequence[_Part]) -> list[str]:
        """Note one image's values, if all were sent and no parameter is NULL: that would find nothing."""
        name = self._name(plan)
        values = "".join(f"{self._expression('', part)}, " for part in parts)
        ask = [
            f"a = inv.lookups.get({name})",
            f"if a is None: a = inv.lookups[{name}] = set()",
            f"a.add(({values}))",
            "inv.lookup_transactions[tx.xid] = tx.final_lsn",
        ]
        sent = {part.name: part.bit for part in parts if isinstance(part, _Value)}
        if not sent:
            return ask
        self._may_widen = True
        bound = {part.name: None for part in parts[: len(plan.type_oids)] if isinstance(part, _Value)}
        lines = [f"if {' or '.join(f'{value} is False' for value in sent)}: w |= {_reasons(sent)}"]
        if bound:
            nulls = " or ".join(f"{value} is None" for value in bound)
            lines.append(f"elif {nulls}: {self._name(self._bound.state)}.null_skips += 1")
        return [*lines, "else:", *indented(ask)]

    def _add(self, group: str, parts: Sequence[_Part]) -> list[str]:
        """Add the rendered name, and once more to what is repeated."""
        expressions = [self._expression(group, part) for part in parts] or ["b''"]
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

    def _checked(self, parts: Sequence[_Part], lines: list[str]) -> list[str]:
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

    def _expression(self, group: str, part: _Part) -> str:
        match part:
            case bytes():
                return repr(part)
            case _Fact():
                return part.expression
            case _Value():
                return self._filtered(group, part.reference, part.name)

    def _filtered(self, group: str, reference: Reference, expression: str) -> str:
        if any(step.name == DEFAULT for step in reference.filters):
            expression = f"{self._name(reference.filtered)}({expression})"
        else:
            for step in reference.filters:
                expression = f"{self._name(FILTERS[step.name])}({expression})"
        if group != "l1":
            return expression
        escaped = f"{self._name(self._bound.escape)}({expression})"
        # Ids have nothing to escape, and this test is much cheaper than the call.
        return f"({expression} if {expression}.isalnum() else {escaped})" if expression.isidentifier() else escaped


def _reasons(values: Mapping[str, int]) -> str:
    """The reasons of those values that were not sent, as an expression."""
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return " | ".join(f"({bits} if {name} is False else 0)" for name, bits in values.items())


def _identity(part: _Part) -> object:
    """What makes two parts the same bytes for every row."""
    match part:
        case bytes():
            return part
        case _Fact():
            return part.reference
        case _Value():
            return part.name, part.reference.filters
