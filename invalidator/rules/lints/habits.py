"""Templates that are literal text where their author meant a value."""

from __future__ import annotations

from collections.abc import Iterator

from invalidator.rules.lints import foreign
from invalidator.rules.lints.subject import Subject
from invalidator.yamlfile import Diagnostic


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """Habits of other template languages, in every template of the rule and in its prefix."""
    for written in (subject.prefix, *subject.exact, *subject.coarse):
        if not foreign.is_suspect(written.text):
            continue
        for habit in foreign.habits(written.text, subject.columns, is_glob=written.is_glob):
            span = subject.document.within(written.path, habit.offset, habit.width)
            yield subject.note(span, "template-habit", habit.message, habit.help)
