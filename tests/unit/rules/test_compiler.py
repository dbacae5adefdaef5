from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invalidator.model import Column, Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction, TagGrammar
from invalidator.rules import globs
from invalidator.rules.compiler import compile_relation
from invalidator.rules.rule import Coarse, Exact, Place, Rule
from invalidator.rules.template import FILTERS, META, Template, literal, parse
from invalidator.telemetry.state import RuleState, TableState
from tests.support import pgoutput
from tests.support.pgoutput import UNCHANGED, Row, Value, key_of, make_relation
from tests.support.rule_interpreter import Change, Interpreter

PRINTABLE = TagGrammar("edge", re.compile(rb"[!-+\--~]+"), 64, "printable ASCII without space and comma")
COARSE = Coarse(tags=(literal("articles"),))
WIDENED = {"tags": {b"articles"}}


def templates(*texts: str) -> tuple[Template, ...]:
    return tuple(parse(text) for text in texts)


def make_rule(
    *,
    keys: Sequence[str] = (),
    tags: Sequence[str] = (),
    l1: Sequence[str] = (),
    cdn: Sequence[str] = (),
    events: Sequence[Operation] = tuple(Operation),
    changed: Sequence[str] | None = None,
    coarse: Coarse = COARSE,
    bulk_over: int | None = None,
    repeat_after: tuple[float, ...] = (),
    soft: bool = False,
    name: str = "article",
) -> Rule:
    return Rule(
        name=name,
        schema="public",
        table="article",
        events=frozenset(events),
        changed=None if changed is None else frozenset(changed),
        exact=Exact(templates(*keys), templates(*tags), templates(*l1), templates(*cdn)),
        coarse=coarse,
        bulk_over=bulk_over,
        repeat_after=repeat_after,
        soft=soft,
        place=Place("rules.yaml", 3, 5),
    )


@dataclass
class Bound:
    """Rules bound to a relation, and what they did so far."""

    relation: Relation
    rules: Sequence[Rule]
    grammars: Sequence[TagGrammar] = ()
    states: dict[str, RuleState] = field(default_factory=dict)
    table: TableState = field(default_factory=lambda: TableState("public.article"))
    invalidation: Invalidation = field(default_factory=Invalidation)
    transaction: Transaction = field(default_factory=lambda: Transaction(0x16B374D848, 731, 820_638_245_678_901))
    function: RowFunction = field(init=False)

    def __post_init__(self) -> None:
        self.states |= {rule.name: RuleState(rule.name) for rule in self.rules}
        self.function = compile_relation(
            list(enumerate(self.rules)), self.relation, self.states, self.table, self.grammars
        )

    @property
    def state(self) -> RuleState:
        return self.states[self.rules[0].name]

    def feed(self, message: bytes) -> dict[str, object]:
        """What this one message adds, without the empty sets."""
        self.invalidation = Invalidation()
        self.function(message, self.invalidation, self.transaction)
        return named(self.invalidation)

    def insert(self, *new: Value) -> dict[str, object]:
        return self.feed(pgoutput.insert(self.relation.oid, new))

    def update(self, *new: Value, old: Row | None = None, key: Row | None = None) -> dict[str, object]:
        return self.feed(pgoutput.update(self.relation.oid, new, old=old, key=key))

    def delete(self, *, old: Row | None = None, key: Row | None = None) -> dict[str, object]:
        return self.feed(pgoutput.delete(self.relation.oid, old=old, key=key))


def named(invalidation: Invalidation) -> dict[str, object]:
    groups = ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn", "cdn_soft", "cdn_all")
    return {group: value for group in groups if (value := getattr(invalidation, group))}


ID_SLUG = make_relation("id", "slug")
FULL = make_relation("id", "slug", replica_identity="f")
BY_INDEX = make_relation("id", "slug", identity=("slug",), replica_identity="i")


# Images


def test_an_insert_renders_the_new_row() -> None:
    assert Bound(ID_SLUG, [make_rule(keys=["a:{id}", "s:{slug}"])]).insert(b"7", b"x") == {"keys": {b"a:7", b"s:x"}}


