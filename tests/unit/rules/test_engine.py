from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import Rules, TagGrammar
from invalidator.postgres.reader import Reader
from invalidator.rules.engine import Engine, Problem
from invalidator.rules.rule import Coarse, Exact, Place, Rule, RuleSet
from invalidator.rules.template import parse
from invalidator.telemetry.state import RuleState, SourceState, TableState
from tests.support import pgoutput
from tests.support.pgoutput import make_relation

ARTICLE = make_relation("id", "slug", name="public.article", oid=1)
USER = make_relation("id", "email", name="public.user", oid=2)


def make_rule(
    name: str,
    table: str,
    *,
    schema: str = "public",
    key: str = "k:{id}",
    coarse: Coarse | None = None,
    events: tuple[Operation, ...] = tuple(Operation),
) -> Rule:
    return Rule(
        name=name,
        schema=schema,
        table=table,
        events=frozenset(events),
        changed=None,
        exact=Exact(keys=(parse(key),)),
        coarse=coarse or Coarse(tags=(parse(f"all-{name}"),)),
        bulk_over=None,
        repeat_after=(),
        soft=False,
        place=Place("rules.yaml", 4, 5),
    )


def script(messages: list[bytes]) -> Callable[[int], tuple[int, memoryview]]:
    """libpq's get_copy_data over a list: 0 when it is dry."""
    left = iter(messages)

    def read(_: int) -> tuple[int, memoryview]:
        message = next(left, b"")
        return len(message), memoryview(message)

    return read


def make_engine(
    *rules: Rule, grammars: tuple[TagGrammar, ...] = ()
) -> tuple[Engine, dict[str, RuleState], dict[str, TableState]]:
    states: dict[str, RuleState] = {}
    tables: dict[str, TableState] = {}
    return Engine(RuleSet(rules, "0123"), states=states, tables=tables, cdn_grammars=grammars), states, tables


def applied(engine: Engine, relation: Relation) -> set[bytes]:
    function = engine.bind(relation)
    assert function is not None
    invalidation = Invalidation()
    function(pgoutput.insert(relation.oid, [b"7"] * len(relation.columns)), invalidation, Transaction(1, 2, 3))
    return invalidation.keys


def test_the_engine_is_what_a_source_asks_for() -> None:
    rules: Rules = make_engine()[0]
    assert rules.bind(ARTICLE) is None


def test_a_relation_without_a_rule_needs_no_function_and_no_figures() -> None:
    engine, _, tables = make_engine(make_rule("users", "user"))
    assert engine.bind(ARTICLE) is None
    assert not tables


def test_a_rule_for_truncate_alone_wants_no_rows() -> None:
    engine, _, _ = make_engine(make_rule("articles", "article", events=(Operation.TRUNCATE,)))
    assert engine.bind(ARTICLE) is None


@pytest.mark.parametrize(
    ("schema", "table", "matches"),
    [
        ("public", "article", True),
        ("public", "artic*", True),
        ("*", "*", True),
        ("pub*c", "*cle", True),
        ("public", "*article*", True),
        ("public", "articl", False),
        ("public", "articl?", False),
        ("public", "[a]rticle", False),
        ("public", "ARTICLE", False),
        ("public", ".*", False),
        ("other", "*", False),
    ],
)
def test_only_a_star_is_special_in_the_names_of_a_rule(schema: str, table: str, matches: bool) -> None:
    engine, _, _ = make_engine(make_rule("r", table, schema=schema))
    assert (engine.bind(ARTICLE) is not None) == matches
    assert engine.applies_to(ARTICLE) == matches


def test_names_are_compared_raw_also_with_a_line_break_in_them() -> None:
    engine, _, _ = make_engine(make_rule("r", "we*ird"))
    assert engine.bind(replace(ARTICLE, table='we\n"ird')) is not None


def test_all_rules_of_a_relation_apply() -> None:
    engine, states, tables = make_engine(
        make_rule("one", "article", key="one:{id}"),
        make_rule("users", "user", key="user:{id}"),
        make_rule("two", "art*", key="two:{id}"),
    )
    assert applied(engine, ARTICLE) == {b"one:7", b"two:7"}
    assert [states[name].matches[Operation.INSERT] for name in ("one", "users", "two")] == [1, 0, 1]
    assert tables["public.article"].rows[Operation.INSERT] == 1


