"""The parts of a name in generated source: constants, row values of one image, facts of the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from invalidator.model import WidenReason
from invalidator.rules import globs
from invalidator.rules.coarse import REASON_BITS, TRANSACTION_FACT_FUNCTIONS, relation_facts
from invalidator.rules.compiler.bound import BoundRule
from invalidator.rules.namespace import Namespace
from invalidator.rules.reading import Images
from invalidator.rules.template import DEFAULT, FILTERS, Literal, Reference, Template, encode


@dataclass(frozen=True, slots=True)
class Value:
    """A row value in a template, for one image."""

    name: str
    reference: Reference
    bit: int
    """The reason to widen if it was not sent."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of the transaction."""

    expression: str
    reference: Reference


Part = bytes | Value | Fact


class Parts:
    """Resolves references for one rule in one form of message.

    Args:
        bound: the rule.
        images: the form's images; asked for what the rule needs.
        namespace: where the source finds objects.
    """

    def __init__(self, bound: BoundRule, images: Images, namespace: Namespace) -> None:
        self._bound = bound
        self._images = images
        self._name = namespace.name
        self._facts = relation_facts(bound.relation, images.form.operation)

    def scopes(self, references: Iterable[Reference]) -> tuple[str, ...]:
        """The images it is rendered for: each one there is if it has a bare column, else one."""
        there = {"new": self._images.form.has_new, "old": bool(self._images.form.old)}
        used = {reference.scope for reference in references}
        if any(scope in used and not exists for scope, exists in there.items()):
            return ()
        if "row" in used:
            return tuple(scope for scope, exists in there.items() if exists)
        return ("new",)

    def resolve(self, group: str, template: Template, image: str) -> tuple[list[Part], int]:
        """The parts for one image, constants merged; and why it cannot be rendered, as bits."""
        parts: list[Part] = []
        unavailable = 0
        for part in template.parts:
            made: Part | None
            if isinstance(part, Literal):
                made = encode(part.text)
            elif part.scope == "meta":
                made = self.fact(group, part)
            else:
                made, bit = self.value(part, image if part.scope == "row" else part.scope)
                unavailable |= 0 if made else bit
            if isinstance(made, bytes) and parts and isinstance(parts[-1], bytes):
                parts[-1] += made
            elif made is not None:
                parts.append(made)
        return parts, unavailable

    def fact(self, group: str, reference: Reference) -> bytes | Fact:
        """A fact of the change: a constant if it is known while compiling."""
        known = self._facts.get(reference.name)
        if known is not None:
            value = reference.filtered(known) or b""
            escaped = globs.escape_for_message(value) if group == "l1" else value
            return b"*" if escaped is None else escaped
        expression = f"{self._name(TRANSACTION_FACT_FUNCTIONS[reference.name])}(tx)"
        return Fact(self.filtered(group, reference, expression), reference)

    def value(self, reference: Reference, scope: str) -> tuple[Value | None, int]:
        """A row value, or None if messages of this form do not carry it; and the reason to widen then."""
        column = self._images.columns[reference.name]
        if scope == "new":
            name: str | None = self._images.new_value(column)
            bit = REASON_BITS[WidenReason.VALUE_UNAVAILABLE]
        else:
            name = self._images.old_value(column)
            bit = REASON_BITS[WidenReason.OLD_UNAVAILABLE]
        return (None if name is None else Value(name, reference, bit)), bit

    def expression(self, group: str, part: Part) -> str:
        """The part as source, escaped where names of the group are globs."""
        match part:
            case bytes():
                return repr(part)
            case Fact():
                return part.expression
            case Value():
                return self.filtered(group, part.reference, part.name)

    def filtered(self, group: str, reference: Reference, expression: str) -> str:
        """The source of a value behind the filters of its reference."""
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


def reasons(values: Mapping[str, int]) -> str:
    """The reasons of those values that were not sent, as an expression."""
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return " | ".join(f"({bits} if {name} is False else 0)" for name, bits in values.items())


def identity(part: Part) -> object:
    """What makes two parts the same bytes for every row."""
    match part:
        case bytes():
            return part
        case Fact():
            return part.reference
        case Value():
            return part.name, part.reference.filters