def test_a_delete_renders_the_old_row() -> None:
    bound = Bound(FULL, [make_rule(keys=["a:{id}", "s:{slug}"])])
    assert bound.delete(old=[b"7", b"x"]) == {"keys": {b"a:7", b"s:x"}}


def test_an_update_of_a_key_column_drops_the_old_and_the_new_key() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"])])
    assert bound.update(b"8", b"x", key=[b"7", None]) == {"keys": {b"a:7", b"a:8"}}


def test_an_update_with_the_full_old_row_drops_both_names_of_every_column() -> None:
    bound = Bound(FULL, [make_rule(keys=["s:{slug}"])])
    assert bound.update(b"7", b"new", old=[b"7", b"old"]) == {"keys": {b"s:old", b"s:new"}}


def test_an_update_without_an_old_row_did_not_change_the_identity() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"])])
    assert bound.update(b"7", b"x") == {"keys": {b"a:7"}}
    assert not bound.state.widened


def test_an_old_value_that_was_not_sent_widens_and_keeps_what_is_known() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}", "s:{slug}"])])
    assert bound.update(b"7", b"x") == {"keys": {b"a:7", b"s:x"}, **WIDENED}
    assert bound.state.widened == {WidenReason.OLD_UNAVAILABLE: 1}


def test_a_key_change_widens_for_columns_outside_the_identity() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["s:{slug}"])])
    assert bound.update(b"8", b"x", key=[b"7", None]) == {"keys": {b"s:x"}, **WIDENED}
    assert bound.state.null_skips == 0  # n in a K tuple means not sent


def test_a_delete_with_the_identity_alone_widens_for_other_columns() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}", "s:{slug}"])])
    assert bound.delete(key=[b"7", None]) == {"keys": {b"a:7"}, **WIDENED}
    assert bound.state.widened == {WidenReason.OLD_UNAVAILABLE: 1}


def test_an_identity_by_index_is_known_though_it_is_not_the_first_column() -> None:
    bound = Bound(BY_INDEX, [make_rule(keys=["s:{slug}"])])
    assert bound.update(b"7", b"x") == {"keys": {b"s:x"}}
    assert bound.update(b"7", b"y", key=[None, b"x"]) == {"keys": {b"s:x", b"s:y"}}
    assert bound.delete(key=[None, b"y"]) == {"keys": {b"s:y"}}
    assert not bound.state.widened


def test_a_full_identity_without_an_old_row_is_not_taken_as_unchanged() -> None:
    bound = Bound(FULL, [make_rule(keys=["a:{id}"], changed=["id"])])
    assert bound.update(b"7", b"x") == {"keys": {b"a:7"}, **WIDENED}


@pytest.mark.parametrize(
    ("relation", "old", "key"), [(ID_SLUG, [b"7", b"old"], None), (FULL, None, [b"7", b"old"])], ids=["O", "K"]
)
def test_an_old_image_of_the_unexpected_kind_is_understood(
    relation: Relation, old: Row | None, key: Row | None
) -> None:
    bound = Bound(relation, [make_rule(keys=["a:{old.id}", "s:{old.slug}"])])
    made = bound.update(b"8", b"new", old=old, key=key)
    assert made == ({"keys": {b"a:7", b"s:old"}} if old else WIDENED)
    assert not bound.state.errors
    assert bound.table.rows[Operation.UPDATE] == 1


def test_new_and_old_narrow_to_one_image() -> None:
    bound = Bound(FULL, [make_rule(keys=["n:{new.slug}", "o:{old.slug}"])])
    assert bound.update(b"7", b"new", old=[b"7", b"old"]) == {"keys": {b"n:new", b"o:old"}}
    assert bound.insert(b"7", b"new") == {"keys": {b"n:new"}}
    assert bound.delete(old=[b"7", b"old"]) == {"keys": {b"o:old"}}
    assert not bound.state.errors
    assert not bound.state.widened


def test_bare_and_narrowed_columns_mix_in_one_template() -> None:
    bound = Bound(FULL, [make_rule(keys=["m:{id}:{new.slug}"])])
    assert bound.update(b"8", b"new", old=[b"7", b"old"]) == {"keys": {b"m:8:new", b"m:7:new"}}
    assert bound.delete(old=[b"7", b"old"]) == {}


