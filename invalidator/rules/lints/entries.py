"""Lists, options and table globs that say nothing, or too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from invalidator.rules.lints.subject import GROUPS, Subject
from invalidator.yamlfile import Diagnostic

_FORMS: Final = ("invalidate", "coarse")


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """An entry that stands twice, a glob for all tables, an option about nothing."""
    model, rule = subject.model, subject.rule
    yield from _twice(subject, model.events, "events")
    yield from _twice(subject, model.changed or (), "changed")
    for form in _FORMS:
        for group in GROUPS:
            yield from _twice(subject, getattr(getattr(model, form), group), form, group)
    if set(rule.schema) | set(rule.table) == {"*"}:
        message = "this rule looks at every table of every schema, also at those that no cache holds"
        help_text = "name a schema, as in 'public.*', or write a rule per table"
        why = "each change of any table is decoded and rendered, and the publication needs all tables"
        yield subject.note(subject.value("table"), "table-too-wide", message, help_text, why=why)
    if model.soft and not rule.exact.cdn:
        message = "`soft:` is about CDN tags, and this rule has none"
        yield subject.note(
            subject.key("soft"), "soft-without-cdn", message, "add cdn: under invalidate:, or remove soft:"
        )


def _twice(subject: Subject, entries: Sequence[str], *where: str) -> Iterator[Diagnostic]:
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if seen.setdefault(entry, index) != index:
            message = f"'{entry}' stands twice in this list"
            yield subject.note(subject.value(*where, index), "duplicate-entry", message, "remove one of them")
