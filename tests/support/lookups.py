"""Rules with lookups over a real stream: what would be delivered, in the order of the batches."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from invalidator.batching import coalesce
from invalidator.continuity import Continuity, Settings
from invalidator.credentials import Secret
from invalidator.model import Batch, Invalidation
from invalidator.net.clock import SystemClock
from invalidator.pipeline import Pipeline
from invalidator.postgres import lookups
from invalidator.postgres.lookups import Lookups
from invalidator.rules import document
from invalidator.rules.engine import Engine
from invalidator.sources import pgoutput
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.processes import DEADLINE_SECONDS

MARKER_RULE = """
  - name: marker
    table: public.marker
    events: [insert]
    invalidate: {keys: ["marker:{id}"]}
"""


class Delivered:
    """Stands where the targets are: keeps what it is given and finishes it at once."""

    def __init__(self) -> None:
        self.everything = Invalidation()
        self.grown = asyncio.Event()
        self.is_open = asyncio.Event()
        """Otherwise the batch that came last with a name is in hand, and the next one grows meanwhile."""
        self.is_open.set()

    def greet(self) -> None:
        pass

    async def deliver(self, batch: Batch, on_finished: Callable[[], None]) -> None:
        assert not batch.invalidation.lookups
        assert not batch.invalidation.lookup_transactions
        coalesce.add(self.everything, batch.invalidation)
        self.grown.set()
        if batch.invalidation:  # an empty one, a heartbeat for one, may come at any moment
            await self.is_open.wait()
        on_finished()


class LookupStream:
    """A pipeline from a database to ``Delivered``.

    Args:
        dsn: of the database; it gets a table ``marker``.
        folder: where the rules are written.
        slot: its name, and that of the publication.
    """

    def __init__(self, dsn: str, folder: Path, slot: str) -> None:
        self.dsn = dsn
        self.delivered = Delivered()
        self.state = State()
        self.lookups: Lookups | None = None
        self._slot = slot
        self._file = folder / "rules.yaml"
        self._numbers = itertools.count(1)
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def connection(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        """The connection of ``sql``."""
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        return self._connection

    async def sql(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Run a statement in autocommit."""
        cursor = await (await self.connection()).execute(statement, parameters or None)
        return await cursor.fetchall() if cursor.description else []

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    @contextlib.asynccontextmanager
    async def streaming(
        self, rules: str, tables: str, *, dsn: str = "", timeout_seconds: float = 10, connections: int = 2
    ) -> AsyncIterator[LookupStream]:
        """Make publication and slot, and stream until the end of the block."""
        self._file.write_text("version: 1\nrules:\n" + rules + MARKER_RULE)
        await self.sql("CREATE TABLE marker (id int PRIMARY KEY)")
        await self.sql(f"CREATE PUBLICATION {self._slot} FOR TABLE marker, {tables}")
        await self.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", self._slot)
        events = Events(self.state)
        engine = Engine(document.load([self._file]), states=self.state.rules, tables=self.state.tables)
        options = pgoutput.Settings(
            type="pgoutput",
            dsn=Secret(self.dsn),
            slot=self._slot,
            publication=self._slot,
            status_seconds=0.1,
        )
        source = pgoutput.build(options, events)
        settings = lookups.Settings(dsn=Secret(dsn), timeout_seconds=timeout_seconds, connections=connections)
        self.lookups = Lookups(settings, dsn=self.dsn, events=events)
        pipeline = Pipeline(
            source,
            engine,
            self.delivered,  # type: ignore[arg-type]  # the methods that the loop calls
            events=events,
            clock=SystemClock(),
            continuity=Continuity([], slot=self._slot, settings=Settings(), events=events, clock=SystemClock()),
            lookups=self.lookups,
        )
        self._task = task = asyncio.ensure_future(pipeline.run())
        task.add_done_callback(lambda _: self.delivered.grown.set())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await source.close()
            await self.lookups.close()

    async def names(self, *statements: str) -> Invalidation:
        """What the statements, each its own transaction, make stale."""
        for statement in statements:
            await self.sql(statement)
        return await self.everything_until_now()

    async def everything_until_now(self) -> Invalidation:
        """What was delivered since the last call."""
        number = next(self._numbers)
        await self.sql("INSERT INTO marker VALUES (%s)", number)
        key = b"marker:%d" % number
        await self.until(lambda: key in self.delivered.everything.keys, f"{key!r} is delivered")
        made, self.delivered.everything = self.delivered.everything, Invalidation()
        made.keys.discard(key)
        return made

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Return when the condition holds after something was delivered; fail after a while."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not condition():
                    if self._task is not None and self._task.done():
                        self._task.result()
                    self.delivered.grown.clear()
                    await self.delivered.grown.wait()
        except TimeoutError:
            pytest.fail(f"not within {DEADLINE_SECONDS} s: {what}; it has {self.delivered.everything}")
