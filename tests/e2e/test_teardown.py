"""All that the product left goes, and nothing that is not proved to be its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from invalidator.cli import verbs
from tests.support.daemon import Stack
from tests.support.outbox import setup
from tests.support.processes import Program

PURGED = {"keys": ["item:{id}"], "cdn": ["item-{id}"]}


@pytest.fixture
def left(stack: Stack) -> Stack:
    stack.rules = [{"name": "item", "table": "public.item", "invalidate": PURGED, "coarse": {"cdn": ["items"]}}]
    stack.targets["edge"] = {"type": "varnish", "url": "http://127.0.0.1:9", "required": False}
    stack.settings["state"] = {"path": str(stack.folder / "state.db")}
    stack.source["publication"] = stack.database.name
    return stack


async def invoke(stack: Stack, *arguments: str) -> Result:
    call = [*arguments, "--settings", str(stack.folder / "invalidator.yaml")]
    return await asyncio.to_thread(CliRunner().invoke, verbs, call, standalone_mode=False)


async def names(stack: Stack) -> dict[str, Any]:
    """What there is of ours."""
    catalog = await stack.sql(
        "SELECT (SELECT count(*) FROM pg_publication WHERE pubname = %s),"
        " (SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s)",
        stack.database.name,
        stack.database.name,
    )
    records = [stack.client.exists(f"invalidator:{stack.database.name}{end}") for end in ("", ":catalog")]
    return {
        "publication": catalog[0][0],
        "slot": catalog[0][1],
        "records": records,
        "file": len([*stack.folder.glob("state.db*")]),
    }


async def stopped(stack: Stack, program: Program) -> None:
    """Stop the daemon; return when the server has noticed it too."""
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0
    held = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active"
    await stack.until(lambda: not stack.database.execute(held, stack.database.name), "the slot is free")


EVERYTHING = {"publication": 1, "slot": 1, "records": [1, 1], "file": 1}
NOTHING = {"publication": 0, "slot": 0, "records": [0, 0], "file": 0}


async def test_what_a_daemon_left_goes_when_it_does_not_run_any_more(left: Stack) -> None:
    program = await left.start()
    await left.sql("INSERT INTO item VALUES (1)")
    await left.recorded_everything()
    catalog = f"invalidator:{left.database.name}:catalog"
    await left.until(lambda: left.client.exists(catalog), "the catalog is recorded")
    left.client.set("invalidator:another", "kept")

    running = await invoke(left, "teardown", "--apply")
    assert running.return_value == 1
    assert f"slot '{left.database.name}' is in use by server process" in running.stdout
    assert f"(invalidator/{left.database.name} as" in running.stdout
    assert "records beside caches and the state file stay while a daemon runs" in running.stdout
    assert (await names(left)) | {"file": 1} == EVERYTHING

    await stopped(left, program)
    dry = await invoke(left, "teardown")
    assert dry.return_value == 0
    assert await names(left) == EVERYTHING
    for part in (
        f"SELECT pg_drop_replication_slot('{left.database.name}');",
        f'DROP PUBLICATION "{left.database.name}";',
        f"-- would go too: record '{left.database.name}' in target 'redis': what was applied last",
        f"-- would go too: state file {left.folder / 'state.db'} (state.db): purges that wait in it are lost",
        "or: teardown --apply",
    ):
        assert part in dry.stdout

    done = await invoke(left, "teardown", "--apply", "--json")
    assert done.return_value == 0, done.stdout
    assert await names(left) == NOTHING
    assert all(each["taken"] for each in json.loads(done.stdout)["leftovers"])
    assert left.client.get("invalidator:another") == b"kept"
    assert "nothing is left" not in dry.stdout
    again = await invoke(left, "teardown", "--apply")
    assert (again.return_value, "nothing is left to take away" in again.stdout) == (0, True)


async def test_what_is_not_proved_to_be_ours_stays(left: Stack) -> None:
    left.write()
    name = left.database.name
    await left.sql(f"CREATE PUBLICATION {name} FOR TABLE item")
    await left.sql(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    (left.folder / "state.db").write_text("somebody's notes")
    left.client.set(f"invalidator:{name}", json.dumps({"format": 1, "slot": name, "system": "1", "timeline": 1}))

    stays = await invoke(left, "teardown", "--apply")

    assert stays.return_value == 1
    assert (await names(left)) == {"publication": 1, "slot": 1, "records": [1, 0], "file": 1}
    for part in (
        f"slot '{name}' stays: nothing shows that it is ours",
        f"publication '{name}' stays: its comment does not say that setup made it",
        f"record '{name}' in target 'redis' stays: it is not about this slot of this cluster",
        "state.db: cannot be read: file is not a database",
    ):
        assert part in stays.stdout


async def test_a_record_beside_a_cache_proves_the_slot_of_a_publication_that_was_made_by_hand(left: Stack) -> None:
    name = left.database.name
    await left.sql(f"CREATE PUBLICATION {name} FOR TABLE item")
    program = await left.start()
    await left.recorded_everything()
    await stopped(left, program)

    stays = await invoke(left, "teardown", "--apply")

    assert stays.return_value == 1
    assert f"publication '{name}' stays" in stays.stdout
    assert (await names(left)) == NOTHING | {"publication": 1}


async def test_what_a_daemon_left_beside_an_outbox_goes_too(left: Stack) -> None:
    left.source = {"type": "outbox", "heartbeat_seconds": 0.5}
    await setup(left.database.dsn, left.rules)
    program = await left.start()
    await left.until(lambda: left.client.exists("invalidator:outbox", "invalidator:outbox:catalog") == 2, "records")
    await stopped(left, program)

    done = await invoke(left, "teardown", "--apply")

    assert done.return_value == 0, done.stdout
    assert left.client.exists("invalidator:outbox", "invalidator:outbox:catalog") == 0
    assert await left.sql("SELECT to_regnamespace('invalidator')") == [(None,)]
