"""What the admin socket answers about the last transactions, bounded and away from the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from invalidator.admin import MAX_LAST, Admin
from invalidator.model import Lsn, Operation, Transaction
from invalidator.postgres import decoder
from invalidator.postgres.recent import RecentRow, RecentTransaction
from invalidator.rules import document
from invalidator.rules.explain import Engines, explain_message, explanation_document
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.rules.rows import relation_of, row_message
from invalidator.rules.rule import RuleSet
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
    return Admin(unused, lambda: kept, lambda: ruleset, (), State(), lambda: 0.0, explicit, lambda: None, unused)


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
    monkeypatch.setattr("invalidator.admin.MAX_ROWS", 5)
    made = (await kept.transactions({"last": "2"}))["transactions"]
    assert [(each["row_count"], len(each["rows"])) for each in made] == [(4, 4), (4, 1)]
    monkeypatch.setattr("invalidator.admin.MAX_EXPLANATIONS", 6)  # two rules for each row
    made = (await kept.transactions({"last": "2"}))["transactions"]
    assert [(each["row_count"], len(each["rows"])) for each in made] == [(4, 3), (4, 0)]


@pytest.mark.parametrize("last", ["0", "-1", "", "many", "1.5", "²", str(MAX_LAST + 1), "9" * 5000])
async def test_a_number_of_transactions_that_is_none_is_refused(ruleset: RuleSet, last: str) -> None:
    with pytest.raises(ValueError, match="not a number from 1 to 1000"):
        await admin(ruleset, [row(1)]).transactions({"last": last})
