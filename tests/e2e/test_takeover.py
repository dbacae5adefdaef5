"""Two daemons at one slot: one works, the other stands by, and whatever happens to the first does no harm."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from invalidator.model import Lsn
from tests.support.daemon import Stack
from tests.support.processes import DEADLINE_SECONDS, Program
from tests.support.proxy import Fault, FaultProxy
from tests.support.watched import Watched


async def end_walsender(stack: Stack) -> None:
    """What ``wal_sender_timeout`` does to a daemon that is not heard any more, ten seconds earlier."""
    await stack.sql(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", stack.database.name
    )


async def until_role(program: Program, role: str) -> None:
    await Watched(program).until_value(1, "invalidator_role", role=role)


async def positions(stack: Stack) -> tuple[Lsn, Lsn]:
    """What the slot has confirmed, and what the record beside the cache says."""
    await stack.confirmed_everything()
    await stack.recorded_everything()
    rows = await stack.sql(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", stack.database.name
    )
    return Lsn.parse(rows[0][0]), Lsn.parse(json.loads(stack.record())["applied"])


async def two_daemons(stack: Stack, proxy: FaultProxy) -> tuple[Program, Program]:
    """One that streams, with the proxy before its Redis, and one that stands by; a row is written and confirmed."""
    direct = stack.targets["redis"]["url"]
    stack.targets["redis"]["url"] = proxy.through(direct)
    first = await stack.start()
    stack.targets["redis"]["url"] = direct
    second = stack.run()
    await second.event("stream.standby")
    await stack.sql("INSERT INTO item VALUES (1, 'a')")
    await stack.confirmed_everything()
    return first, second


async def test_a_standby_says_what_it_is_and_takes_over_from_one_that_was_killed(stack: Stack) -> None:
    first = await stack.start()
    second = stack.run()
    holder = (await second.event("stream.standby"))["holder_pid"]
    watched = Watched(second)

    assert await watched.value("invalidator_role", role="standby") == 1
    assert await watched.value("invalidator_role", role="streaming") == 0
    assert await watched.value("invalidator_stream_connected") == 0
    assert "[+] stream: standby" in await watched.text("/readyz?verbose")
    status = await watched.status()
    assert (status["role"], status["ready"]) == ("standby", True)
    problem = status["problems"][-1]
    assert problem["code"] == "standby"
    who = await stack.sql(problem["fix"].partition('-c "')[2].rpartition('"')[0])
    assert [(row[0], row[2]) for row in who] == [(holder, f"invalidator/{stack.database.name}")]
    first.kill()
    stack.fill("item:1")
    await stack.sql("INSERT INTO item VALUES (1)")

    await stack.gone("item:1")
    await watched.until_value(1, "invalidator_role", role="streaming")
    assert (await watched.status())["role"] == "streaming"


async def test_a_daemon_that_was_cut_off_with_work_in_its_hands_comes_back_and_does_no_harm(
    stack: Stack, proxy_to: Callable[[str], Any]
) -> None:
    proxy: FaultProxy = await proxy_to(stack.url)
    first, second = await two_daemons(stack, proxy)
    # The first reads a change, cannot apply it, and is frozen with it in its hands.
    proxy.fault = Fault.BLACK_HOLE
    stack.fill("item:1", "item:2")
    await stack.sql("UPDATE item SET name = 'b'")
    watched = Watched(first)
    await watched.until_value(1, "invalidator_events_total", table="public.item", op="update")
    os.kill(first.pid, signal.SIGSTOP)

    await end_walsender(stack)

    await second.event("stream.connected")
    await stack.gone("item:1")
    await stack.sql("INSERT INTO item VALUES (2, 'b')")
    await stack.gone("item:2")
    before = await positions(stack)
    proxy.fault = Fault.NONE
    os.kill(first.pid, signal.SIGCONT)

    await until_role(first, "standby")
    await until_role(second, "streaming")
    # Another change, and both positions are where the second has put them.
    stack.fill("item:3")
    await stack.sql("INSERT INTO item VALUES (3, 'c')")
    await stack.gone("item:3")
    after = await positions(stack)
    assert all(later > earlier for earlier, later in zip(before, after, strict=True))
    for program in (first, second):
        assert not program.events("gap.found")
        assert not program.events("daemon.failed")
    assert len(second.events("stream.connected")) == 1, "the first has disturbed the second"

    second.kill()
    stack.fill("item:4")
    await stack.sql("INSERT INTO item VALUES (4, 'd')")
    await stack.gone("item:4")
    await until_role(first, "streaming")
    assert not first.events("gap.found")


async def test_two_daemons_that_are_cut_off_in_turn_lose_nothing(stack: Stack) -> None:
    """Each time the one that works is frozen, written past, and let go while the other one works."""
    programs = [await stack.start(), stack.run()]
    await programs[1].event("stream.standby")
    number = 0
    for _ in range(3):
        frozen, other = await roles(programs)
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                number += 1
                stack.fill(f"item:{number}")
                await stack.sql("INSERT INTO item VALUES (%s)", number)
            await end_walsender(stack)
            await until_role(other, "streaming")
            await stack.gone(*(f"item:{each}" for each in range(1, number + 1)))
        finally:
            os.kill(frozen.pid, signal.SIGCONT)

    await stack.confirmed_everything()
    await roles(programs)
    assert not any(program.events("gap.found") for program in programs)


async def roles(programs: list[Program]) -> tuple[Program, Program]:
    """The one that streams and the one that stands by, once it is so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    found: dict[str, Program] = {}
    while time.monotonic() < deadline:
        found = {(await Watched(program).status())["role"]: program for program in programs}
        if found.keys() == {"streaming", "standby"}:
            return found["streaming"], found["standby"]
    pytest.fail(f"nobody streams, or nobody stands by: {found}")