def test_a_template_without_a_row_value_is_added_by_every_row() -> None:
    bound = Bound(ID_SLUG, [make_rule(tags=["articles:{meta.op}"])])
    assert bound.insert(b"1", b"x") == {"tags": {b"articles:insert"}}
    assert bound.delete(key=[b"1", None]) == {"tags": {b"articles:delete"}}


# TOAST and NULL


def test_an_unchanged_toast_value_is_taken_from_the_old_row() -> None:
    bound = Bound(FULL, [make_rule(keys=["s:{slug}", "n:{new.slug}"])])
    assert bound.update(b"7", UNCHANGED, old=[b"7", b"long"]) == {"keys": {b"s:long", b"n:long"}}
    assert not bound.state.widened


def test_an_unchanged_toast_value_of_the_identity_is_taken_from_the_old_identity() -> None:
    relation = make_relation("id", "slug", identity=("id", "slug"))
    bound = Bound(relation, [make_rule(keys=["s:{new.slug}"])])
    assert bound.update(b"8", UNCHANGED, key=[b"7", b"long"]) == {"keys": {b"s:long"}}


@pytest.mark.parametrize("key", [None, [b"7", None]])
def test_an_unchanged_toast_value_that_nobody_sent_widens(key: Row | None) -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["n:{new.slug}"])])
    assert bound.update(b"7", UNCHANGED, key=key) == WIDENED
    assert bound.state.widened == {WidenReason.VALUE_UNAVAILABLE: 1}
    assert bound.state.null_skips == 0


def test_null_skips_a_template_and_is_counted() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}", "s:{slug}"])])
    assert bound.insert(b"7", None) == {"keys": {b"a:7"}}
    assert bound.state.null_skips == 1
    assert not bound.state.widened


def test_an_empty_text_is_not_null() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["s:{slug}"])])
    assert bound.insert(b"7", b"") == {"keys": {b"s:"}}
    assert bound.state.null_skips == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{slug|default:'none'}", b"none"),
        ("{slug|default:'none'|upper}", b"NONE"),
        ("{slug|upper|default:'no'}", b"no"),
    ],
)
def test_a_default_replaces_null_wherever_it_stands(text: str, expected: bytes) -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=[f"s:{text}"])])
    assert bound.insert(b"7", None) == {"keys": {b"s:" + expected}}
    assert bound.state.null_skips == 0


def test_a_default_does_not_replace_a_value_that_was_not_sent() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["s:{new.slug|default:'none'}"])])
    assert bound.update(b"7", UNCHANGED) == WIDENED


# changed, events, counts


def test_an_update_that_changed_no_listed_column_does_not_fire() -> None:
    bound = Bound(FULL, [make_rule(keys=["a:{id}"], changed=["slug"])])
    assert bound.update(b"7", b"x", old=[b"7", b"x"]) == {}
    assert (bound.state.unchanged, bound.state.matches[Operation.UPDATE]) == (1, 0)
    assert bound.update(b"7", b"y", old=[b"7", b"x"]) == {"keys": {b"a:7"}}
    assert (bound.state.unchanged, bound.state.matches[Operation.UPDATE]) == (1, 1)


def test_changed_from_or_to_null_fires() -> None:
    bound = Bound(FULL, [make_rule(keys=["a:{id}"], changed=["slug"])])
    assert bound.update(b"7", None, old=[b"7", b""])
    assert bound.update(b"7", b"", old=[b"7", None])
    assert not bound.update(b"7", None, old=[b"7", None])


def test_a_listed_column_whose_old_value_was_not_sent_may_have_changed() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"], changed=["slug"])])
    assert bound.update(b"7", b"x") == {"keys": {b"a:7"}}


def test_a_listed_identity_column_did_not_change_when_no_old_identity_was_sent() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["s:{slug}"], changed=["id"])])
    assert bound.update(b"7", b"x") == {}
    assert bound.state.unchanged == 1
    assert bound.update(b"8", b"x", key=[b"7", None]) != {}


