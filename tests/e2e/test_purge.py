"""An operator drops entries by hand, through a running daemon."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from invalidator.cli import verbs
from tests.support.daemon import Stack
from tests.support.processes import DEADLINE_SECONDS

RULES: list[dict[str, Any]] = [
    {"name": "item", "table": "public.item", "invalidate": {"keys": ["item:{id}"], "l1": ["item:{id}"]}},
    {"name": "other", "table": "public.other", "invalidate": {"keys": ["other:{id}"]}},
]


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    stack.rules = list(RULES)
    stack.settings["admin"] = {"socket": str(stack.folder / "s")}
    await stack.sql("CREATE TABLE other (id int PRIMARY KEY)")
    await stack.sql("INSERT INTO item VALUES (1), (2), (3)")
    return stack


async def purge(stack: Stack, *arguments: str) -> Result:
    call = ["purge", *arguments, "--settings", str(stack.folder / "invalidator.yaml")]
    return await asyncio.to_thread(CliRunner().invoke, verbs, call, standalone_mode=False)


async def test_names_are_dropped_in_every_layer_and_told(shop: Stack) -> None:
    program = await shop.start()
    shop.fill("a:1", "a:2", "page:1", "b:1")
    shop.client.sadd("tag:t", "page:1")
    listener = shop.client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    listener.subscribe("cache:invalidate")
    assert listener.get_message(timeout=DEADLINE_SECONDS) is None  # it is subscribed: that message is ignored

    result = await purge(shop, "--key", "a:1", "--key", "none", "--tag", "t", "--pattern", "a:*", "--l1", "x:*")

    assert (result.return_value, result.stdout) == (0, "5 names: dropped\n")
    assert not shop.client.exists("a:1", "a:2", "page:1", "tag:t")
    assert shop.client.exists("b:1")
    await shop.until(lambda: "x:*" in str(listener.get_message(timeout=1)), "the message")
    listener.close()
    assert (await program.event("purge.ordered"))["items"] == 5


async def test_a_rule_is_dropped_by_its_coarse_form_or_for_rows_that_are_there(shop: Stack) -> None:
    await shop.start()
    shop.fill("item:1", "item:2", "item:9", "other:1")

    exact = await purge(shop, "--rule", "item", "--where", "id < 3")
    assert exact.stdout == "4 names: dropped\n"
    assert shop.client.exists("item:9", "other:1") == 2
    assert not shop.client.exists("item:1", "item:2")

    coarse = await purge(shop, "--rule", "item", "--json")
    assert json.loads(coarse.stdout) == {"items": 2, "rules": ["item"], "applied": True}
    assert not shop.client.exists("item:9")
    assert shop.client.exists("other:1")

    await purge(shop, "--all")
    assert not shop.client.exists("other:1")


async def test_a_dry_run_asks_no_daemon(shop: Stack) -> None:
    shop.write()
    shop.fill("item:1")

    every = await purge(shop, "--all", "--dry-run")
    rows = await purge(shop, "--rule", "item", "--where", "id = 1", "--dry-run", "--json")
    none = await purge(shop, "--rule", "item", "--where", "id = 99", "--dry-run")
    await shop.sql('CREATE TABLE "Odd.Item" (id int PRIMARY KEY)')
    await shop.sql('INSERT INTO "Odd.Item" VALUES (1)')
    shop.rules.append({"name": "odd", "table": 'public."Odd.Item"', "invalidate": {"keys": ["odd:{id}"]}})
    shop.source["dsn"] = "postgresql://nobody@127.0.0.1:1/none"
    shop.write()
    owner = ("--where", "id = 1", "--dry-run", "--json", "--dsn", shop.database.dsn)
    as_owner = await purge(shop, "--rule", "odd", *owner)

    assert [line.split() for line in every.stdout.splitlines()] == [
        ["patterns", "item:*", "other:*"],
        ["l1", "item:*"],
        ["3", "names", "would", "be", "dropped"],
    ]
    assert json.loads(rows.stdout) == {"keys": ["item:1"], "l1": ["item:1"]}
    assert "no row matches" in none.stdout
    assert json.loads(as_owner.stdout) == {"keys": ["odd:1"]}
    assert shop.client.exists("item:1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing is named"),
        (("--where", "id = 1"), "--where goes with one --rule"),
        (("--rule", "nope"), "there is no rule 'nope' in force"),
        (("--rule", "nope", "--where", "id = 1"), "there is no rule 'nope' for one table"),
        (("--key", ""), "must be a list of texts"),
    ],
)
async def test_what_cannot_be_understood_drops_nothing(shop: Stack, arguments: tuple[str, ...], said: str) -> None:
    await shop.start()
    shop.fill("item:1")

    result = await purge(shop, *arguments)

    assert said in str(result.exception)
    assert shop.client.exists("item:1")
