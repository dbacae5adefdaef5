"""What messages of the DDL hook say, and what forged ones cannot do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.postgres.catalog.told import MAX_BYTES, Told
from invalidator.postgres.catalog.unstreamed import TableFacts

LOOKED = {
    "public.item": TableFacts(1, (), {}, {}),
    "public.event": TableFacts(2, (), {21: True, 22: False}, {}),
}
TABLES = {("public", "item"), ("public", "event"), ("public", "later")}


def told() -> Told:
    made = Told(lambda schema, table: (schema, table) in TABLES)
    made.looked(LOOKED)
    return made


def entry(oid: int, table: str, what: str, **more: object) -> dict[str, object]:
    return {"oid": oid, "schema": "public", "table": table, "what": what, **more}


def changes(told: Told, *entries: dict[str, object]) -> dict[str, str]:
    return told.changes(json.dumps(entries).encode())


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([entry(1, "item", "dropped")], ["public.item"]),
        ([entry(9, "later", "dropped")], ["public.later"]),
        ([entry(22, "event_2", "dropped")], ["public.event"]),
        ([entry(1, "item", "altered")], ["public.item"]),
        ([entry(1, "renamed", "there")], ["public.item"]),
        ([entry(5, "item", "there")], []),
        ([entry(1, "item", "there")], []),
        ([entry(2, "event", "there", partitions={"21": True, "22": True})], []),
        ([entry(2, "event", "there", partitions={"21": True})], ["public.event"]),
        ([entry(2, "event", "there", partitions={"21": True, "22": False, "23": False})], []),
        ([entry(2, "event", "there", partitions={"21": True, "22": False, "23": True})], ["public.event"]),
        ([entry(7, "nobodys", "dropped"), entry(7, "nobodys", "altered")], []),
        ([{"what": "unknown"}], ["public.event", "public.item"]),
        ([entry(1, "item", "something else")], []),
    ],
)
def test_tables_of_which_rows_may_have_changed_unseen_are_named(
    entries: list[dict[str, object]], names: list[str]
) -> None:
    assert sorted(changes(told(), *entries)) == names


def test_what_was_told_counts_for_what_is_told_next() -> None:
    heard = told()
    assert not changes(heard, entry(8, "later", "there", partitions={}))
    assert not changes(heard, entry(8, "later", "there", partitions={"81": False}))
    assert list(changes(heard, entry(81, "later_1", "dropped"))) == ["public.later"]
    assert list(changes(heard, entry(2, "other", "there", partitions={"21": True, "22": False}))) == ["public.event"]
    assert list(changes(heard, entry(2, "event", "there", partitions={"21": True, "22": False}))) == ["public.event"]


def test_a_dot_may_be_a_part_of_a_schema() -> None:
    made = Told(lambda schema, table: (schema, table) == ("acme.com", "item"))
    dropped = {"oid": 7, "schema": "acme.com", "table": "item", "what": "dropped"}
    assert changes(made, dropped) == {"acme.com.item": "dropped or renamed"}
    made.looked({"acme.com.item": TableFacts(7, (), {}, {})})
    assert changes(made, {"what": "unknown"}).keys() == {"acme.com.item"}


def test_swapped_tables_are_both_named() -> None:
    heard = told()
    assert list(changes(heard, entry(1, "item_old", "there"))) == ["public.item"]
    assert not changes(heard, entry(3, "item", "there"))
    assert list(changes(heard, entry(3, "item", "dropped"))) == ["public.item"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FORGED = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "oid": JSON | st.integers(0, 30),
            "schema": JSON | st.just("public"),
            "table": JSON | st.sampled_from(["item", "event"]),
            "what": JSON | st.sampled_from(["there", "dropped", "altered", "unknown"]),
            "partitions": JSON | st.dictionaries(st.integers(0, 30).map(str), st.booleans()),
        },
    )
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | FORGED.map(lambda v: json.dumps(v).encode()))
def test_no_message_is_fatal_or_names_a_table_of_no_rule(content: bytes) -> None:
    heard = told()
    for _ in range(2):
        assert {tuple(name.split(".")) for name in heard.changes(content)} <= TABLES


@pytest.mark.parametrize("what", ["dropped", "altered", "there"])
def test_a_number_without_end_says_nothing(what: str) -> None:
    """Anybody may emit it, and it comes again after each restart."""
    content = f'[{{"what": "{what}", "schema": "public", "table": "item", "oid": 1e999}}]'
    assert not told().changes(content.encode())


def test_a_message_that_is_too_long_says_nothing() -> None:
    content = json.dumps([entry(1, "item", "dropped")]).encode()
    assert told().changes(content + b" " * (MAX_BYTES - len(content)))
    assert not told().changes(content + b" " * MAX_BYTES)


def test_made_up_tables_are_not_remembered() -> None:
    heard = told()
    for number in range(20_000):
        changes(heard, entry(1000 + number, f"made_up_{number}", "there", partitions={"1": True}))
    assert len(heard._names) == len(LOOKED)