def test_an_unchanged_toast_value_did_not_change() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"], changed=["slug"])])
    assert bound.update(b"7", UNCHANGED) == {}
    assert bound.update(b"8", UNCHANGED, key=[b"7", None]) == {}
    assert bound.state.unchanged == 2


def test_changed_does_not_hold_back_inserts_and_deletes() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"], changed=["slug"])])
    assert bound.insert(b"7", b"x") == {"keys": {b"a:7"}}
    assert bound.delete(key=[b"7", None]) == {"keys": {b"a:7"}}


def test_only_the_events_of_a_rule_fire_and_every_row_is_counted() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"], events=[Operation.DELETE])])
    assert bound.insert(b"7", b"x") == {}
    assert bound.update(b"7", b"x") == {}
    assert bound.delete(key=[b"7", None]) == {"keys": {b"a:7"}}
    assert bound.state.matches == {**dict.fromkeys(Operation, 0), Operation.DELETE: 1}
    assert bound.table.rows == {**dict.fromkeys(Operation, 1), Operation.TRUNCATE: 0}


def test_several_rules_of_one_relation_each_do_their_part() -> None:
    rules = [make_rule(keys=["a:{id}"], name="one"), make_rule(tags=["t:{id}"], events=[Operation.INSERT], name="two")]
    bound = Bound(ID_SLUG, rules)
    assert bound.insert(b"7", b"x") == {"keys": {b"a:7"}, "tags": {b"t:7"}}
    assert bound.update(b"7", b"x") == {"keys": {b"a:7"}}
    assert [bound.states[name].matches[Operation.INSERT] for name in ("one", "two")] == [1, 1]
    assert bound.table.rows[Operation.INSERT] == 1


# Widening


def test_a_missing_column_widens_every_matching_row() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}", "t:{title}"])])
    assert bound.insert(b"7", b"x") == {"keys": {b"a:7"}, **WIDENED}
    assert bound.update(b"7", b"x") == {"keys": {b"a:7"}, **WIDENED}
    assert bound.state.widened == {WidenReason.MISSING_COLUMN: 2}
    assert bound.state.errors == {"missing_column": 2}


def test_a_missing_column_in_changed_lets_every_update_fire() -> None:
    bound = Bound(FULL, [make_rule(keys=["a:{id}"], changed=["title", "slug"])])
    assert bound.update(b"7", b"x", old=[b"7", b"x"]) == {"keys": {b"a:7"}, **WIDENED}


def test_rows_above_the_bound_add_the_coarse_form_once_per_transaction() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"], bulk_over=2)])
    made = [bound.insert(b"%d" % number, b"x") for number in range(5)]
    assert made == [{"keys": {b"a:0"}}, {"keys": {b"a:1"}}, WIDENED, {}, {}]
    assert list(bound.transaction.bulk_rows.values()) == [5]
    assert bound.state.matches[Operation.INSERT] == 5
    assert bound.state.widened == {WidenReason.BULK: 1}
    bound.transaction = Transaction(2, 2, 2)
    assert bound.insert(b"9", b"x") == {"keys": {b"a:9"}}


def test_rows_that_did_not_fire_do_not_count_for_the_bound() -> None:
    bound = Bound(FULL, [make_rule(keys=["a:{id}"], changed=["slug"], bulk_over=1)])
    for _ in range(3):
        bound.update(b"7", b"x", old=[b"7", b"x"])
    assert bound.update(b"7", b"y", old=[b"7", b"x"]) == {"keys": {b"a:7"}}


def test_the_bound_spans_all_relations_of_a_rule() -> None:
    rule = make_rule(keys=["a:{id}"], bulk_over=1)
    first, second = Bound(ID_SLUG, [rule]), Bound(FULL, [rule])
    second.transaction = first.transaction
    assert first.insert(b"1", b"x") == {"keys": {b"a:1"}}
    assert second.insert(b"2", b"x") == WIDENED