def test_figures_that_exist_already_go_on() -> None:
    state, table = RuleState("r"), TableState("public.article")
    state.matches[Operation.INSERT] = table.rows[Operation.INSERT] = 5
    engine = Engine(
        RuleSet((make_rule("r", "article"),), "0123"), states={"r": state}, tables={"public.article": table}
    )
    applied(engine, ARTICLE)
    assert (state.matches[Operation.INSERT], table.rows[Operation.INSERT]) == (6, 6)


def test_a_relation_announced_again_unchanged_keeps_its_function() -> None:
    engine, _, _ = make_engine(make_rule("r", "article"))
    assert engine.bind(ARTICLE) is engine.bind(replace(ARTICLE))


def test_a_relation_that_changed_is_bound_anew() -> None:
    engine, _, _ = make_engine(make_rule("r", "article"))
    assert applied(engine, ARTICLE) == {b"k:7"}
    turned = make_relation("slug", "id", name="public.article", oid=1)
    function = engine.bind(turned)
    assert function is not None
    invalidation = Invalidation()
    function(pgoutput.insert(1, [b"first", b"second"]), invalidation, Transaction(1, 2, 3))
    assert invalidation.keys == {b"k:second"}


def test_a_relation_that_was_renamed_away_from_a_rule_is_bound_no_more() -> None:
    engine, _, _ = make_engine(make_rule("r", "article"))
    assert engine.bind(ARTICLE) is not None
    assert engine.bind(replace(ARTICLE, table="old_article")) is None


def test_a_missing_column_is_reported_until_it_is_there() -> None:
    engine, states, _ = make_engine(make_rule("r", "article", key="k:{title}:{body}"))
    engine.bind(ARTICLE)
    assert engine.problems == [Problem("r", "public.article", WidenReason.MISSING_COLUMN, ("body", "title"))]
    assert states["r"].missing_columns == {"public.article": ("body", "title")}
    engine.bind(make_relation("id", "title", "body", name="public.article", oid=1))
    assert engine.problems == []
    assert states["r"].missing_columns == {}


def test_a_missing_column_of_a_relation_that_was_renamed_away_is_reported_no_more() -> None:
    engine, states, _ = make_engine(make_rule("r", "article", key="k:{title}"))
    engine.bind(ARTICLE)
    engine.bind(replace(ARTICLE, table="old_article"))
    assert engine.problems == []
    assert states["r"].missing_columns == {}


def test_a_truncate_adds_the_coarse_form_of_every_rule_that_wants_it() -> None:
    engine, states, tables = make_engine(
        make_rule("one", "article"),
        make_rule("deaf", "article", events=(Operation.INSERT,)),
        make_rule("users", "user", coarse=Coarse(keys=(parse("{meta.schema}.{meta.table}.{meta.op}.{meta.xid}"),))),
        make_rule("other", "other"),
    )
    invalidation = Invalidation()
    engine.truncate([ARTICLE, USER], invalidation, Transaction(1, 77, 3))
    assert invalidation == Invalidation(tags={b"all-one"}, keys={b"public.user.truncate.77"})
    assert {name: state.matches[Operation.TRUNCATE] for name, state in states.items()} == {
        "one": 1,
        "deaf": 0,
        "users": 1,
        "other": 0,
    }
    assert states["one"].widened == {WidenReason.TRUNCATE: 1}
    assert tables["public.article"].rows[Operation.TRUNCATE] == 1


