"""What somebody changes underneath a running daemon is found, told, and taken back when it is mended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.daemon import Stack
from tests.support.processes import Program
from tests.support.watched import Watched


def told(program: Program, event: str, subject: str) -> list[dict[str, Any]]:
    return [each for each in program.events(event) if each["subject"] == subject]


@pytest.fixture(autouse=True)
def _looks_often(stack: Stack) -> None:
    stack.settings["preflight"] = {"interval_seconds": 0.3}


async def test_a_table_that_is_taken_out_of_the_publication_is_found_and_cleared_when_it_is_back(stack: Stack) -> None:
    program = await stack.start()
    watched = Watched(program)
    assert await watched.problem("public.item (not-published)") is None

    await stack.sql("ALTER PUBLICATION invalidator DROP TABLE item")

    problem = await watched.until("public.item (not-published)", is_there=True)
    assert problem["severity"] == "critical"
    assert 'ADD TABLE "public"."item"' in problem["fix"]
    await watched.until_value(1, "invalidator_findings", finding="not-published")
    program.wait_for(lambda: bool(told(program, "problem.raised", "public.item (not-published)")), what="the log")

    await stack.sql(problem["fix"])

    await watched.until("public.item (not-published)", is_there=False)
    await watched.until_value(0, "invalidator_findings", finding="not-published")
    program.wait_for(lambda: bool(told(program, "problem.cleared", "public.item (not-published)")), what="the log")
    stack.fill("item:7")
    await stack.sql("INSERT INTO item VALUES (7)")
    await stack.gone("item:7")
    assert not program.events("stream.lost")


async def test_a_partition_that_comes_later_without_identity_or_unpublished_is_found(stack: Stack) -> None:
    await stack.sql("CREATE TABLE log (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day)")
    await stack.sql("CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1)")
    await stack.sql("CREATE PUBLICATION invalidator FOR TABLE item, log_1")
    await stack.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", stack.database.name)
    stack.source["create"] = False
    stack.rules = [{"name": "log", "table": "public.log", "invalidate": {"keys": ["log:{id}"]}}]
    program = await stack.start()
    watched = Watched(program)

    await stack.sql("CREATE TABLE log_2 PARTITION OF log FOR VALUES IN (2)")

    problem = await watched.until("public.log (not-published)", is_there=True)
    assert "public.log_2" in problem["text"]
    await stack.sql("ALTER PUBLICATION invalidator ADD TABLE log")
    await watched.until("public.log (not-published)", is_there=False)
    await stack.sql("ALTER TABLE log_2 REPLICA IDENTITY NOTHING")
    problem = await watched.until("public.log (no-identity)", is_there=True)
    assert "public.log_2" in problem["text"]
    await stack.sql("ALTER TABLE log_2 REPLICA IDENTITY DEFAULT")
    await watched.until("public.log (no-identity)", is_there=False)


async def test_what_makes_the_applications_writes_fail_is_told_and_its_fix_mends_it(stack: Stack) -> None:
    await stack.sql("CREATE TABLE doc (id int PRIMARY KEY, note text)")
    await stack.sql("CREATE TABLE loose (note text)")
    await stack.sql("CREATE PUBLICATION invalidator FOR TABLE item, doc (id)")
    await stack.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", stack.database.name)
    stack.source["create"] = False
    stack.rules = [{"name": "doc", "table": "public.doc", "invalidate": {"keys": ["doc:{id}"]}}]
    watched = Watched(await stack.start())

    await stack.sql("ALTER TABLE doc REPLICA IDENTITY FULL")
    await stack.sql("ALTER PUBLICATION invalidator ADD TABLE loose")

    listed = await watched.until("public.doc invalidator (identity-not-covered)", is_there=True)
    assert listed["severity"] == "critical"
    bare = await watched.until("public.loose (no-identity)", is_there=True)
    for problem in (listed, bare):
        for statement in problem["fix"].split(";"):
            if statement.strip() not in {"", "BEGIN", "COMMIT"}:
                await stack.sql(statement)
    await watched.until("public.doc invalidator (identity-not-covered)", is_there=False)
    await watched.until("public.loose (no-identity)", is_there=False)
    await stack.sql("INSERT INTO doc VALUES (1, 'a'); UPDATE doc SET note = 'b'; DELETE FROM loose")


async def test_a_question_that_fails_does_not_end_the_stream(stack: Stack) -> None:
    stack.rules = [
        {
            "name": "item",
            "table": "public.item",
            "lookup": {"other": {"sql": "SELECT name FROM item WHERE id = {id}"}},
            "invalidate": {"keys": ["item:{other.name}"], "tags": ["item:{id}"]},
        }
    ]
    stack.settings["lookups"] = {"dsn": "postgresql://127.0.0.1:1/nowhere"}
    program = await stack.start()

    await program.event("preflight.failed")

    stack.client.sadd("tag:item:7", "page:7")
    stack.fill("page:7")
    await stack.sql("INSERT INTO item VALUES (7, 'a')")
    await stack.gone("page:7")
    assert not program.events("stream.lost")


async def test_a_target_that_would_refuse_is_found_at_the_start(stack: Stack) -> None:
    narrow = ("SETUSER", "narrow", "on", ">pw", "~*", "+ping", "+client", "+role")
    stack.client.execute_command("ACL", *narrow)  # type: ignore[no-untyped-call]
    try:
        url = stack.url.replace("://", "://narrow:pw@")
        stack.targets["weak"] = {"type": "redis_keys", "url": url, "required": False}
        program = await stack.start()
        problem = await Watched(program).until("weak (target-rejected)", is_there=True)
        assert "targets.weak" in problem["fix"]
    finally:
        stack.client.execute_command("ACL", "DELUSER", "narrow")  # type: ignore[no-untyped-call]
