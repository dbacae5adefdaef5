"""Records of ``invalidator tail`` as people read them."""

from __future__ import annotations

from typing import Any

import click
import pytest

from invalidator.cli.output import tail_lines

APPLIED: dict[str, Any] = {
    "record": "applied", "at": 1.5, "target": "redis", "layer": "L2", "invalidation": {"keys": ["a", "b"]}, "names": 2,
    "removed": 1, "receivers": 0, "widened": 0, "is_deferred": False, "is_repeat": False, "seconds": 0.0023,
    "age_seconds": None,
}  # fmt: skip
FIRED: dict[str, Any] = {
    "rule": "post", "outcome": "fired", "why_not": None, "invalidation": {"keys": ["post:a"]}, "lookups": [],
    "widened": [], "repeats": [],
}  # fmt: skip


def transaction(row: dict[str, Any], **fields: object) -> dict[str, Any]:
    whole = {"record": "transaction", "lsn": "0/1A", "xid": 7, "commit_time": 1.5, "rows_not_explained": 0}
    return whole | {"rows": [row]} | fields


def row(**rule: object) -> dict[str, Any]:
    return {"operation": "update", "table": "public.posts", "rules": [FIRED | rule]}


def shown(record: dict[str, Any]) -> list[str]:
    """Without colours and time."""
    return [click.unstyle(line).partition("  ")[2] for line in tail_lines.lines(record)]


def test_a_row_is_one_line_for_each_rule_that_fired() -> None:
    assert shown(transaction(row())) == ["UPDATE   public.posts  post  keys post:a  0/1A xid 7"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"widened": ["bulk"]}, "keys post:a  widened: bulk"),
        ({"repeats": [{"after_seconds": [0.5, 5], "invalidation": {}}]}, "keys post:a  again after 0.5 s, 5 s"),
        ({"lookups": [{"lookup": "author", "parameters": {}}]}, "keys post:a  lookup author"),
        ({"outcome": "condition", "why_not": "when: x is false"}, "not fired: when: x is false"),
        ({"invalidation": {"keys": [f"k{n:02}" for n in range(12)]}}, "k08 k09 … 2 more"),
        (
            {"invalidation": {"key_patterns": ["post:*"], "cdn_soft": ["p"], "cdn_all": True}},
            "keys post:*  cdn softly p",
        ),
        ({"invalidation": {"keys": ["a\x1b[2Jb"]}}, r"keys a\x1b[2Jb"),
    ],
)
def test_a_line_says_what_the_rule_made_of_the_row(rule: dict[str, Any], said: str) -> None:
    assert said in shown(transaction(row(**rule)))[0]


def test_what_was_not_explained_is_counted() -> None:
    assert shown(transaction(row(), rows_not_explained=3))[1] == "… and 3 rows more in transaction 0/1A"


def test_a_message_of_an_application_is_shown_with_what_was_refused() -> None:
    message = {"operation": "message", "invalidation": {"keys": ["a"]}, "refusal": "b is not allowed"}
    assert shown(transaction(message)) == ["MESSAGE  of an application  keys a  refused: b is not allowed  0/1A xid 7"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "redis keys a b (2 names, 1 existed) 2.3 ms"),
        ({"age_seconds": 0.004}, "2.3 ms, 4.0 ms after the commit"),
        ({"is_repeat": True}, "redis again: keys a b (2 names, 1 existed: refilled meanwhile) 2.3 ms"),
        ({"layer": "L1", "receivers": 3}, "(2 names, 3 subscribers)"),
        ({"layer": "L3", "names": 1}, "(1 name)"),
        ({"widened": 2}, "(2 names, 1 existed, 2 widened)"),
    ],
)
def test_a_target_is_shown_with_what_it_did(fields: dict[str, Any], said: str) -> None:
    assert said in shown(APPLIED | fields)[0]


def test_events_misses_and_the_end_are_told() -> None:
    event = {
        "record": "event",
        "at": 1.5,
        "level": "error",
        "event": "gap.found",
        "facts": {"reason": "x", "none": None},
    }
    assert shown(event) == ["gap.found  reason=x"]
    missed = {"record": "missed", "transactions": 3}
    assert [click.unstyle(each) for each in tail_lines.lines(missed)] == [
        "-- 3 transactions came faster than they could be shown"
    ]
    assert [click.unstyle(each) for each in tail_lines.lines({"record": "end", "reason": "bye"})] == ["-- bye"]
    assert list(tail_lines.lines({"record": "something of a newer version"})) == []