def test_a_coarse_form_fills_every_group() -> None:
    coarse = Coarse(
        keys=templates("list:{meta.table}"),
        key_patterns=templates("a:*"),
        tags=templates("articles"),
        tag_patterns=templates("a-*"),
        l1=templates("a:*"),
        cdn=templates("articles"),
        cdn_all=True,
    )
    expected = {
        "keys": {b"list:article"},
        "key_patterns": {b"a:*"},
        "tags": {b"articles"},
        "tag_patterns": {b"a-*"},
        "l1": {b"a:*"},
        "cdn": {b"articles"},
        "cdn_all": True,
    }
    bound = Bound(ID_SLUG, [make_rule(keys=["s:{old.slug}"], coarse=coarse, repeat_after=(1.0, 5.0))])
    assert bound.update(b"7", b"x") == expected
    assert named(bound.invalidation.repeats[1.0, 5.0]) == expected


def test_a_coarse_cdn_tag_that_no_cdn_takes_becomes_everything() -> None:
    relation = replace(ID_SLUG, table="two words")
    coarse = Coarse(cdn=templates("{meta.table}"))
    bound = Bound(relation, [make_rule(keys=["s:{old.slug}"], coarse=coarse)], [PRINTABLE])
    assert bound.update(b"7", b"x") == {"cdn_all": True}


def test_a_malformed_row_widens_and_is_counted() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{id}"]), make_rule(keys=["b:{id}"], name="second")])
    message = pgoutput.insert(ID_SLUG.oid, [b"7", b"x"])
    assert bound.feed(message[:32]) == WIDENED
    assert bound.feed(message[:33] + b"?" + message[34:]) == WIDENED
    assert bound.feed(message[:30] + b"?" + message[31:]) == WIDENED
    for state in bound.states.values():
        assert state.errors == {"rule_error": 3}
        assert state.widened == {WidenReason.RULE_ERROR: 3}
        assert state.matches[Operation.INSERT] == 3
    assert bound.table.rows[Operation.INSERT] == 3


def test_a_filter_that_fails_widens_its_rule_alone_and_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_value: bytes) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setitem(FILTERS, "md5", fail)  # no filter fails today; the next one may
    rules = [
        make_rule(keys=["a:{id}"], name="before"),
        make_rule(keys=["b:{id|md5}"], name="failing", bulk_over=10),
        make_rule(keys=["c:{id}"], name="after"),
    ]
    bound = Bound(ID_SLUG, rules)
    assert bound.insert(b"7", b"x") == {"keys": {b"a:7", b"c:7"}, **WIDENED}
    assert [state.matches[Operation.INSERT] for state in bound.states.values()] == [1, 1, 1]
    assert [dict(state.errors) for state in bound.states.values()] == [{}, {"rule_error": 1}, {}]
    assert bound.table.rows[Operation.INSERT] == 1


def test_the_last_column_may_be_null_in_a_full_row_of_one_column() -> None:
    relation = make_relation("slug", identity=(), replica_identity="f")
    bound = Bound(relation, [make_rule(keys=["s:{slug}"])])
    assert bound.delete(old=[None]) == {}
    assert (bound.state.null_skips, dict(bound.state.errors)) == (1, {})


def test_a_wide_table_is_read_to_a_late_column() -> None:
    names = [f"c{number}" for number in range(200)]
    relation = make_relation(*names, identity=("c0",), replica_identity="f")
    bound = Bound(relation, [make_rule(keys=["k:{c150}:{c3}"])])
    new: list[Value] = [None if number % 7 == 5 else b"n%d" % number for number in range(200)]
    old: list[Value] = [None if number % 5 == 4 else b"o%d" % number for number in range(200)]
    assert bound.update(*new, old=old) == {"keys": {b"k:n150:n3", b"k:o150:o3"}}


# Destinations


def test_keys_and_tags_hold_the_raw_bytes() -> None:
    hostile = b"*?[x]\\ ,\n\x01{}\xff\xc3\xa4"
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{slug}"], tags=["t:{slug}"])])
    assert bound.insert(b"7", hostile) == {"keys": {b"a:" + hostile}, "tags": {b"t:" + hostile}}


def test_row_values_in_l1_globs_are_escaped_and_the_globs_of_the_template_stay() -> None:
    bound = Bound(ID_SLUG, [make_rule(l1=["a:{slug}:*"])])
    assert bound.insert(b"7", b"*?[x]\\") == {"l1": {b"a:[*][?][[]x][\\\\]:*"}}


