"""An outbox in a test's database, and a source that reads it in the background."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from invalidator.postgres import provision
from invalidator.postgres.catalog.outbox import SLEEP_KEY
from invalidator.postgres.connection import connect
from invalidator.postgres.provision import OutboxRequest, Plan
from invalidator.preflight.needs import needs
from invalidator.sources.outbox import OutboxSource, Settings
from tests.support.postgres import Database
from tests.support.processes import DEADLINE_SECONDS
from tests.support.reading import Reading, read, ruleset_of


def array(*lines: Sequence[str | None]) -> bytes:
    """What ``array_send`` makes of a ``text[]`` of one or more lines."""
    dimensions = [len(lines), len(lines[0])]
    head = struct.pack(">iiI", 2, 1, 25) + b"".join(struct.pack(">ii", size, 1) for size in dimensions)
    texts = (None if text is None else text.encode() for line in lines for text in line)
    return head + b"".join(
        struct.pack(">i", -1) if text is None else struct.pack(">i", len(text)) + text for text in texts
    )


async def setup(
    dsn: str, rules: Sequence[Mapping[str, Any]], *, remove: bool = False, apply: bool = True, **options: Any
) -> Plan:
    """Run ``setup --apply`` for these rules; the plan that is left afterwards."""
    wanted = needs(ruleset_of(rules).rules)
    request = OutboxRequest(**{"role": None, **options})
    async with await connect(dsn, application_name="test") as connection:

        async def plan() -> Plan:
            facts = await provision.outbox_facts(connection, wanted, request)
            return provision.outbox_removal(facts) if remove else provision.outbox_plan(wanted, facts, request)

        if apply:
            await provision.apply(connection, await plan())
        return await plan()


def reading(
    dsn: str, rules: Sequence[Mapping[str, Any]], **options: Any
) -> contextlib.AbstractAsyncContextManager[Reading]:
    """An outbox, read in the background; closed at the end."""
    settings = Settings(type="outbox", dsn=dsn, **options)
    return read(lambda events: OutboxSource(settings, events), rules)


async def emptied(database: Database) -> None:
    """Return when the outbox holds no change."""
    statement = "SELECT count(*) FROM invalidator.outbox WHERE operation <> 'H'"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (await asyncio.to_thread(database.execute, statement))[0][0]:
        assert time.monotonic() < deadline, "the outbox is never emptied"


def is_asleep(database: Database) -> bool:
    """Whether the daemon waits to be woken by writers."""
    statement = """
        SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                        WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted
                          AND l.mode = 'ExclusiveLock' AND (l.classid::bigint << 32) | l.objid::bigint = %s)
    """
    return bool(database.execute(statement, SLEEP_KEY)[0][0])


async def asleep(database: Database) -> None:
    """Return when it does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await asyncio.to_thread(is_asleep, database):
        assert time.monotonic() < deadline, "the daemon never falls asleep"
