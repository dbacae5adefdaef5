"""A source that listens, and an application that notifies."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from invalidator.postgres import provision
from invalidator.postgres.connection import connect
from invalidator.postgres.provision import OutboxRequest, Plan
from invalidator.preflight.needs import needs
from invalidator.sources.notify import NotifySource, Settings
from tests.support.postgres import Database
from tests.support.reading import Reading, read, ruleset_of

CHANNEL = "cache_changes"


def listening(
    dsn: str, rules: Sequence[Mapping[str, Any]], **options: Any
) -> contextlib.AbstractAsyncContextManager[Reading]:
    """A listener, read in the background; closed at the end."""
    settings = Settings(type="notify", dsn=dsn, **{"channels": [CHANNEL], **options})
    return read(lambda events: NotifySource(settings, events), rules)


async def notify(database: Database, payload: object = None, **fields: object) -> None:
    """Send a payload as it is, or JSON of these fields."""
    text = payload if isinstance(payload, str) else json.dumps(fields)
    await asyncio.to_thread(database.execute, "SELECT pg_notify(%s, %s)", CHANNEL, text)


async def triggers(dsn: str, rules: Sequence[Mapping[str, Any]]) -> Plan:
    """Run the triggers that ``setup`` recommends; the plan."""
    wanted = needs(ruleset_of(rules).rules)
    async with await connect(dsn, application_name="test") as connection:
        facts = await provision.outbox_facts(connection, wanted, OutboxRequest(None))
        plan = provision.notify_plan(wanted, facts, None, CHANNEL)
        for step in plan.steps:
            for statement in step.statements:
                await connection.execute(statement)
    return plan
