"""The daemon looks related rows up, over a real Postgres and a real Redis."""

from __future__ import annotations

import pytest

from tests.support.daemon import Stack
from tests.support.watched import Watched

RULE = {
    "name": "order-item",
    "table": "public.order_item",
    "lookup": {"order": {"sql": "SELECT o.user_id FROM orders o WHERE o.id = {order_id}", "limit": 10}},
    "invalidate": {"keys": ["order:{order_id}", "user:{order.user_id}:orders"]},
    "coarse": {"keys": ["user:*:orders"]},
}


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    """Two users with an order each; every old value is sent."""
    await stack.sql("CREATE TABLE orders (id int PRIMARY KEY, user_id int)")
    await stack.sql("CREATE TABLE order_item (id int PRIMARY KEY, order_id int)")
    await stack.sql("ALTER TABLE order_item REPLICA IDENTITY FULL")
    await stack.sql("INSERT INTO orders VALUES (1, 7), (2, 8), (3, 9)")
    stack.rules.append(RULE)
    stack.settings["lookups"] = {"timeout_seconds": 60}  # a busy machine is no reason to widen
    return stack


async def test_a_child_that_moves_between_parents_invalidates_both(shop: Stack) -> None:
    await shop.start()
    await shop.sql("INSERT INTO order_item VALUES (1, 1)")
    await shop.confirmed_everything()
    shop.fill("order:1", "order:2", "user:7:orders", "user:8:orders", "user:9:orders")
    await shop.sql("UPDATE order_item SET order_id = 2 WHERE id = 1")
    await shop.gone("order:1", "order:2", "user:7:orders", "user:8:orders")
    await shop.confirmed_everything()
    assert shop.client.exists("user:9:orders")


async def test_a_lookup_that_fails_widens_and_says_so(shop: Stack) -> None:
    program = await shop.start()
    shop.fill("order:1", "user:7:orders", "user:9:orders")
    await shop.sql("ALTER TABLE orders RENAME TO elsewhere")
    await shop.sql("INSERT INTO order_item VALUES (1, 1)")
    await shop.gone("order:1", "user:7:orders", "user:9:orders")
    event = await program.event("lookup.failed")
    assert event["error"] == 'relation "orders" does not exist'
    problem = await Watched(program).until("order-item", is_there=True)
    assert problem["code"] == "lookup-failing"
