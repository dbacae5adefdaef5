"""Somebody watches what a running daemon does."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from invalidator.telemetry.happenings import MAX_KEPT
from tests.support.daemon import Stack
from tests.support.notify import CHANNEL, triggers
from tests.support.outbox import setup
from tests.support.processes import DEADLINE_SECONDS, Program

RULES: list[dict[str, Any]] = [
    {
        "name": "item",
        "table": "public.item",
        "when": "id > 0",
        "invalidate": {"keys": ["item:{id}"], "tags": ["t:{id}"], "l1": ["item:{id}"]},
    },
    {"name": "other", "table": "public.other", "invalidate": {"keys": ["other:{id}"]}},
]

NEXT = {
    "item": "INSERT INTO item SELECT coalesce(max(id), 0) + 1 FROM item",
    "other": "INSERT INTO other SELECT coalesce(max(id), 0) + 1 FROM other",
}


@pytest.fixture
async def shop(stack: Stack) -> Stack:
    stack.rules = list(RULES)
    stack.settings["admin"] = {"socket": str(stack.folder / "s")}
    await stack.sql("CREATE TABLE other (id int PRIMARY KEY)")
    return stack


Tail = Callable[..., Program]


@pytest.fixture
def tail(shop: Stack, run_program: Callable[..., Program]) -> Tail:
    """Starts ``invalidator tail`` with these options."""
    return partial(run_program, "tail", "--socket", str(shop.folder / "s"))


async def records(watcher: Program, stack: Stack, condition: Any, what: str) -> list[dict[str, Any]]:
    """All records so far, once the condition holds for one of them."""

    def seen() -> list[dict[str, Any]]:
        return [json.loads(line) for line in tuple(watcher.lines)]

    await stack.until(lambda: any(condition(each) for each in seen()), f"{what}: {watcher.output}")
    return seen()


def is_unfired(record: dict[str, Any]) -> bool:
    return any(rule["why_not"] is not None for row in record["rows"] for rule in row["rules"])


def is_of(record: dict[str, Any], kind: str) -> bool:
    return bool(record["record"] == kind)


async def test_rows_names_targets_and_the_log_are_shown_as_they_come(shop: Stack, tail: Tail) -> None:
    daemon = await shop.start()
    await shop.sql("INSERT INTO item VALUES (1, 'before')")
    await shop.confirmed_everything()
    shop.fill("item:2")
    watcher, people = tail("--json"), tail()
    await records(watcher, shop, lambda each: is_of(each, "transaction"), "what came before")
    await shop.until(lambda: "keys item:1 " in people.output, f"the same in words: {people.output}")

    await shop.sql("INSERT INTO item VALUES (2, 'a')")
    await shop.sql("INSERT INTO item VALUES (-2, 'a')")
    seen = await records(watcher, shop, lambda each: each.get("removed") == 1, "what the target did")
    before, after = (each for each in seen if is_of(each, "transaction"))
    assert before["rows"][0]["rules"][0]["invalidation"]["keys"] == ["item:1"]
    assert after["rows"][0]["table"] == "public.item"
    assert after["rows"][0]["columns"]["id"] == {"new": "2"}
    assert after["rows"][0]["rules"][0]["invalidation"] == {"keys": ["item:2"], "tags": ["t:2"], "l1": ["item:2"]}
    applied = next(each for each in seen if each.get("removed") == 1)
    assert (applied["target"], applied["layer"], applied["names"]) == ("redis", "L2", 2)
    assert applied["invalidation"] == {"keys": ["item:2"], "tags": ["t:2"]}

    await shop.until(lambda: "(2 names, 1 existed)" in people.output, f"the same in words: {people.output}")
    assert "INSERT   public.item  item  keys item:2  tags t:2  l1 item:2" in people.output
    assert "\x1b" not in people.output

    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert [watcher.wait(), people.wait()] == [0, 0]
    told = [json.loads(line) for line in watcher.lines]
    ends = [each.get("event", each["record"]) for each in told]
    assert [each for each in ends if each.startswith("daemon.")] == ["daemon.stopping", "daemon.stopped"]
    assert ends[-1] == "end"
    assert people.lines[-1] == "-- the daemon stops"


@pytest.mark.parametrize("source", ["outbox", "notify"])
async def test_rows_of_other_sources_are_shown_and_filtered_like_those_of_a_slot(
    shop: Stack, tail: Tail, run_program: Callable[..., Program], source: str
) -> None:
    if source == "outbox":
        shop.source = {"type": "outbox"}
        await setup(shop.database.dsn, shop.rules)
    else:
        shop.source = {"type": "notify", "channels": [CHANNEL]}
        await triggers(shop.database.dsn, shop.rules)
    await shop.start()
    shop.fill("other:1")
    await shop.sql("INSERT INTO item VALUES (1, 'a'), (-1, 'a')")
    await shop.sql("INSERT INTO other VALUES (1)")
    await shop.gone("other:1")

    watcher = tail("--json", "--all", "--rule", "item")
    live = run_program("explain", "--live", "last=10", "--settings", str(shop.folder / "invalidator.yaml"))
    seen = await records(watcher, shop, is_unfired, "what came before")
    row, unfired = (row for each in seen for row in each["rows"])
    assert (row["operation"], row["table"], row["columns"]["id"]) == ("insert", "public.item", {"new": "1"})
    assert row["rules"][0]["invalidation"] == {"keys": ["item:1"], "tags": ["t:1"], "l1": ["item:1"]}
    assert unfired["rules"][0]["why_not"].startswith("when: id > 0 is ")
    assert {(each["xid"] is None, each["is_whole"]) for each in seen} == {(source == "notify", True)}
    assert live.wait() == 0, live.output
    assert "keys    item:1 " in live.output
    assert 'INSERT public.other  id = "1"' in live.output


async def test_filters_show_what_was_asked_for_and_nothing_else(shop: Stack, tail: Tail) -> None:
    await shop.start()
    options = {
        "rule": ("--rule", "other", "--rule", "none"),
        "target": ("--target", "bus", "--kind", "l1"),
    }
    watchers = {name: tail("--json", *chosen) for name, chosen in options.items()}
    for wanted, watcher in zip(("other", "item"), watchers.values(), strict=True):  # each watches by now
        while not watcher.lines:
            await shop.sql(NEXT[wanted])
            await shop.confirmed_everything()
    for statement in ("INSERT INTO other VALUES (1000), (1001)", "INSERT INTO item VALUES (1000), (-1000), (1001)"):
        await shop.sql(statement)

    await asyncio.to_thread(watchers["rule"].wait_for_line, "other:1001")
    assert "item" not in watchers["rule"].output
    await asyncio.to_thread(watchers["target"].wait_for_line, "item:1001")
    assert {json.loads(line)["target"] for line in watchers["target"].lines} == {"bus"}
    assert {*json.loads(watchers["target"].lines[-1])["invalidation"]} == {"l1"}
    for watcher in watchers.values():
        watcher.process.send_signal(signal.SIGINT)
    assert {watcher.wait() for watcher in watchers.values()} == {0}
    assert "Traceback" not in "".join(watcher.output for watcher in watchers.values())


async def test_a_watcher_that_does_not_read_neither_delays_nor_grows_the_daemon_and_learns_what_it_missed(
    shop: Stack,
) -> None:
    daemon = await shop.start()
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(str(shop.folder / "s"))
        stuck.sendall(b"GET /tail?last=0 HTTP/1.0\r\n\r\n")
        assert stuck.recv(12) == b"HTTP/1.0 200"

        # Enough to fill the buffers on the way, then more than the rings hold.
        insert = "DO $$BEGIN FOR i IN {}..{} LOOP INSERT INTO item VALUES (i); COMMIT; END LOOP; END$$"
        for first in range(1, 3 * MAX_KEPT, 100):
            await shop.sql(insert.format(first, first + 99))
        shop.fill("item:9999999")
        await shop.sql("INSERT INTO item VALUES (9999999)")
        await shop.gone("item:9999999")
        await shop.confirmed_everything()

        begun = time.monotonic()
        received = b""
        while b'"record":"missed"' not in received:
            assert time.monotonic() - begun < DEADLINE_SECONDS, received[-300:]
            received += stuck.recv(1 << 20)
        for first in range(10_000, 10_000 + 3 * MAX_KEPT, 100):
            await shop.sql(insert.format(first, first + 99))
        daemon.terminate()
        assert daemon.wait() == 0


async def test_a_daemon_that_is_gone_or_was_never_there_is_said_to_be(shop: Stack, tail: Tail) -> None:
    absent = tail()
    assert absent.wait() == 69
    assert "no daemon answers" in absent.output

    daemon = await shop.start()
    watcher = tail("-n", "0", "--json")
    while not watcher.lines:
        await shop.sql(NEXT["other"])
        await shop.confirmed_everything()
    daemon.kill()
    assert watcher.wait() == 69
    assert "it ended without a farewell" in watcher.output
