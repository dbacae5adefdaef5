"""What the admin socket answers about the last transactions, bounded and away from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from invalidator.admin.handlers import MAX_LAST, Admin
from invalidator.admin.tailing import MAX_WATCHERS, ROWS_PER_LOOK, Tail
from invalidator.model import Lsn, Operation, Transaction
from invalidator.postgres import decoder
from invalidator.postgres.recent import RecentRow, RecentTransaction
from invalidator.rules import document
from invalidator.rules.explain import Engines, explain_message, explanation_document
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.rules.rows import relation_of, row_message
from invalidator.rules.rule import RuleSet
from invalidator.telemetry.happenings import Happenings
from invalidator.telemetry.state import MessageState, State

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug]
    when: id > 0
    invalidate: {keys: ["post:{slug}"]}
  - {name: every, table: "public.*", invalidate: {keys: ["every:{id}"]}}
  - {name: note, table: public.notes, invalidate: {keys: ["note:{id}"]}}
"""
RELATION = relation_of("public", "posts", [{"id": 1, "slug": "a"}])
OPENED = Transaction(1, 2, 3)


def row(number: int, slug: str | None = "a") -> RecentRow:
    return RecentRow(RELATION, row_message(RELATION, Operation.INSERT, None, {"id": number, "slug": slug}))


def update(old: str, new: str) -> RecentRow:
    images = {"id": 1, "slug": old}, {"id": 1, "slug": new}
    return RecentRow(RELATION, row_message(RELATION, Operation.UPDATE, *images))


@pytest.fixture
def ruleset(tmp_path: Path) -> RuleSet:
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    return document.load([tmp_path / "rules.yaml"])


def admin(
    ruleset: RuleSet,
    *changes: Sequence[RecentRow | decoder.LogicalMessage],
    heard: Callable[[], object] = lambda: None,
) -> Admin:
    """With a transaction for each of these lists."""

    def explicit(state: MessageState) -> ExplicitInvalidation:
        heard()
        return ExplicitInvalidation({"keys": [""]}, grammars=(), state=state)

    kept = [RecentTransaction(OPENED, list(each), Lsn(100 + at)) for at, each in enumerate(changes)]
    unused: Any = None
    return Admin(unused, lambda: kept, lambda: ruleset, (), State(), lambda: 0.0, explicit, lambda: None, unused, None)


async def test_only_the_rules_of_the_table_are_explained_each_row_by_itself(ruleset: RuleSet) -> None:
    changes = [row(1), row(0), row(2, None), update("a", "a"), update("a", "b"), RecentRow(RELATION, b""), row(3)]
    (made,) = (await admin(ruleset, changes).transactions({}))["transactions"]
    alone = [
        [explanation_document(each) for each in explain_message(ruleset, RELATION, change.message, OPENED)]
        for change in changes
    ]
    assert [each["rules"] for each in made["rows"]] == alone
    assert {rule["rule"] for each in alone for rule in each} == {"post", "every"}
    assert [each[0]["outcome"] for each in alone] == [
        "fired", "condition", "fired", "unchanged", "fired", "fired", "fired",
    ]  # fmt: skip


def test_a_rule_is_compiled_once_for_all_rows_of_a_relation(ruleset: RuleSet) -> None:
    engines = Engines()
    first, other = ruleset.rules[:2]
    _, engine, state = engines.of(first, RELATION, Operation.INSERT)
    bound = engine.bind(RELATION)
    assert bound is not None
    for number in range(5):
        explain_message(ruleset, RELATION, row(number).message, OPENED, engines=engines)
    assert state.matches[Operation.INSERT] == 1  # of the last row: it is this engine that explains
    assert engines.of(first, RELATION, Operation.INSERT)[1].bind(RELATION) is bound
    assert engines.of(other, RELATION, Operation.INSERT)[1] is not engine


async def test_rows_are_explained_in_a_thread(ruleset: RuleSet) -> None:
    threads: list[int] = []
    message = decoder.LogicalMessage(True, "invalidator", b'{"keys": ["a"]}')
    asked = admin(ruleset, [message], heard=lambda: threads.append(threading.get_ident()))
    (made,) = (await asked.transactions({}))["transactions"]
    assert made["rows"][0]["invalidation"] == {"keys": ["a"]}
    assert threads
    assert threads[0] != threading.get_ident()


