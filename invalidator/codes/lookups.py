"""Codes about lookups, known from the rule files alone."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Lookups"

_TAG: Final = "\ncoarse: {tags: [orders]}"


def _rule(sql: str, invalidate: str, *, name: str = "order", second: str = "") -> str:
    more = f"  shop:\n    sql: {second}\n" * bool(second)
    return f"lookup:\n  {name}:\n    sql: {sql}\n{more}invalidate: {{{invalidate}}}{_TAG}"


_SQL: Final = "SELECT o.user_id FROM orders o WHERE o.id = {order_id}"
_SHOP: Final = "SELECT s.slug FROM shops s WHERE s.id = {shop_id}"
_JOINED: Final = "SELECT o.user_id, s.slug FROM orders o JOIN shops s ON s.id = o.shop_id WHERE o.id = {order_id}"
_KEYS: Final = 'keys: ["user:{order.user_id}:orders"], tags: ["order:{order_id}"]'

CODES: Final = (
    Code(
        "lookup-syntax",
        "error",
        "The SQL of a lookup is no single query, or a placeholder stands where it cannot be bound; the caret stands"
        " there. Whether the rest of the SQL is right, `--online` tells.",
        "A placeholder inside quotes is no placeholder but these very characters, and finds nothing. Two statements,"
        " or one that writes, cannot be wrapped into the query for a whole batch.",
        _rule("SELECT o.user_id FROM orders o WHERE o.id = '{order_id}'", _KEYS),
        _rule(_SQL, _KEYS),
    ),
    Code(
        "unknown-lookup",
        "error",
        "What stands before the dot in a template is no lookup of this rule; nor is it `new`, `old` or `meta`.",
        "A column of the row is written without its table: `{id}`, not `{user.id}`.",
        _rule(_SQL, 'keys: ["user:{orders.user_id}:orders"]'),
        _rule(_SQL, _KEYS),
    ),
    Code(
        "lookup-unused",
        "warning",
        "No template names a column of this lookup, so it never runs.",
        "What its author wanted to drop by it stays stale.",
        _rule(_SQL, 'keys: ["order:{order_id}"]'),
        _rule(_SQL, _KEYS),
    ),
    Code(
        "lookup-name-clash",
        "error",
        "A lookup has the name of a column that a template of the rule uses.",
        "`{order}` would be the column and `{order.id}` the lookup: nobody could read that.",
        _rule(_SQL, 'keys: ["user:{order.user_id}:orders", "order:{order}"]'),
        _rule(
            _SQL.replace("{order_id}", "{order}"),
            'keys: ["user:{found.user_id}:orders", "order:{order}"]',
            name="found",
        ),
    ),
    Code(
        "two-lookups",
        "error",
        "One template names columns of two lookups.",
        "Each row that is found makes a name. With two lookups it would be every combination of their rows, also those"
        " that never belonged together.",
        _rule(_SQL, 'keys: ["user:{order.user_id}:{shop.slug}"]', second=_SHOP),
        _rule(_JOINED, 'keys: ["user:{order.user_id}:{order.slug}"]'),
    ),
    Code(
        "lookup-after-delete",
        "info",
        "The rule looks at deletes, and everything that it names comes from a lookup.",
        "A lookup sees the tables as they are after the commit. When the rows that it would find went with the deleted"
        " one, as by `ON DELETE CASCADE`, it finds nothing, and the entry stays stale. A tag that needs no lookup is"
        " dropped all the same.",
        _rule(_SQL, 'keys: ["user:{order.user_id}:orders"]'),
        _rule(_SQL, _KEYS),
    ),
)
