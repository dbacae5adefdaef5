"""An outbox in a test's database, and a source that reads it in the background."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from invalidator.config.needs import needs
from invalidator.errors import SourceDisconnected
from invalidator.model import Batch, Gap, Lsn, StreamStart
from invalidator.postgres import provision
from invalidator.postgres.connection import connect
from invalidator.postgres.provision import OutboxRequest, Plan
from invalidator.rules import document
from invalidator.rules.engine import Engine
from invalidator.rules.rule import RuleSet
from invalidator.sources.outbox import OutboxSource, Settings
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.postgres import Database

DEADLINE_SECONDS = 15


def rule(table: str, *keys: str, **more: Any) -> dict[str, Any]:
    """A rule that names keys."""
    return {"name": table, "table": f"public.{table}", "invalidate": {"keys": list(keys)}, **more}


def ruleset_of(rules: Sequence[Mapping[str, Any]]) -> RuleSet:
    """The rules as the loader reads them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rules.yaml")
        file.write_text(json.dumps({"version": 1, "rules": list(rules)}))
        return document.load([file])


def engine_of(rules: Sequence[Mapping[str, Any]], state: State) -> Engine:
    """The rules, ready to be bound."""
    return Engine(ruleset_of(rules), states=state.rules, tables=state.tables)


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


class Reading:
    """A source that reads in the background into a list of batches, and confirms them when it may."""

    def __init__(self, dsn: str, rules: Sequence[Mapping[str, Any]], **options: Any) -> None:
        self.state = State()
        self.source = OutboxSource(Settings(type="outbox", dsn=dsn, **options), Events(self.state))
        self.engine = engine_of(rules, self.state)
        self.batches: list[Batch] = []
        self.starts: list[StreamStart] = []
        self.may_confirm = True
        self._grown = asyncio.Event()
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            async for batch in self.source.batches(self.engine):
                if batch.start is not None:
                    self.starts.append(batch.start)
                else:
                    self.batches.append(batch)
                if batch.end is not None and self.may_confirm:
                    self.source.confirm(batch.end)
                self._grown.set()
        finally:
            self._grown.set()

    @property
    def keys(self) -> set[bytes]:
        """All keys, exact or as patterns, of all batches so far."""
        return set().union(*(b.invalidation.keys | b.invalidation.key_patterns for b in self.batches))

    @property
    def end(self) -> Lsn:
        """The newest position that was handed over."""
        return max((batch.end for batch in self.batches if batch.end is not None), default=Lsn(0))

    async def until(self, *keys: str) -> None:
        """Return when all of them were named."""
        wanted = {key.encode() for key in keys}
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not wanted <= self.keys:
                if self.task.done():
                    self.task.result()
                self._grown.clear()
                await self._grown.wait()

    async def gap(self, number: int = 1) -> Gap:
        """The gap that the source itself has found, or the next one of them."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(found := [start.gap for start in self.starts if start.gap is not None]) < number:
                if self.task.done():
                    self.task.result()
                self._grown.clear()
                await self._grown.wait()
        return found[number - 1]

    def forget(self) -> None:
        """Start the list anew."""
        self.batches.clear()


@contextlib.asynccontextmanager
async def reading(dsn: str, rules: Sequence[Mapping[str, Any]], **options: Any) -> AsyncIterator[Reading]:
    """A reading source, closed at the end."""
    reader = Reading(dsn, rules, **options)
    try:
        yield reader
    finally:
        reader.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SourceDisconnected):
            await reader.task
        await reader.source.close()


async def emptied(database: Database) -> None:
    """Return when the outbox holds no change."""
    statement = "SELECT count(*) FROM invalidator.outbox WHERE operation <> 'H'"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (await asyncio.to_thread(database.execute, statement))[0][0]:
        assert time.monotonic() < deadline, "the outbox is never emptied"