def test_rules_that_a_reload_removed_handle_their_open_transaction_to_its_end() -> None:
    """The figures of removed rules are gone at once; the stream changes rules at the next Commit only."""
    old, states, _ = make_engine(make_rule("gone", "article", key="k:{id}:{title}"))
    del states["gone"]
    reader = Reader(old, heartbeat_name="s", max_items=1000, max_bytes=1 << 20, state=SourceState())
    reader.drain(script([pgoutput.begin(final_lsn=9)]))
    reader.swap(make_engine(make_rule("new", "article"))[0])

    reader.bind(ARTICLE)
    named = Invalidation()
    old.widen(ARTICLE, named, Transaction(1, 2, 3), WidenReason.CAPTURE_FAILED)
    messages = [pgoutput.insert(1, [b"7", b"s"]), pgoutput.truncate([1]), pgoutput.commit(lsn=9, end_lsn=10)]
    reader.drain(script(messages))

    assert reader.take().invalidation.tags == named.tags == {b"all-gone"}
    assert reader.end == 10
    assert dict(old.coarse()) == {"gone": named}
    assert not states, "and what is counted for them now shows nowhere"


def test_what_an_old_engine_found_after_the_swap_is_not_told_of_the_new_rule() -> None:
    old, states, tables = make_engine(make_rule("r", "article", key="k:{title}"))
    new = Engine(RuleSet((make_rule("r", "article"),), "4567"), states=states, tables=tables)
    old.bind(ARTICLE)
    assert states["r"].missing_columns

    new.bind(ARTICLE)

    assert states["r"].missing_columns == {}


def test_a_gap_adds_the_coarse_form_of_every_rule() -> None:
    engine, states, _ = make_engine(
        make_rule("one", "article"),
        make_rule("users", "user", events=(Operation.INSERT,), coarse=Coarse(key_patterns=(parse("{meta.table}:*"),))),
    )
    assert dict(engine.coarse()) == {
        "one": Invalidation(tags={b"all-one"}),
        "users": Invalidation(key_patterns={b"user:*"}),
    }
    assert states["users"].widened == {"gap": 1}


def test_a_gap_of_a_table_finds_its_rules_when_a_dot_is_a_part_of_its_name() -> None:
    engine, _, _ = make_engine(
        make_rule("tenants", "user", schema="*"),
        make_rule("items", "order.item"),
        make_rule("other", "user", schema="acme"),
    )
    assert [name for name, _ in engine.coarse({"acme.example.com.user"})] == ["tenants"]
    assert [name for name, _ in engine.coarse({"public.order.item"})] == ["items"]


def test_a_gap_makes_wider_what_it_cannot_know() -> None:
    coarse = Coarse(
        keys=(parse("k[1]:{meta.table}"),),
        tags=(parse("t:{meta.xid}"), parse("known:{meta.schema}")),
        tag_patterns=(parse("g:{meta.table}:*"),),
        l1=(parse("l:{meta.table}"),),
        cdn=(parse("c-{meta.op}"),),
    )
    engine, _, _ = make_engine(make_rule("r", "*", coarse=coarse))
    [(_, invalidation)] = engine.coarse()
    assert invalidation == Invalidation(
        key_patterns={b"k[[]1]:*"},
        tags={b"known:public"},
        tag_patterns={b"t:*", b"g:*:*"},
        l1={b"l:*"},
        cdn_all=True,
    )


def test_a_coarse_cdn_tag_outside_the_grammar_purges_everything() -> None:
    grammar = TagGrammar("edge", re.compile(rb"[a-z]+"), 10, "letters")
    engine, _, _ = make_engine(
        make_rule("one", "article", coarse=Coarse(cdn=(parse("two words"), parse("fine")))), grammars=(grammar,)
    )
    invalidation = Invalidation()
    engine.truncate([ARTICLE], invalidation, Transaction(1, 2, 3))
    assert invalidation == Invalidation(cdn={b"fine"}, cdn_all=True)


def test_a_bulk_change_of_one_table_leaves_the_other_tables_of_a_rule_exact() -> None:
    rule = replace(make_rule("any", "*", key="k:{meta.table}:{id}"), bulk_over=2)
    engine, _, _ = make_engine(rule)
    invalidation, transaction = Invalidation(), Transaction(1, 2, 3)
    for relation, rows in ((ARTICLE, 3), (USER, 2)):
        function = engine.bind(relation)
        assert function is not None
        for number in range(rows):
            function(pgoutput.insert(relation.oid, [b"%d" % number, b"x"]), invalidation, transaction)

    assert {b"k:user:0", b"k:user:1"} <= invalidation.keys
    assert invalidation.tags == {b"all-any"}, "only the table above the bound is coarse"
