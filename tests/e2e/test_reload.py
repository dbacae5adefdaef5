"""New rules come into force in a running daemon: by signal, by socket and by content, between two transactions."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from invalidator.cli import verbs
from tests.support.daemon import ITEM_RULE, Stack
from tests.support.processes import DEADLINE_SECONDS, Program
from tests.support.watched import Watched

OTHER_KEY: dict[str, Any] = {**ITEM_RULE, "invalidate": {"keys": ["thing:{id}"]}}


@pytest.fixture(autouse=True)
def _admin(stack: Stack) -> None:
    stack.settings["admin"] = {"socket": str(stack.folder / "s")}
    stack.settings["reload"] = {"watch": False}


def write(stack: Stack, *rules: dict[str, Any], tests: object = ()) -> None:
    document = {"version": 1, "rules": list(rules), "tests": list(tests)}  # type: ignore[call-overload]
    (stack.folder / "rules.yaml").write_text(json.dumps(document, indent=1), encoding="utf-8")


async def invalidator(stack: Stack, *arguments: str) -> Result:
    call = [*arguments, "--settings", str(stack.folder / "invalidator.yaml")]
    return await asyncio.to_thread(CliRunner().invoke, verbs, call, standalone_mode=False)


async def test_sighup_puts_new_rules_in_force_and_the_stream_goes_on(stack: Stack) -> None:
    program = await stack.start()
    stack.fill("item:1", "thing:1", "item:2", "thing:2")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("item:1")
    write(stack, OTHER_KEY)

    os.kill(program.pid, signal.SIGHUP)
    event = await program.event("rules.reloaded")
    await stack.sql("INSERT INTO item VALUES (2)")
    await stack.gone("thing:2")

    assert (event["trigger"], event["result"], event["changed"]) == ("signal", "applied", ["item"])
    assert stack.client.exists("thing:1", "item:2") == 2
    assert len(program.events("stream.connected")) == 1
    watched = Watched(program)
    assert (await watched.status())["rules"]["hash"] == event["hash"]
    await watched.until_value(1, "invalidator_config_info", hash=event["hash"])
    assert len(program.events("rules.loaded")) == 1


async def test_a_mistake_is_refused_at_its_place_everywhere_and_the_old_rules_go_on(stack: Stack) -> None:
    program = await stack.start()
    (stack.folder / "rules.yaml").write_text(
        "version: 1\nrules:\n  - name: item\n    table: public.item\n    invalidate: {keys: ['thing:{id|uper}']}\n"
    )

    result = await invalidator(stack, "reload")

    assert result.return_value == 1
    assert "rules.yaml:5:36" in result.stdout
    assert "upper" in result.stdout
    assert "stay in force" in result.stdout
    refused = await program.event("rules.reload_refused")
    assert "rules.yaml:5:36" in refused["error"]
    watched = Watched(program)
    problem = await watched.until("rules", is_there=True)
    assert problem["code"] == "reload-refused"
    assert "rules.yaml:5:36" in problem["text"]
    await watched.until_value(0, "invalidator_config_last_reload_successful")
    stack.fill("item:1")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("item:1")

    write(stack, OTHER_KEY)
    assert (await invalidator(stack, "reload")).return_value == 0
    await watched.until("rules", is_there=False)
    await watched.until_value(1, "invalidator_config_last_reload_successful")


async def test_sighup_during_the_start_reloads_once_the_daemon_has_started(
    stack: Stack, run_program: Callable[..., Program]
) -> None:
    """The rules are a pipe at first, so that the daemon waits in the midst of its start."""
    settings = stack.write()
    path = stack.folder / "rules.yaml"
    path.unlink()
    os.mkfifo(path)
    program = run_program("run", "--settings", settings)
    pipe = await asyncio.wait_for(
        asyncio.to_thread(path.open, "w"), DEADLINE_SECONDS
    )  # returns when the daemon opens it
    os.kill(program.pid, signal.SIGHUP)
    path.unlink()
    write(stack, OTHER_KEY)
    with pipe:
        json.dump({"version": 1, "rules": [ITEM_RULE]}, pipe)

    event = await program.event("rules.reloaded")

    assert (event["trigger"], event["changed"]) == ("signal", ["item"])
    stack.fill("thing:1")
    await program.event("stream.connected")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("thing:1")
    assert len(program.events("rules.reloaded")) == 1


async def test_a_rule_that_a_configured_cdn_could_not_carry_out_is_refused(stack: Stack) -> None:
    stack.targets["edge"] = {"type": "varnish", "url": "http://127.0.0.1:9", "required": False}
    program = await stack.start()
    write(stack, {**ITEM_RULE, "invalidate": {"cdn": ["item {id}"]}, "coarse": {"cdn": ["items"]}})

    result = await invalidator(stack, "reload")

    assert result.return_value == 1
    assert "error[cdn-tag-grammar]: 'item {id}' cannot be a tag at edge (Varnish xkey)" in result.stdout
    assert "stay in force" in result.stdout
    assert not program.events("rules.reloaded")


async def test_removed_rules_leave_the_metrics_and_may_come_back(stack: Stack) -> None:
    stack.rules = [ITEM_RULE, {**OTHER_KEY, "name": "thing"}]
    program = await stack.start()
    watched = Watched(program)
    await watched.until_value(0, "invalidator_rule_matches_total", rule="thing", op="insert")
    write(stack, ITEM_RULE)

    removed = await invalidator(stack, "reload")

    assert "removed  thing" in removed.stdout
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while 'rule="thing"' in (metrics := await watched.text("/metrics")):  # it is rendered at most once a second
        assert asyncio.get_running_loop().time() < deadline
    assert 'rule="item"' in metrics
    stack.fill("item:1", "thing:1", "thing:2")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("item:1")
    assert stack.client.exists("thing:1")
    write(stack, *stack.rules)  # type: ignore[arg-type]
    assert (await invalidator(stack, "reload")).return_value == 0
    await stack.sql("INSERT INTO item VALUES (2)")
    await stack.gone("thing:2")


async def test_rules_that_fail_their_own_tests_are_refused(stack: Stack) -> None:
    program = await stack.start()
    test = {"name": "t", "table": "public.item", "insert": {"id": 1}, "expect": {"keys": ["item:1"]}}
    write(stack, OTHER_KEY, tests=[test])

    result = await invalidator(stack, "reload")

    assert result.return_value == 1
    assert "test 't' fails: keys: missing item:1 and unexpected thing:1" in result.stdout
    assert not program.events("rules.reloaded")


async def test_a_test_that_fails_is_refused_also_if_only_the_tests_changed(stack: Stack) -> None:
    await stack.start()
    test = {"name": "t", "table": "public.item", "insert": {"id": 1}, "expect": {"keys": ["thing:1"]}}
    write(stack, ITEM_RULE, tests=[test])

    result = await invalidator(stack, "reload")

    assert result.return_value == 1
    assert "test 't' fails" in result.stdout
    assert "stay in force" in result.stdout


async def test_a_test_whose_lookup_nobody_answers_is_told_to_be_skipped(stack: Stack) -> None:
    await stack.start()
    lookup = {"other": {"sql": "SELECT i.id FROM item i WHERE i.id = {id}"}}
    asking = {**ITEM_RULE, "lookup": lookup, "invalidate": {"keys": ["item:{other.id}"]}}
    write(stack, asking, tests=[{"name": "t", "table": "public.item", "insert": {"id": 1}, "expect": {}}])

    result = await invalidator(stack, "reload")

    assert "applied" in result.stdout
    assert "test 't' (" in result.stdout
    assert "was not run: rule 'item' asks its lookup 'other'" in result.stdout


async def test_a_reload_without_new_rules_says_since_when_they_are_in_force_and_that_settings_need_a_restart(
    stack: Stack,
) -> None:
    program = await stack.start()
    await program.event("rules.loaded")

    same = await invalidator(stack, "reload")
    file = stack.folder / "invalidator.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "\n# other settings\n", encoding="utf-8")
    edited = await invalidator(stack, "reload")

    assert (same.return_value, edited.return_value) == (0, 0)
    assert re.search(r"unchanged: rules \w+ are in force since \d{4}-\d\d-\d\dT", same.stdout)
    assert "restart" not in same.stdout
    assert "invalidator.yaml has changed since the daemon started: settings need a restart" in edited.stdout


async def test_a_table_that_is_not_published_is_refused_with_the_sql_that_publishes_it(stack: Stack) -> None:
    await stack.sql("CREATE TABLE late (id int PRIMARY KEY)")
    await stack.start()
    write(stack, ITEM_RULE, {"name": "late", "table": "public.late", "invalidate": {"keys": ["late:{id}"]}})

    refused = await invalidator(stack, "reload")
    (fix,) = {line.partition("fix:")[2].strip() for line in refused.stdout.splitlines() if "fix:" in line}
    assert refused.return_value == 1
    assert fix.startswith("ALTER PUBLICATION")
    await stack.sql(fix)
    applied = await invalidator(stack, "reload")

    assert applied.return_value == 0
    assert "added    late" in applied.stdout
    stack.fill("late:1", "item:1")
    await stack.sql("INSERT INTO late VALUES (1); INSERT INTO item VALUES (1)")
    await stack.gone("late:1", "item:1")


async def test_a_config_map_that_is_swapped_by_its_links_is_noticed_and_nothing_else_is(stack: Stack) -> None:
    """As the kubelet does it: ..data is a link to a folder with a time in its name, replaced by rename."""
    mounted = stack.folder / "mounted"
    mounted.mkdir()
    stack.settings |= {"rules": [str(mounted)], "reload": {"interval_seconds": 0.1}}

    def publish(version: str, rule: dict[str, Any]) -> None:
        folder = mounted / f"..{version}"
        folder.mkdir()
        (folder / "rules.yaml").write_text(json.dumps({"version": 1, "rules": [rule]}), encoding="utf-8")
        old = (mounted / "..data").resolve() if (mounted / "..data").is_symlink() else None
        (mounted / "..data_tmp").symlink_to(folder.name)
        (mounted / "..data_tmp").rename(mounted / "..data")
        if not (mounted / "rules.yaml").is_symlink():
            (mounted / "rules.yaml").symlink_to("..data/rules.yaml")
        if old is not None:
            shutil.rmtree(old)

    publish("2026_01", ITEM_RULE)
    program = await stack.start()
    publish("2026_02", OTHER_KEY)
    event = await program.event("rules.reloaded")
    assert (event["trigger"], event["changed"]) == ("content", ["item"])
    stack.fill("thing:1")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("thing:1")

    publish("2026_03", OTHER_KEY)
    publish("2026_04", ITEM_RULE)
    await program.event("rules.reloaded", count=2)

    assert len(program.events("rules.reloaded")) == 2


async def test_each_transaction_is_handled_by_one_rule_set_while_rules_change_under_load(stack: Stack) -> None:
    """Every transaction has two rows; the rule sets name them so that a mixture would be seen."""
    sets = {
        "a": {**ITEM_RULE, "invalidate": {"keys": ["a:{id}"]}},
        "b": {**ITEM_RULE, "invalidate": {"keys": ["b:{id}"]}},
    }
    stack.rules = [sets["a"]]
    program = await stack.start()
    committed = 0
    is_over = False

    async def commit() -> None:
        nonlocal committed
        while not is_over:
            rows = 2 * committed, 2 * committed + 1
            stack.fill(*(f"{name}:{row}" for name in sets for row in rows))
            await stack.sql("INSERT INTO item SELECT g FROM generate_series(%s::int, %s::int) g", *rows)
            committed += 1

    commits = asyncio.create_task(commit())
    for change in range(6):
        before = committed
        write(stack, sets["ba"[change % 2]])
        os.kill(program.pid, signal.SIGHUP)
        await program.event("rules.reloaded", count=change + 1)
        await stack.until(lambda: committed > before + 5, "transactions are committed")  # noqa: B023
    is_over = True
    await commits
    await stack.confirmed_everything()

    gone = {
        key
        for key in (f"{name}:{row}" for name in sets for row in range(2 * committed))
        if not stack.client.exists(key)
    }
    handled = [[name for name in sets if f"{name}:{row}" in gone] for row in range(2 * committed)]
    assert all(len(names) == 1 for names in handled), "each row was handled by exactly one of the two"
    assert handled[::2] == handled[1::2], "and so was each transaction"
    assert {name for names in handled for name in names} == {"a", "b"}


async def test_what_really_came_is_explained_by_transaction(stack: Stack) -> None:
    stack.settings["admin"]["recent_rows"] = 3
    program = await stack.start()
    await stack.sql("INSERT INTO item VALUES (1, 'a')")
    await stack.sql("UPDATE item SET name = 'b'; DELETE FROM item")
    await stack.sql("CREATE TABLE another (id int)")
    await stack.confirmed_everything()
    watched = Watched(program)
    seen = (await watched.status())["source"]["transactions"]
    async with asyncio.timeout(DEADLINE_SECONDS):  # heartbeats push nothing out
        while (await watched.status())["source"]["transactions"] < seen + 4:  # noqa: ASYNC110  (another process)
            await asyncio.sleep(0.05)

    last = await invalidator(stack, "explain", "--live", "last")
    both = json.loads((await invalidator(stack, "explain", "--live", "last=2", "--json")).stdout)["transactions"]
    named = await invalidator(stack, "explain", "--live", both[1]["lsn"])
    unknown = await invalidator(stack, "explain", "--live", "FFFF/0")

    lines = [line.strip() for line in last.stdout.splitlines()]
    assert lines[0].startswith(f"transaction {both[0]['lsn']}  xid {both[0]['xid']}  committed ")
    assert [line for line in lines if line.startswith(("UPDATE", "DELETE", "INSERT"))] == [
        'UPDATE public.item  id = "1"',
        'DELETE public.item  id = "1"',
    ]
    assert any(line.split() == ["keys", "item:1", "unlink"] for line in lines)
    assert "INSERT public.item" in named.stdout
    assert "UPDATE" not in named.stdout
    assert (unknown.return_value, last.return_value, named.return_value) == (1, 0, 0)
    assert "no such transaction among the last" in unknown.stdout


async def test_what_an_application_named_itself_is_shown_too(stack: Stack) -> None:
    stack.source["messages"] = {"enabled": True, "allow": {"keys": ["cms:"]}}
    await stack.start()
    await stack.sql("""SELECT pg_logical_emit_message(true, 'invalidator', '{"keys": ["cms:1", "item:1"]}')""")
    await stack.confirmed_everything()

    last = await invalidator(stack, "explain", "--live", "last")

    lines = [line.split() for line in last.stdout.splitlines()]
    assert ["keys", "cms:1", "unlink"] in lines
    assert ["refused", "not_allowed:", "1"] in lines
    assert "source.messages.allow.keys" in last.stdout


async def test_messages_are_counted_while_they_are_disabled_and_that_is_told_once(stack: Stack) -> None:
    program = await stack.start()
    watched = Watched(program)
    emit = """SELECT pg_logical_emit_message(true, 'invalidator', '{"keys": ["item:1"]}')"""
    stack.fill("item:1")

    await stack.sql(emit)
    event = await program.event("messages.refused")
    await stack.sql(emit)
    await watched.until_value(2, "invalidator_messages_total", result="disabled")

    assert (event["reason"], event["newest"]) == ("disabled", "source.messages.enabled is false")
    assert stack.client.exists("item:1")


async def test_without_a_daemon_or_a_socket_that_is_said(stack: Stack) -> None:
    stack.write()
    nobody = await invalidator(stack, "reload")
    stack.settings["admin"] = {}
    stack.write()
    nowhere = await invalidator(stack, "reload")

    assert "no daemon answers at" in str(nobody.exception)
    assert "admin: {socket:" in str(nowhere.exception)


async def test_two_daemons_do_not_share_a_socket(stack: Stack) -> None:
    await stack.start()
    second: Program = stack.run()

    assert await asyncio.to_thread(second.wait) == 78
    assert "another process serves" in second.output