def test_an_l1_value_that_is_no_text_becomes_a_wildcard_and_is_counted() -> None:
    bound = Bound(ID_SLUG, [make_rule(l1=["a:{slug}:b"])])
    assert bound.insert(b"7", b"\xff") == {"l1": {b"a:*:b"}}
    assert bound.state.widened == {WidenReason.UNSAFE_VALUE: 1}


def test_a_table_name_that_is_no_text_becomes_a_wildcard_in_l1() -> None:
    relation = replace(ID_SLUG, table="caf\udce9")
    bound = Bound(relation, [make_rule(l1=["{meta.table}:{id}"], keys=["{meta.table}:{id}"])])
    assert bound.insert(b"7", b"x") == {"l1": {b"*:7"}, "keys": {b"caf\xe9:7"}}


@pytest.mark.parametrize("value", [b"two words", b"a,b", b"line\nbreak", b"x" * 100, "ä".encode(), b"\xff"])
def test_a_cdn_tag_that_a_cdn_does_not_take_widens(value: bytes) -> None:
    bound = Bound(ID_SLUG, [make_rule(cdn=["a-{slug}"])], [PRINTABLE])
    assert bound.insert(b"7", value) == WIDENED
    assert bound.state.widened == {WidenReason.UNSAFE_VALUE: 1}
    assert bound.insert(b"7", b"fine") == {"cdn": {b"a-fine"}}


def test_every_cdn_must_take_a_tag() -> None:
    digits = TagGrammar("digits", re.compile(rb"[0-9]+"), 1000, "digits")
    bound = Bound(ID_SLUG, [make_rule(cdn=["1{slug}"])], [PRINTABLE, digits])
    assert bound.insert(b"7", b"12") == {"cdn": {b"112"}}
    assert bound.insert(b"7", b"x") == WIDENED


def test_a_constant_cdn_tag_that_no_cdn_takes_widens() -> None:
    bound = Bound(ID_SLUG, [make_rule(cdn=["two words", "fine"])], [PRINTABLE])
    assert bound.insert(b"7", b"x") == {"cdn": {b"fine"}, **WIDENED}


def test_soft_marks_cdn_tags_and_nothing_else() -> None:
    bound = Bound(ID_SLUG, [make_rule(cdn=["a-{id}"], keys=["a:{id}"], soft=True)], [PRINTABLE])
    assert bound.insert(b"7", b"x") == {"cdn_soft": {b"a-7"}, "keys": {b"a:7"}}


def test_a_rule_that_repeats_adds_the_same_to_what_is_repeated() -> None:
    rules = [make_rule(keys=["a:{id}"], cdn=["c-{id}"], repeat_after=(5.0,)), make_rule(tags=["t:{id}"], name="once")]
    bound = Bound(ID_SLUG, rules, [PRINTABLE])
    assert bound.insert(b"7", b"x") == {"keys": {b"a:7"}, "cdn": {b"c-7"}, "tags": {b"t:7"}}
    assert {delays: named(part) for delays, part in bound.invalidation.repeats.items()} == {
        (5.0,): {"keys": {b"a:7"}, "cdn": {b"c-7"}}
    }


def test_a_row_that_names_nothing_makes_no_repeat() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["s:{slug}"], repeat_after=(5.0,))])
    bound.insert(b"7", None)
    assert bound.invalidation == Invalidation()


def test_facts_of_the_change_are_rendered() -> None:
    text = "{meta.schema}.{meta.table} {meta.op} {meta.lsn|lower} {meta.xid} {meta.commit_time}"
    bound = Bound(ID_SLUG, [make_rule(keys=[text])])
    expected = b"public.article insert 16/b374d848 731 2026-01-02T03:04:05.678901Z"
    assert bound.insert(b"7", b"x") == {"keys": {expected}}


def test_a_commit_time_beyond_the_calendar_is_rendered_as_a_number() -> None:
    bound = Bound(ID_SLUG, [make_rule(keys=["a:{meta.commit_time}"])])
    bound.transaction = Transaction(1, 1, 2**62)
    assert bound.insert(b"7", b"x") == {"keys": {b"a:%d" % 2**62}}


