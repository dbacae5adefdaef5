"""Lists, options and table globs that say nothing, or too much."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from invalidator.rules.lints.subject import Subject
from invalidator.rules.rule import GROUPS
from invalidator.yamlfile import Diagnostic

_FORMS: Final = ("invalidate", "coarse")
_VARIABLE: Final = re.compile(r"\$?\{[^{}]*\}+|(?<!\w)\$\w+")


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """An entry that stands twice, a glob for all tables, an option about nothing, a field without a value."""
    model, rule = subject.model, subject.rule
    for name in sorted(model.model_fields_set):
        if getattr(model, name) is None:
            yield _without_value(subject, name)
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
    variable = _VARIABLE.search(model.table)
    if variable is not None:
        message = f"{variable[0]}: rule files know no variables, this is a part of the table's name"
        span = subject.document.within((*subject.path, "table"), variable.start(), len(variable[0]))
        yield subject.note(span, "template-habit", message, "write the name, or '*' for any characters")
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


def _without_value(subject: Subject, name: str) -> Diagnostic:
    message = f"`{name}:` has no value, so it counts as not written"
    inherited = " and that of defaults: holds" if name in {"prefix", "soft", "repeat_after"} else ""
    help_text = f'write {name}: "" for none, or remove it' if name == "prefix" else "write a value, or remove it"
    return subject.note(subject.key(name), "empty-field", message + inherited, help_text)