async def test_an_answer_explains_so_many_rows_and_counts_the_others(
    ruleset: RuleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = admin(ruleset, [row(1)] * 4, [row(2)] * 4)
    monkeypatch.setattr("invalidator.admin.explaining.MAX_ROWS", 5)
    made = (await kept.transactions({"last": "2"}))["transactions"]
    assert [(each["row_count"], len(each["rows"])) for each in made] == [(4, 4), (4, 1)]
    monkeypatch.setattr("invalidator.admin.explaining.MAX_EXPLANATIONS", 6)  # two rules for each row
    made = (await kept.transactions({"last": "2"}))["transactions"]
    assert [(each["row_count"], len(each["rows"])) for each in made] == [(4, 3), (4, 0)]


@pytest.mark.parametrize("last", ["0", "-1", "", "many", "1.5", "²", str(MAX_LAST + 1), "9" * 5000])
async def test_a_number_of_transactions_that_is_none_is_refused(ruleset: RuleSet, last: str) -> None:
    with pytest.raises(ValueError, match="not a number from 1 to 1000"):
        await admin(ruleset, [row(1)]).transactions({"last": last})


class Kept:
    """A source that keeps these transactions."""

    def __init__(self, *changes: Sequence[RecentRow | decoder.LogicalMessage]) -> None:
        self.kept = [
            RecentTransaction(OPENED, list(each), Lsn(100 + at), number=at + 1) for at, each in enumerate(changes)
        ]

    def recent(self) -> Sequence[RecentTransaction]:
        return self.kept

    def recent_number(self, count: int) -> int:
        return max(0, len(self.kept) - count)

    def recent_after(self, number: int, rows: int) -> Sequence[RecentTransaction]:
        return [each for each in self.kept if each.number is not None and each.number > number][:rows]


async def first(ruleset: RuleSet, source: Kept, **query: list[str]) -> list[dict[str, Any]]:
    """What a watcher sees at its first look."""
    seen: list[dict[str, Any]] = []
    watching = Tail(source, lambda: ruleset, (), explicitly, Happenings(), asyncio.Lock())
    records = watching.watch({"last": ["100"]} | query)
    async for record in records:
        if record is None:
            break
        seen.append(record)
    await records.aclose()
    return seen


def explicitly(state: MessageState) -> ExplicitInvalidation:
    return ExplicitInvalidation({"keys": [""]}, grammars=(), state=state)


async def test_a_watcher_is_told_how_many_transactions_it_missed(ruleset: RuleSet) -> None:
    source = Kept([row(1)], [row(2)], [row(3)])
    del source.kept[0]
    source.recent_number = lambda count: 0  # type: ignore[method-assign]  # what it had seen up to
    seen = await first(ruleset, source)
    assert seen[0] == {"record": "missed", "transactions": 1}
    assert [each["lsn"] for each in seen[1:]] == ["0/65", "0/66"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, [["post:a"], ["every:1"], ["m"]]),
        ({"table": ["public.p*"]}, [["post:a"], ["every:1"]]),
        ({"table": ["public.x"]}, []),
        ({"rule": ["every"]}, [["every:1"]]),
        ({"name": ["p*:a", "m"]}, [["post:a"], ["m"]]),
        ({"kind": ["cdn", "l1"]}, []),
        ({"kind": ["keys"], "rule": ["post"]}, [["post:a"]]),
        ({"target": ["redis"]}, []),
    ],
)
async def test_a_watcher_sees_the_names_it_asked_for(
    ruleset: RuleSet, query: dict[str, list[str]], names: list[list[str]]
) -> None:
    message = decoder.LogicalMessage(True, "invalidator", b'{"keys": ["m"]}')
    seen = await first(ruleset, Kept([row(1), message]), **query)
    rows = [each for record in seen for each in record["rows"]]
    found = [rule["invalidation"] for each in rows for rule in each.get("rules", [each])]
    assert [each["keys"] for each in found] == names


async def test_rows_for_which_no_rule_fired_are_shown_to_who_asks(ruleset: RuleSet) -> None:
    assert await first(ruleset, Kept([row(0)]), rule=["post"]) == []
    (seen,) = await first(ruleset, Kept([row(0)]), rule=["post"], all=["1"])
    assert "when: id > 0 is" in seen["rows"][0]["rules"][0]["why_not"]


async def test_one_look_explains_so_many_rows_and_the_next_look_goes_on(ruleset: RuleSet) -> None:
    (seen,) = await first(ruleset, Kept([row(1)] * (ROWS_PER_LOOK + 5)))
    assert (len(seen["rows"]), seen["rows_not_explained"]) == (ROWS_PER_LOOK, 5)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"tabel": ["x"]}, "'tabel' is nothing that can be asked for"),
        ({"kind": ["key"]}, "'key' is no kind of name: there are keys, tags, patterns, l1, cdn"),
        ({"last": ["-1"]}, "not a number from 0 to 1000"),
    ],
)
async def test_a_wrong_watch_is_refused(ruleset: RuleSet, query: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await first(ruleset, Kept(), **query)


async def test_no_more_than_a_few_watch_at_once(ruleset: RuleSet) -> None:
    happenings = Happenings()
    watching = Tail(None, lambda: ruleset, (), explicitly, happenings, asyncio.Lock())
    watchers = [watching.watch({}) for _ in range(MAX_WATCHERS)]
    for each in watchers:
        assert await anext(each) is None
    with pytest.raises(ValueError, match="8 are watching already"):
        watching.watch({})
    for each in watchers:
        await each.aclose()
    assert happenings.watchers == 0
