"""Codes about conditions (``when:``)."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Conditions"

_KEYS: Final = '\ninvalidate: {keys: ["post:{id}"]}'

CODES: Final = (
    Code(
        "condition-syntax",
        "error",
        "The condition cannot be read. The caret stands at the first thing that has no meaning there, and the help"
        " line says what is written instead.",
        "A condition that is read differently from how it was meant leaves entries stale.",
        "when: status like 'publ%'" + _KEYS,
        "when: status in ('published', 'public')" + _KEYS,
    ),
    Code(
        "condition-type",
        "error",
        "A value that the column can never hold, an order that the column does not have, or a column that is no"
        " boolean standing alone. Columns and their types come from the database or the snapshot.",
        "The comparison would never be true, in silence. The daemon does not try: it widens for every row.",
        "-- price is numeric\nwhen: price > 'abc'",
        "when: price > 100",
        language="text",
    ),
    Code(
        "condition-never",
        "warning",
        "For one of the rule's events the condition cannot be true, because it asks for an image that there is not:"
        " `new.` for a delete, `old.` for an insert. An error when it is so for all of them.",
        "A deleted row stays in the caches.",
        "when: new.status = 'published'" + _KEYS,
        "when: status = 'published'" + _KEYS,
    ),
    Code(
        "condition-always",
        "warning",
        "The condition is true for every row.",
        "It looks as if it narrowed the rule.",
        "events: [insert, delete]\nwhen: changed(title)" + _KEYS,
        "events: [insert, delete]" + _KEYS,
    ),
    Code(
        "condition-leaves",
        "warning",
        "The condition asks only for the row after an update. An update that makes it false is not seen. A condition"
        " with `changed(…)` or `old.` in it is taken to know that.",
        "A post that is no longer published stays in the cache as it was.",
        "events: [insert, update]\nwhen: new.status = 'published'" + _KEYS,
        "events: [insert, update]\nwhen: status = 'published'" + _KEYS,
    ),
    Code(
        "condition-bare-word",
        "info",
        "A column is compared with a name that the rule uses nowhere else. A name without quotes, or in double ones,"
        " is a column; a text stands in single quotes. Two columns may be compared: then all is well.",
        "With `--online` or `--schema` a column that does not exist is an error.",
        "when: status = published" + _KEYS,
        "when: status = 'published'" + _KEYS,
    ),
)
