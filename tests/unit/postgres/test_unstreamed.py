"""Which differences of the catalog mean that rows may have changed unseen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from invalidator.continuity.unstreamed import decode, encode
from invalidator.postgres.catalog.unstreamed import TableFacts, changes

FACTS = TableFacts(16, ("1/740true/16/90/741",), {17: True, 18: False}, {1: "id/23/700", 2: "name/25/700"})


def test_nothing_happened() -> None:
    assert changes({"public.a": FACTS}, {"public.a": FACTS}) == {}


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (replace(FACTS, oid=99), "made anew"),
        (replace(FACTS, published=()), "not published any more"),
        (replace(FACTS, published=("1/750true/16/90/741",)), "published in another way"),
        (replace(FACTS, partitions={17: True}), "1 partitions detached or dropped"),
        (replace(FACTS, partitions={17: True, 18: True, 19: True}), "1 partitions with rows attached"),
        (replace(FACTS, columns={1: "id/23/700", 2: "name/25/760"}), "columns altered"),
        (replace(FACTS, columns={1: "id/23/700"}), "columns altered"),
    ],
)
def test_what_may_have_changed_rows_unseen_is_told(after: TableFacts, told: str) -> None:
    assert changes({"public.a": FACTS}, {"public.a": after}) == {"public.a": told}


@pytest.mark.parametrize(
    "after",
    [
        replace(FACTS, partitions={17: True, 18: True}),  # rows came through the stream
        replace(FACTS, partitions={17: True, 18: False, 19: False}),
        replace(FACTS, columns={**FACTS.columns, 3: "new/23/800"}),
    ],
)
def test_what_only_came_into_being_says_nothing(after: TableFacts) -> None:
    assert changes({"public.a": FACTS}, {"public.a": after, "public.b": FACTS}) == {}


def test_a_table_that_is_gone_is_told_under_its_old_name() -> None:
    assert changes({"public.a": FACTS}, {"public.b": FACTS}) == {"public.a": "dropped or renamed"}


def test_what_was_seen_comes_back_as_it_was() -> None:
    looked = {"public.a": FACTS, 'public.Odd "name"': replace(FACTS, partitions={})}

    assert decode(encode(looked)) == looked


@pytest.mark.parametrize(
    "content", [None, b"", b"null", b"[]", b'{"a": 1}', b'{"a": {"oid": "x"}}', b'{"a": {"oid": 1e999}}', b"\xff"]
)
def test_anything_else_was_not_seen(content: bytes | None) -> None:
    assert not decode(content)
