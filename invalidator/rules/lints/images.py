"""Templates and events that never meet: a row before the change for an insert, a row after it for a delete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.model import Operation
from invalidator.rules.lints.subject import Subject, Written
from invalidator.rules.template import Reference
from invalidator.yamlfile import Diagnostic

_IMAGES: Final = {
    Operation.INSERT: frozenset({"new"}),
    Operation.UPDATE: frozenset({"new", "old"}),
    Operation.DELETE: frozenset({"old"}),
}
_EVENTS: Final = {"new": "inserts and updates", "old": "updates and deletes"}


@dataclass(frozen=True, slots=True)
class _Need:
    """An image of the row without which a template has no value."""

    image: str
    who: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    written: Written
    needs: tuple[_Need, ...]

    def renders(self, event: Operation) -> bool:
        return _IMAGES[event] >= {need.image for need in self.needs}


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """References that no listed event has a value for, and events that no template has a name for."""
    events = [event for event in _IMAGES if event in subject.rule.events]
    candidates = [_Candidate(written, tuple(_needs(subject, written))) for written in subject.exact]
    never = [each for each in candidates if not any(map(each.renders, events))]
    if not events:
        return
    for candidate in never:
        message = f"this template never renders: {_why_never(candidate.needs, events)}"
        listed = ", ".join(subject.model.events)
        help_text = f"events: is [{listed}]; add the event that is meant, or write the bare column: it fits every event"
        span, code = subject.document.span(candidate.written.path), "template-never-renders"
        if len(never) == len(candidates):
            message += "; nor does any other of this rule"
            yield subject.note(span, code, message, help_text, severity="error")
        else:
            yield subject.note(span, code, message, help_text)
    if len(never) < len(candidates):
        yield from _idle(subject, events, candidates)


def _needs(subject: Subject, written: Written) -> Iterator[_Need]:
    """The images that all references of a template need, those of its prefix and of its lookups included."""
    prefix = () if written.group == "cdn" else subject.prefix.template.references
    for reference in (*prefix, *written.template.references):
        if reference.scope in _EVENTS:
            yield _Need(reference.scope, _shown(reference))
    for lookup, reference in subject.asked(written.template):
        if reference.scope in _EVENTS:
            yield _Need(reference.scope, f"{_shown(reference)} of the lookup '{lookup}'")


def _why_never(needs: Sequence[_Need], events: Sequence[Operation]) -> str:
    for need in needs:
        if not any(need.image in _IMAGES[event] for event in events):
            return f"{need.who} has a value for {_EVENTS[need.image]} only"
    return "new and old values come together in updates only"


def _idle(subject: Subject, events: Sequence[Operation], candidates: Sequence[_Candidate]) -> Iterator[Diagnostic]:
    """Events that the rule looks at in vain. An insert is not mentioned unless the rule asks for it."""
    is_given = "events" in subject.model.model_fields_set
    for event, image in ((Operation.INSERT, "old"), (Operation.DELETE, "new")):
        if event not in events or any(each.renders(event) for each in candidates):
            continue
        if event is Operation.INSERT and not is_given:
            continue
        example = next(need.who for each in candidates for need in each.needs if need.image == image)
        message = f"{event} drops nothing: there is no {image} row then, and each template needs it, as by {example}"
        help_text = f"write the bare column, which every row has; or leave {event} out of events:"
        why = "what is cached for such a row stays as it was"
        yield subject.note(subject.key("invalidate"), "event-drops-nothing", message, help_text, why=why)


def _shown(reference: Reference) -> str:
    return f"{{{reference.scope}.{reference.name}}}"