# Names are data


@pytest.mark.parametrize(
    "name", ["x = 1", "'); raise SystemExit #", 'a"b', "n0", "inv", "new\nline", "{x}", "\\", "🐘", "__import__('os')"]
)
def test_a_column_name_cannot_become_code(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    relation = replace(make_relation(name, "slug", identity=(name,)), schema=name, table=name)
    rule = make_rule(
        keys=[f"k:{{{quoted}}}:{{meta.table}}"], changed=[name], l1=[f"l:{{{quoted}}}"], cdn=[f"c{{{quoted}}}"]
    )
    bound = Bound(relation, [replace(rule, name=name)], [PRINTABLE])
    raw = name.encode()
    made = bound.insert(b"7", b"x")
    assert made == {"keys": {b"k:7:" + raw}, "l1": {b"l:7"}, "cdn": {b"c7"}}
    assert not bound.states[name].errors


# Properties

COLUMN_NAMES = [
    "id",
    "slug",
    "a b",
    'quo"te',
    "new",
    "old",
    "meta",
    "b",
    "inv",
    "tx",
    "{x}",
    "'''",
    "ü",
    "n0",
    "line\nbreak",
]
VALUES = st.one_of(
    st.none(),
    st.just(UNCHANGED),
    st.sampled_from(
        [b"", b"1", b"42", b"*", b"a?b", b"[x]", b"\\", b"new\nline", b"a b", b"a,b", b"\xff\xfe", b" T ", b"N"]
    ),
    st.sampled_from(["ä€🐘".encode(), "ß".encode(), b"y" * 10_000, b"\x01", b"}{", b"n\x00\x02t"]),
    st.binary(max_size=6),
)
LITERALS = st.sampled_from(["", ":", "*", "?", "[", "]", "\\", "{{", "}}", "a", "é", "'", '"', "\n", " "])
FILTER_TEXTS = st.sampled_from(
    ["", *(f"|{name}" for name in FILTERS), "|default:'d*'", "|md5|default:''", "|default:'ß'|upper"]
)
GRAMMARS = [PRINTABLE, TagGrammar("short", re.compile(rb"[^ ]*", re.DOTALL), 12, "no space, short")]


@st.composite
def template_texts(draw: st.DrawFn, columns: Sequence[str], *, only_facts: bool = False) -> str:
    text = draw(st.sampled_from(["a", "p:", "x*", "k{{"]))
    for _ in range(draw(st.integers(0, 3))):
        text += draw(LITERALS)
        scope = "meta." if only_facts else draw(st.sampled_from(["", "", "", "new.", "old.", "meta."]))
        if scope == "meta.":
            name = draw(st.sampled_from(META))
        else:
            name = '"' + draw(st.sampled_from(columns)).replace('"', '""') + '"'
        text += "{" + scope + name + draw(FILTER_TEXTS) + "}"
    return text + draw(LITERALS)


@st.composite
def rules_of(draw: st.DrawFn, columns: Sequence[str], name: str) -> Rule:
    exact = st.lists(template_texts(columns), max_size=2)
    coarse = st.lists(template_texts(columns, only_facts=True), max_size=1)
    return make_rule(
        name=name,
        keys=draw(exact),
        tags=draw(exact),
        l1=draw(exact),
        cdn=draw(exact),
        events=draw(st.lists(st.sampled_from(Operation), unique=True, max_size=4)),
        changed=draw(st.none() | st.lists(st.sampled_from(columns), max_size=3)),
        coarse=Coarse(
            keys=templates(*draw(coarse)),
            key_patterns=templates(*draw(coarse)),
            tags=templates(*draw(coarse)),
            tag_patterns=templates(*draw(coarse)),
            l1=templates(*draw(coarse)),
            cdn=templates(*draw(coarse)),
            cdn_all=draw(st.booleans()),
        ),
        bulk_over=draw(st.none() | st.integers(0, 4)),
        repeat_after=draw(st.sampled_from([(), (), (1.0,), (0.5, 2.0)])),
        soft=draw(st.booleans()),
    )


@st.composite
def changes_of(draw: st.DrawFn, relation: Relation) -> Change:
    row = st.lists(VALUES, min_size=len(relation.columns), max_size=len(relation.columns))
    operation = draw(st.sampled_from([Operation.INSERT, Operation.UPDATE, Operation.UPDATE, Operation.DELETE]))
    if operation is Operation.INSERT:
        return Change(operation, new=draw(row))
    new = draw(row) if operation is Operation.UPDATE else None
    before = draw(row)
    if new is not None and draw(st.booleans()):
        before = [after if draw(st.booleans()) else value for value, after in zip(before, new, strict=True)]
    usual = "O" if relation.replica_identity == "f" else "K"
    form = draw(st.sampled_from([usual, usual, usual, "O", "K"] + ["N"] * 3 * (new is not None)))
    match form:
        case "O":
            return Change(operation, new=new, old=before)
        case "K":
            return Change(operation, new=new, key=key_of(relation, before))
        case _:
            return Change(operation, new=new)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Relation, list[Rule], list[TagGrammar], list[Change]]:
    names = draw(st.lists(st.sampled_from(COLUMN_NAMES), min_size=1, max_size=7, unique=True))
    full = draw(st.booleans())
    relation = Relation(
        oid=draw(st.integers(1, 2**32 - 1)),
        schema=draw(st.sampled_from(["public", "a*b", "caf\udce9"])),
        table=draw(st.sampled_from(["article", "two words", "[x]"])),
        replica_identity="f" if full else draw(st.sampled_from(["d", "i", "n"])),
        columns=tuple(Column(name, 25, full or draw(st.booleans())) for name in names),
    )
    named_columns = names if draw(st.booleans()) else [*names, "missing"]
    rules = [draw(rules_of(named_columns, f"rule {at}")) for at in range(draw(st.integers(1, 3)))]
    grammars = draw(st.lists(st.sampled_from(GRAMMARS), max_size=2, unique=True))
    return relation, rules, grammars, draw(st.lists(changes_of(relation), min_size=1, max_size=6))


