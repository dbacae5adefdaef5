"""What a real daemon shows to those who watch it: probes, metrics, problems and log."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit

from invalidator.demo.servers import KeyValueServer
from tests.support.daemon import Stack
from tests.support.hurried import FAILING_SECONDS
from tests.support.processes import DEADLINE_SECONDS
from tests.support.tools import find_tool
from tests.support.watched import Watched


async def test_the_metrics_of_a_daemon_at_work_are_true_and_promtool_has_nothing_to_say(stack: Stack) -> None:
    promtool = find_tool("promtool", "prometheus")
    watched = Watched(await stack.start())
    await watched.text("/readyz")
    stack.fill("item:1")
    await stack.sql("INSERT INTO item VALUES (1, 'a'), (2, 'b')")
    await stack.gone("item:1")
    await stack.confirmed_everything()

    text = await watched.text("/metrics")
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert await watched.value("invalidator_events_total", table="public.item", op="insert") == 2
    assert await watched.value("invalidator_rule_matches_total", rule="item", op="insert") == 2
    assert await watched.value("invalidator_delivered_items_total", target="redis", kind="key") == 2
    assert await watched.value("invalidator_removed_items_total", target="redis") == 1
    assert await watched.value("invalidator_role", role="streaming") == 1
    await watched.until_value(0, "invalidator_staleness_seconds")
    assert abs(await watched.value("invalidator_clock_offset_seconds")) < 5
    assert time.time() - await watched.value("invalidator_heartbeat_last_delivered_timestamp_seconds") < 30
    await watched.until_value(1, "invalidator_slot_wal_status", status="reserved")
    # A commit takes longer than nothing and is measured on the server's clock, which is known better from beat to beat.
    name, insert = "invalidator_invalidation_duration_seconds_sum", "INSERT INTO item SELECT max(id) + 1 FROM item"
    while not 0 < await watched.value(name, target="redis") < 60:
        await stack.sql(insert)


async def test_a_standby_is_ready_and_says_that_it_stands_by(stack: Stack) -> None:
    await stack.start()
    second = stack.run()
    await second.event("stream.standby")
    watched = Watched(second)

    assert await watched.text("/readyz") == "ready\n"
    answer = await watched.status()
    assert answer["role"] == "standby"
    assert "standby" in [problem["code"] for problem in answer["problems"]]
    assert {problem["severity"] for problem in answer["problems"]} == {"info"}
    assert answer["targets"]["redis"]["delivered"]["key"] == 0
    assert await watched.value("invalidator_stream_connected") == 0


async def test_a_hung_redis_is_a_problem_with_a_fix_while_it_hangs(stack: Stack, own_redis: KeyValueServer) -> None:
    stack.targets = {
        "redis": {
            "type": "redis_keys", "url": own_redis.url, "timeout_seconds": 0.5, "retry": {"max_delay_seconds": 0.2},
        }
    }  # fmt: skip
    program = await stack.start(module="tests.support.hurried")
    watched = Watched(program)

    def raised() -> list[dict[str, Any]]:
        return [each for each in program.events("problem.raised") if each["code"] == "target-failing"]

    def cleared() -> list[dict[str, Any]]:
        return [each for each in program.events("problem.cleared") if each["code"] == "target-failing"]

    def failed() -> list[dict[str, Any]]:
        return [each for each in program.events("delivery.failed") if each["result"] == "timeout"]

    await watched.text("/readyz")
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        await stack.sql("INSERT INTO item VALUES (1, 'a')")
        # Of the record beside it the same is said, a moment earlier or later.
        await watched.until_value(1, "invalidator_problems", code="target-failing")
        await watched.until_above(FAILING_SECONDS, "invalidator_staleness_seconds")
        answer = await watched.status()
        assert answer["ready"] is True  # a restart would not mend Redis
        (problem,) = [each for each in answer["problems"] if each["code"] == "target-failing"]
        assert problem["subject"] == "redis"
        assert problem["fix"]
        assert answer["source"]["staleness_s"] > FAILING_SECONDS
        await asyncio.to_thread(program.wait_for, lambda: bool(raised()), what="problem.raised")
        # The same failure is written once in ten seconds; it comes again after 0.7 s at most.
        timeouts = "invalidator_deliveries_total"
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await watched.value(timeouts, target="redis", result="timeout") <= len(failed()):
                pass
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    await watched.until_problems()
    await watched.until_value(0, "invalidator_staleness_seconds")
    assert [each["subject"] for each in raised()] == ["redis"]
    await asyncio.to_thread(program.wait_for, lambda: len(cleared()) == 1, what="problem.cleared")
    assert cleared()[0]["subject"] == "redis"


async def test_the_log_begins_and_ends_with_the_daemon_and_holds_no_secret(stack: Stack) -> None:
    of_redis, of_postgres = "shop-7f3a91", urlsplit(stack.database.dsn).password or "shop-7f3a91"
    away = f"redis://shop:{of_redis}@127.0.0.1:1/0"
    stack.targets["spare"] = {"type": "redis_keys", "url": away, "required": False}
    program = await stack.start()
    await stack.sql("INSERT INTO item VALUES (1, 'a')")
    failed = await program.event("delivery.failed")
    assert failed["target"] == "spare"
    await stack.sql("INSERT INTO item VALUES (2, 'b')")  # waits behind what is in hand there, and is given up
    await stack.confirmed_everything()
    watched = Watched(program)
    told = [await watched.text(path) for path in ("/metrics", "/status")]
    program.terminate()
    assert await asyncio.to_thread(program.wait) == 0

    events = [event["event"] for event in program.events()]
    assert (events[0], events[-1]) == ("daemon.started", "daemon.stopped")
    assert events.count("daemon.stopping") == 1
    assert "delivery.abandoned" in events
    assert all(list(event)[:3] == ["ts", "level", "event"] for event in program.events())
    assert "Traceback" not in program.output
    assert not any(secret in text for secret in (of_redis, of_postgres) for text in (program.output, *told))
