from __future__ import annotations

import pytest

from invalidator.model import Operation
from invalidator.rules.condition import lint, parse

ROWS = frozenset({Operation.INSERT, Operation.UPDATE, Operation.DELETE})
INSERT, UPDATE, DELETE = (
    frozenset({operation}) for operation in (Operation.INSERT, Operation.UPDATE, Operation.DELETE)
)
TRUNCATE = frozenset({Operation.TRUNCATE})


@pytest.mark.parametrize(
    ("text", "events", "code", "severity", "marked", "help"),
    [
        ("a = 1", TRUNCATE, "condition-never", "error", "a = 1", "remove `when:`"),
        ("old.a = 1", INSERT, "condition-never", "error", "old.a", "write a instead of old.a"),
        ("new.a = 1", DELETE, "condition-never", "error", "new.a", "write a instead of new.a"),
        ("a = null and a != null and new.b", DELETE, "condition-never", "error", "new.b", "write b instead of new.b"),
        ("old.a < new.a", INSERT | DELETE, "condition-never", "error", "old.a", "write a instead of old.a"),
        ("changed(a)", INSERT, "condition-always", "warning", "changed(a)", "remove `when:`"),
        ("old.a is null", INSERT, "condition-always", "warning", "old.a is null", "remove `when:`"),
        ("old.a = 1", INSERT | UPDATE, "condition-never", "warning", "old.a", "leave insert out of events:"),
        ("new.a = 1 and changed(b)", ROWS, "condition-never", "warning", "new.a", "leave delete out of events:"),
        ("new.a = 1", INSERT | UPDATE, "condition-leaves", "warning", "new.a", "write a instead of new.a"),
        ("not new.a in (1, 2)", UPDATE, "condition-leaves", "warning", "new.a", "it asks for the row before and after"),
    ],
)
def test_what_can_be_known_without_a_row_is_told(
    text: str, events: frozenset[Operation], code: str, severity: str, marked: str, help: str
) -> None:
    found = lint(parse(text), events)[0]
    assert (found.code, found.severity) == (code, severity)
    assert text[found.offset : found.offset + found.width] == marked
    assert help in (found.help or "")


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("a = 1", ROWS),
        ("a = 1", ROWS | TRUNCATE),
        ("not a and b is null", ROWS),
        ("changed(a)", UPDATE),
        ("changed(a) and a = 1", ROWS),
        ("new.a = 1 and old.a = 2", UPDATE),
        ("new.a = 1 and changed(b)", INSERT | UPDATE),
        ("new.a = 1", INSERT),
        ("old.a = 1 or new.a = 1", ROWS),
        ("a = 1 or a != 1", ROWS),  # nothing is said of values
    ],
)
def test_nothing_is_said_of_what_may_be_meant(text: str, events: frozenset[Operation]) -> None:
    assert lint(parse(text), events) == []