def message_of(relation: Relation, change: Change) -> bytes:
    if change.operation is Operation.INSERT:
        assert change.new is not None
        return pgoutput.insert(relation.oid, change.new)
    if change.new is None:
        return pgoutput.delete(relation.oid, old=change.old, key=change.key)
    return pgoutput.update(relation.oid, change.new, old=change.old, key=change.key)


@settings(max_examples=250, deadline=None)
@given(cases())
def test_a_compiled_function_does_what_the_slow_interpreter_does(
    case: tuple[Relation, list[Rule], list[TagGrammar], list[Change]],
) -> None:
    relation, rules, grammars, changes = case
    fast = Bound(relation, rules, grammars)
    states = {rule.name: RuleState(rule.name) for rule in rules}
    slow = Interpreter(list(enumerate(rules)), relation, states, TableState("public.article"), grammars)
    invalidation, transaction = Invalidation(), replace(fast.transaction, bulk_rows={})
    for change in changes:
        fast.function(message_of(relation, change), fast.invalidation, fast.transaction)
        slow.apply(change, invalidation, transaction)
        assert fast.invalidation == invalidation
        assert fast.states == states
    assert fast.transaction == transaction
    assert fast.table == slow.table


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_no_message_makes_a_row_function_raise(
    case: tuple[Relation, list[Rule], list[TagGrammar], list[Change]], data: st.DataObject
) -> None:
    relation, rules, grammars, changes = case
    bound = Bound(relation, rules, grammars)
    for change in changes:
        message = bytearray(message_of(relation, change))
        del message[data.draw(st.integers(0, len(message))) :]
        if len(message) > 25:
            message[data.draw(st.integers(25, len(message) - 1))] = data.draw(st.integers(0, 255))
        bound.function(bytes(message), bound.invalidation, bound.transaction)


@given(st.text(), st.text())
@example("]", "x")
@example("[!a]", "b")
@example("a\\", "a")
def test_an_escaped_value_matches_itself_alone_in_python(value: str, other: str) -> None:
    escaped = globs.escape(value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    assert fnmatch.fnmatchcase(value, escaped)
    assert fnmatch.fnmatchcase(other, escaped) == (other == value)
