"""What a row asks a lookup with, and what the answers become."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from invalidator.errors import LookupFailed
from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.engine import Engine
from invalidator.rules.lookup import Asked, LookupPlan, widen_all
from invalidator.rules.lookup_sql import parse_sql
from invalidator.rules.rule import Coarse, Exact, Lookup, Place, Rule, RuleSet
from invalidator.rules.template import parse
from invalidator.telemetry.state import RuleState
from tests.support import pgoutput
from tests.support.pgoutput import UNCHANGED

PLACE = Place("rules.yaml", 1, 1)
GRAMMAR = TagGrammar("strict", re.compile(rb"[a-z0-9:-]+"), 40, "small letters")
TABLE = pgoutput.make_relation("id", "order_id", "name", replica_identity="f")


class Bench:
    """One rule with one lookup ``order``, in front of rows."""

    def __init__(
        self,
        sql: str,
        *keys: str,
        relation: Relation = TABLE,
        limit: int = 2,
        repeat_after: tuple[float, ...] = (),
        **groups: Sequence[str],
    ) -> None:
        templates = {group: tuple(parse(text, ["order"]) for text in texts) for group, texts in groups.items()}
        rule = Rule(
            name="r",
            schema="public",
            table="article",
            events=frozenset(Operation),
            changed=None,
            exact=Exact(keys=tuple(parse(text, ["order"]) for text in keys), **templates),
            coarse=Coarse(keys=(parse("COARSE"),)),
            bulk_over=None,
            repeat_after=repeat_after,
            soft=False,
            place=PLACE,
            lookups=(Lookup("order", parse_sql(sql), limit, None, PLACE),),
        )
        states: dict[str, RuleState] = {}
        engine = Engine(RuleSet((rule,), ""), states=states, tables={}, cdn_grammars=[GRAMMAR])
        function = engine.bind(relation)
        assert function is not None
        self.row = function
        self.relation = relation
        self.state = states["r"]
        self.invalidation = Invalidation()

    def insert(self, *row: bytes | None) -> None:
        self.see(pgoutput.insert(self.relation.oid, row))

    def see(self, message: bytes) -> None:
        self.row(message, self.invalidation, Transaction(final_lsn=77, xid=5, commit_time=0))

    @property
    def asked(self) -> set[Asked]:
        """What is asked, over all plans."""
        return set().union(*self.invalidation.lookups.values())

    def answer(self, columns: Sequence[str], *rows: tuple[bytes | None, ...]) -> None:
        """Give these rows to every question of the one plan."""
        [(plan, asked)] = self.invalidation.lookups.items()
        assert isinstance(plan, LookupPlan)
        groups = list(plan.grouped(asked).values())
        plan.answer(self.invalidation, groups, columns, [(at, row) for at in range(len(groups)) for row in rows])


def test_a_row_asks_and_renders_nothing_of_the_lookup_yet() -> None:
    bench = Bench("SELECT {order_id}", "item:{id}", "user:{order.user_id}")
    bench.insert(b"1", b"10", b"n")
    assert bench.invalidation.keys == {b"item:1"}
    assert bench.asked == {(b"10",)}
    assert bench.invalidation.lookup_transactions == {5: 77}
    assert len(bench.invalidation) == 2


def test_both_images_of_an_update_ask() -> None:
    bench = Bench("SELECT {order_id}", "user:{order.user_id}:{id}")
    bench.see(pgoutput.update(TABLE.oid, [b"1", b"11", b"n"], old=[b"1", b"10", b"n"]))
    assert bench.asked == {(b"10", b"1"), (b"11", b"1")}


def test_a_value_in_both_the_sql_and_a_template_is_carried_once() -> None:
    bench = Bench("SELECT {order_id}, {meta.table}", "{order_id}:{name|lower}:{order.user_id}:{meta.op}:{meta.xid}")
    bench.insert(b"1", b"10", b"N")
    assert bench.asked == {(b"10", b"article", b"N", b"insert", b"5")}
    bench.answer(["user_id"], (b"u",))
    assert bench.invalidation.keys == {b"10:n:u:insert:5"}


def test_an_old_value_that_was_not_sent_widens_and_the_new_one_is_asked() -> None:
    relation = pgoutput.make_relation("id", "order_id")
    bench = Bench("SELECT {order_id}", "user:{order.user_id}", relation=relation)
    bench.see(pgoutput.update(relation.oid, [b"1", b"11"]))
    assert bench.asked == {(b"11",)}
    assert bench.invalidation.keys == {b"COARSE"}
    assert bench.state.widened == {WidenReason.OLD_UNAVAILABLE: 1}


def test_a_large_value_that_was_not_sent_widens() -> None:
    relation = pgoutput.make_relation("id", "order_id")
    bench = Bench("SELECT {new.order_id}", "user:{order.user_id}", relation=relation)
    bench.see(pgoutput.update(relation.oid, [b"1", UNCHANGED]))
    assert bench.asked == set()
    assert bench.invalidation.keys == {b"COARSE"}
    assert bench.state.widened == {WidenReason.VALUE_UNAVAILABLE: 1}


def test_null_is_not_asked_for() -> None:
    bench = Bench("SELECT {order_id}", "user:{order.user_id}")
    bench.insert(b"1", None, b"n")
    assert not bench.invalidation
    assert bench.state.null_skips == 1


def test_an_empty_text_is_asked_for() -> None:
    bench = Bench("SELECT {order_id}", "user:{order.user_id}")
    bench.insert(b"1", b"", b"n")
    assert bench.asked == {(b"",)}


def test_null_beside_the_question_is_seen_when_the_answer_is_rendered() -> None:
    bench = Bench("SELECT {order_id}", "a:{order.user_id}:{name}", "b:{order.user_id}:{name|default:'-'}")
    bench.insert(b"1", b"10", None)
    bench.answer(["user_id"], (b"u",))
    assert bench.invalidation.keys == {b"b:u:-"}
    assert bench.state.null_skips == 1


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        (pgoutput.insert(TABLE.oid, [b"1", b"10", b"n"]), {b"any:u", b"new:n:u"}),
        (pgoutput.delete(TABLE.oid, old=[b"1", b"10", b"n"]), {b"any:u", b"old:n:u"}),
        (pgoutput.update(TABLE.oid, [b"1", b"10", b"m"], old=[b"1", b"10", b"n"]), {b"any:u", b"new:m:u", b"old:n:u"}),
    ],
)
def test_a_template_over_an_image_that_is_not_there_is_left_out_alone(message: bytes, keys: set[bytes]) -> None:
    bench = Bench("SELECT {order_id}", "any:{order.x}", "new:{new.name}:{order.x}", "old:{old.name}:{order.x}")
    bench.see(message)
    bench.answer(["x"], (b"u",))
    assert bench.invalidation.keys == keys
    assert not bench.state.null_skips


def test_a_question_over_an_image_that_is_not_there_is_not_asked() -> None:
    bench = Bench("SELECT {old.order_id}", "any:{order.x}")
    bench.insert(b"1", b"10", b"n")
    assert not bench.invalidation


def test_columns_that_the_table_lacks_widen() -> None:
    bench = Bench("SELECT {gone}", "any:{order.x}", "item:{id}")
    bench.insert(b"1", b"10", b"n")
    assert bench.invalidation.keys == {b"COARSE", b"item:1"}
    assert not bench.invalidation.lookups
    assert bench.state.missing_columns == {"public.article": ("gone",)}


def test_answers_are_escaped_checked_and_repeated_as_row_values_are() -> None:
    bench = Bench(
        "SELECT {order_id}",
        "k:{order.v}",
        tags=["t:{order.v|upper}"],
        l1=["l:{order.v}:*"],
        cdn=["c:{order.v}"],
        repeat_after=(1.0,),
    )
    bench.insert(b"1", b"10", b"n")
    bench.answer(["v"], (b"a",), (b"*!",))
    made = bench.invalidation
    assert made.keys == {b"k:a", b"k:*!", b"COARSE"}
    assert made.tags == {b"t:A", b"t:*!"}
    assert made.l1 == {b"l:a:*", b"l:[*]!:*"}
    assert made.cdn == {b"c:a"}
    repeated = made.repeats[1.0,]
    assert (repeated.keys, repeated.tags, repeated.l1, repeated.cdn) == (made.keys, made.tags, made.l1, made.cdn)
    assert bench.state.widened == {WidenReason.UNSAFE_VALUE: 1}


def test_as_many_rows_as_the_limit_are_exact_and_one_more_is_coarse() -> None:
    bench = Bench("SELECT {order_id}", "k:{order.v}", limit=2)
    bench.insert(b"1", b"10", b"n")
    bench.answer(["v"], (b"a",), (b"b",))
    assert bench.invalidation.keys == {b"k:a", b"k:b"}
    bench.answer(["v"], (b"a",), (b"b",), (b"c",))
    assert bench.invalidation.keys == {b"k:a", b"k:b", b"COARSE"}
    assert bench.state.widened == {WidenReason.LOOKUP_OVERFLOW: 1}
    assert bench.state.lookups == {"ok": 1, "overflow": 1}


@pytest.mark.parametrize(("columns", "what"), [(["w"], r"not \(it has w\)"), (["v", "v"], "twice")])
def test_a_result_without_the_column_is_no_answer(columns: list[str], what: str) -> None:
    bench = Bench("SELECT {order_id}", "k:{order.v}")
    bench.insert(b"1", b"10", b"n")
    with pytest.raises(LookupFailed, match=what) as caught:
        bench.answer(columns, (b"a",) * len(columns))
    assert caught.value.reason is WidenReason.LOOKUP_ERROR
    assert not bench.invalidation.keys


def test_without_anybody_to_ask_every_lookup_widens() -> None:
    bench = Bench("SELECT {order_id}", "k:{order.v}")
    bench.insert(b"1", b"10", b"n")
    bench.insert(b"2", b"11", b"n")
    widen_all(bench.invalidation, WidenReason.LOOKUP_ERROR)
    assert bench.invalidation.keys == {b"COARSE"}
    assert not bench.invalidation.lookups
    assert not bench.invalidation.lookup_transactions
    assert bench.state.lookups == {"error": 2}
