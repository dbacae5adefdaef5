"""Codes about one template."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Templates"

CODES: Final = (
    Code(
        "template-syntax",
        "error",
        "The template cannot be read; the caret stands where it stops making sense. A value has 16 filters at most.",
        "",
        'invalidate: {keys: ["user:{id"]}',
        'invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "unknown-filter",
        "error",
        "There is no filter of this name.",
        "",
        'invalidate: {keys: ["user:{name|lowercase}"]}',
        'invalidate: {keys: ["user:{name|lower}"]}',
    ),
    Code(
        "unknown-meta",
        "error",
        "There is no such fact of a change.",
        "",
        'invalidate: {keys: ["{meta.tabel}:{id}"]}',
        'invalidate: {keys: ["{meta.table}:{id}"]}',
    ),
    Code(
        "unconfined-template",
        "error",
        "Nothing literal stands before the first row value, or before a `*`. The prefix counts as literal.",
        "A row whose value is `session:42` could drop whatever it names.",
        'invalidate: {keys: ["{slug}"]}',
        'invalidate: {keys: ["post:{slug}"]}',
    ),
    Code(
        "glob-around-value",
        "error",
        "In an L1 pattern a row value stands inside a class `[…]`, or right behind a backslash.",
        "Values are escaped so that they match themselves alone; inside a class, or behind a backslash, the escape"
        " itself would be read as something else, and the pattern would drop other names or none.",
        'invalidate: {l1: ["shard-[0-{id}]:*"]}',
        'invalidate: {l1: ["shard-[0-9]:{id}:*"]}',
    ),
    Code(
        "glob-in-key",
        "error",
        "`*`, `?` or `[` stands where an exact name is meant. For a CDN tag this is a warning.",
        "Under `invalidate:`, keys, tags and CDN tags are exact: the name with a star in it would be dropped, and"
        " nothing else. Patterns belong under `l1:` and `coarse:`.",
        'invalidate: {keys: ["user:{id}:*"]}',
        'invalidate: {tags: ["user:{id}"]}\ncoarse: {keys: ["user:*"]}',
    ),
    Code(
        "template-habit",
        "warning",
        "The template is written as in another language: `{{id}}`, `${id}`, `$id`, `%s`, `<id>`, `:id`; or a column in"
        " capitals; `.*` where a glob stands; typographic quotes, an invisible character or a blank at an end; or a"
        " variable in `table:`. It is valid, and means these very characters. A column that was made in capitals is"
        ' written in quotes: `{"ID"}`. What may well be meant, such as `users::all`, is told only if the name is one of'
        " a column.",
        "The name that it makes is in no cache, so nothing would ever be dropped.",
        'invalidate: {keys: ["user:{{id}}"]}',
        'invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "template-never-renders",
        "warning",
        "The template needs a row that none of the rule's events has: `{new.…}` for deletes, `{old.…}` for inserts. An"
        " error when it is so for all templates of the rule.",
        "It would never drop anything. A bare column has a value for every event.",
        'events: [delete]\ninvalidate: {keys: ["user:{new.id}"]}',
        'events: [delete]\ninvalidate: {keys: ["user:{id}"]}',
    ),
)
