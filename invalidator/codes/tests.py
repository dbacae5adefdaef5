"""Codes about the tests that stand in rule files."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Tests in rule files"


def _file(tests: str) -> str:
    rule = '  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"]}}\n'
    return f"version: 1\nrules:\n{rule}tests:\n{tests}"


CODES: Final = (
    Code(
        "test-failed",
        "error",
        "The rules do not do what a test in their files expects.",
        "Rules that fail their own tests are used neither at start nor by a reload. `invalidator test` shows for each"
        " name which line of which rule explains it.",
    ),
    Code(
        "test-event",
        "error",
        "A test has none of `insert`, `update`, `delete` and `truncate`, or more than one.",
        "A test is about one change.",
        _file("  - {name: a new user, table: public.users, expect: {}}"),
        _file('  - {name: a new user, table: public.users, insert: {id: 1}, expect: {keys: ["user:1"]}}'),
    ),
    Code(
        "test-without-rule",
        "error",
        "No rule is for the table of this test.",
        "Such a test can only pass if it expects nothing, and says nothing then.",
        _file("  - {name: a new user, table: public.user, insert: {id: 1}, expect: {}}"),
        _file('  - {name: a new user, table: public.users, insert: {id: 1}, expect: {keys: ["user:1"]}}'),
    ),
    Code(
        "test-missing-column",
        "error",
        "The row of a test lacks a column that a rule for its table needs.",
        "In the stream, a column that the table does not have makes the rule widen: hardly what a shortened row means.",
        _file("  - {name: a new user, table: public.users, insert: {name: Ann}, expect: {}}"),
        _file('  - {name: a new user, table: public.users, insert: {id: 1, name: Ann}, expect: {keys: ["user:1"]}}'),
    ),
    Code(
        "test-unknown-lookup",
        "error",
        "A test says what a lookup finds that no rule for its table has.",
        "Probably the name is misspelled, and the lookup that is meant would not be answered.",
        _file('  - {name: a, table: public.users, insert: {id: 1}, lookup: {posts: []}, expect: {keys: ["user:1"]}}'),
        _file('  - {name: a, table: public.users, insert: {id: 1}, expect: {keys: ["user:1"]}}'),
    ),
    Code(
        "duplicate-test",
        "error",
        "Two tests of a file have the same name.",
        "A report of failures could not tell them apart.",
        _file(
            '  - {name: a, table: public.users, insert: {id: 1}, expect: {keys: ["user:1"]}}\n'
            '  - {name: a, table: public.users, delete: {id: 1}, expect: {keys: ["user:1"]}}'
        ),
        _file(
            '  - {name: a, table: public.users, insert: {id: 1}, expect: {keys: ["user:1"]}}\n'
            '  - {name: b, table: public.users, delete: {id: 1}, expect: {keys: ["user:1"]}}'
        ),
    ),
    Code(
        "untested-rule",
        "info",
        "There are tests, but none of them fires this rule.",
        "What nobody has tried out may do something else than its author believes.",
    ),
)
