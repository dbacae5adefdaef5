from __future__ import annotations

import re

import pytest

from invalidator.errors import ConfigError
from invalidator.model import Invalidation, Operation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.explain import Outcome, explain, row_message
from invalidator.rules.rule import Coarse, Exact, Place, Rule, RuleSet
from invalidator.rules.template import parse
from tests.support import pgoutput
from tests.support.pgoutput import UNCHANGED, make_relation

ARTICLE = make_relation("id", "slug")
FULL = make_relation("id", "slug", replica_identity="f")


def make_rule(
    key: str,
    *,
    table: str = "article",
    events: tuple[Operation, ...] = tuple(Operation),
    changed: tuple[str, ...] | None = None,
    cdn: tuple[str, ...] = (),
    repeat_after: tuple[float, ...] = (),
) -> Rule:
    return Rule(
        name=key,
        schema="public",
        table=table,
        events=frozenset(events),
        changed=None if changed is None else frozenset(changed),
        exact=Exact(keys=(parse(key),), cdn=tuple(map(parse, cdn))),
        coarse=Coarse(tags=(parse("articles"),)),
        bulk_over=None,
        repeat_after=repeat_after,
        soft=False,
        place=Place("rules.yaml", 1, 1),
    )


def ruleset(*rules: Rule) -> RuleSet:
    return RuleSet(rules, "0123")


def test_each_rule_says_what_it_would_do_or_why_not() -> None:
    rules = ruleset(
        make_rule("a:{id}"),
        make_rule("u:{id}", table="user"),
        make_rule("d:{id}", events=(Operation.DELETE, Operation.TRUNCATE)),
        make_rule("c:{id}", changed=("slug",)),
    )
    row = {"id": 7, "slug": "x"}
    made = explain(rules, FULL, Operation.UPDATE, row, row)
    assert [explanation.rule for explanation in made] == list(rules.rules)
    assert [explanation.outcome for explanation in made] == [
        Outcome.FIRED,
        Outcome.OTHER_TABLE,
        Outcome.OTHER_EVENT,
        Outcome.UNCHANGED,
    ]
    assert [explanation.invalidation for explanation in made] == [Invalidation(keys={b"a:7"}), *[Invalidation()] * 3]


def test_widening_and_skipping_are_told() -> None:
    rules = ruleset(make_rule("s:{slug}"), make_rule("t:{title}"), make_rule("n:{new.slug}"))
    widened, missing, skipped = explain(rules, ARTICLE, Operation.UPDATE, None, {"id": 7, "slug": None})
    assert widened.widened == (WidenReason.OLD_UNAVAILABLE,)
    assert widened.invalidation.tags == {b"articles"}
    assert missing.widened == (WidenReason.MISSING_COLUMN,)
    assert missing.missing_columns == ("title",)
    assert (skipped.null_skips, skipped.widened, skipped.invalidation) == (1, (), Invalidation())


def test_a_cdn_tag_that_a_cdn_does_not_take_is_told() -> None:
    grammar = TagGrammar("edge", re.compile(rb"[a-z0-9]+"), 10, "letters and digits")
    rules = ruleset(make_rule("s:{id}", cdn=("s{slug}",)))
    row = {"id": 1, "slug": "two words"}
    [made] = explain(rules, ARTICLE, Operation.INSERT, None, row, cdn_grammars=[grammar])
    assert made.widened == (WidenReason.UNSAFE_VALUE,)


def test_repeats_and_facts_of_the_transaction_are_told() -> None:
    rules = ruleset(make_rule("a:{id}:{meta.xid}", repeat_after=(5.0,)))
    transaction = Transaction(1, 99, 3)
    [made] = explain(rules, ARTICLE, Operation.INSERT, None, {"id": 7}, transaction=transaction)
    assert made.invalidation.repeats == {(5.0,): Invalidation(keys={b"a:7:99"})}
    assert transaction.bulk_rows == {}


def test_a_truncate_is_explained_without_a_row() -> None:
    [made] = explain(ruleset(make_rule("a:{id}")), ARTICLE, Operation.TRUNCATE, None, None)
    assert made.outcome is Outcome.FIRED
    assert made.widened == (WidenReason.TRUNCATE,)
    assert made.invalidation.tags == {b"articles"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", b"as it is"),
        ("", b""),
        (True, b"t"),
        (False, b"f"),
        (42, b"42"),
        (1.5, b"1.5"),
        ({"a": [1, "ä"]}, '{"a": [1, "ä"]}'.encode()),
        ([], b"[]"),
        (None, None),
    ],
)
def test_json_values_are_sent_as_postgres_writes_them(value: object, text: bytes | None) -> None:
    sent = row_message(ARTICLE, Operation.INSERT, None, {"id": 1, "slug": value})
    assert sent[25:] == pgoutput.insert(ARTICLE.oid, [b"1", text])[25:]


def test_a_column_that_is_left_out_is_sent_as_not_sent() -> None:
    sent = row_message(ARTICLE, Operation.INSERT, None, {"id": 1})
    assert sent[25:] == pgoutput.insert(ARTICLE.oid, [b"1", UNCHANGED])[25:]


def test_an_update_sends_of_the_old_row_what_the_replica_identity_holds() -> None:
    old, same, moved = {"id": 1, "slug": "x"}, {"id": 1, "slug": "y"}, {"id": 2, "slug": "y"}
    oid = ARTICLE.oid
    row = [b"1", b"x"]
    for relation, after, expected in (
        (ARTICLE, same, pgoutput.update(oid, [b"1", b"y"])),
        (ARTICLE, moved, pgoutput.update(oid, [b"2", b"y"], key=[b"1", None])),
        (FULL, same, pgoutput.update(oid, [b"1", b"y"], old=row)),
    ):
        assert row_message(relation, Operation.UPDATE, old, after)[25:] == expected[25:]
    assert row_message(FULL, Operation.UPDATE, None, same)[25:] == pgoutput.update(oid, [b"1", b"y"])[25:]


@pytest.mark.parametrize("as_old", [True, False])
def test_a_deleted_row_may_be_given_as_either_image(as_old: bool) -> None:
    row = {"id": 1, "slug": "x"}
    images = (row, None) if as_old else (None, row)
    assert row_message(ARTICLE, Operation.DELETE, *images)[25:] == pgoutput.delete(16385, key=[b"1", None])[25:]
    assert row_message(FULL, Operation.DELETE, *images)[25:] == pgoutput.delete(16385, old=[b"1", b"x"])[25:]


def test_a_column_that_is_not_there_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="has no column 'slgu'; it has id, slug") as caught:
        explain(ruleset(), ARTICLE, Operation.INSERT, None, {"slgu": 1})
    assert caught.value.fix == "write 'slug'"


@pytest.mark.parametrize("operation", [Operation.INSERT, Operation.UPDATE, Operation.DELETE])
def test_a_missing_row_is_refused(operation: Operation) -> None:
    with pytest.raises(ConfigError, match="a row is needed"):
        explain(ruleset(), ARTICLE, operation, None, None)
