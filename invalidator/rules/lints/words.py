"""Text in a condition that was read as the name of a column: it stands in no quotes, or in double ones."""

from __future__ import annotations

from collections.abc import Iterator

from invalidator.rules.condition.tree import Column, Comparison, Truth, columns_of, terms_of
from invalidator.rules.lints.subject import Subject
from invalidator.yamlfile import Diagnostic


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """Equalities with a bare name on the right that the rule uses nowhere else; and `when: no`.

    Two columns may well be compared, so this is never more than a hint; the database knows.
    """
    condition = subject.rule.when
    if condition is None:
        return
    terms = list(terms_of(condition.node))
    for term in terms:
        match term:
            case Comparison("=" | "!=", Column(), Column("row") as right):
                others = {each.name for term in terms for each in columns_of(term) if each is not right}
                if right.name not in others | subject.named:
                    yield _read_as_column(subject, right)
            case Truth(Column("row", "yes" | "no" | "on" | "off") as column):
                span = subject.document.within((*subject.path, "when"), column.offset, column.width)
                message = f"{column.name} is the name of a boolean column here"
                help_text = "name the column that decides; remove `when:` if every row counts"
                yield subject.note(span, "condition-bare-word", message, help_text)
            case _:
                pass


def _read_as_column(subject: Subject, column: Column) -> Diagnostic:
    span = subject.document.within((*subject.path, "when"), column.offset, column.width)
    text = column.name.replace("'", "''")
    message = f"{column.name} is the name of a column here, no text"
    return subject.note(span, "condition-bare-word", message, f"if the text is meant, write '{text}'", severity="info")
