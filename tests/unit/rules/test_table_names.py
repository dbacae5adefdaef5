"""Names of tables as rules write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.rules.table_names import join_table, split_table

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES)
def test_what_is_joined_is_split_again(schema: str, table: str) -> None:
    assert split_table(join_table(schema, table)) == (schema, table)


@pytest.mark.parametrize(
    ("schema", "table", "written"),
    [
        ("public", "users", "public.users"),
        ("public", "Users", "public.Users"),
        ("tenant_*", "users", "tenant_*.users"),
        ("public", "Order.Items", 'public."Order.Items"'),
        ("my schema", 'a"b', '"my schema"."a""b"'),
    ],
)
def test_only_names_that_need_quotes_get_them(schema: str, table: str, written: str) -> None:
    assert join_table(schema, table) == written
