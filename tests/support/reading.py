"""A source that is read in the background, with the rules of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from invalidator.errors import SlotInUse, SourceDisconnected
from invalidator.model import Batch, Gap, Lsn, StreamStart
from invalidator.ports import Source
from invalidator.rules import document
from invalidator.rules.engine import Engine
from invalidator.rules.rule import RuleSet
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.processes import DEADLINE_SECONDS


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


class Reading:
    """A source that reads in the background into a list of batches, and confirms them when it may."""

    def __init__(self, build: Callable[[Events], Source], rules: Sequence[Mapping[str, Any]]) -> None:
        self.state = State()
        self.source = build(Events(self.state))
        self.engine = engine_of(rules, self.state)
        self.batches: list[Batch] = []
        self.starts: list[StreamStart] = []
        self.may_confirm = True
        self._is_going = asyncio.Event()
        self._is_going.set()
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
                await self._is_going.wait()
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
        await self._wait(lambda: wanted <= self.keys)

    async def started(self, number: int = 1) -> StreamStart:
        """The first connection, or the next one of them, as soon as it is there."""
        await self._wait(lambda: len(self.starts) >= number)
        return self.starts[number - 1]

    async def beaten(self, number: int = 1) -> Batch:
        """The first heartbeat, or the next one of them, as soon as it is there."""
        await self._wait(lambda: len(self.heartbeats) >= number)
        return self.heartbeats[number - 1]

    @property
    def heartbeats(self) -> list[Batch]:
        """The batches with heartbeats."""
        return [batch for batch in self.batches if batch.heartbeat is not None]

    async def gap(self, number: int = 1) -> Gap:
        """The gap that the source itself has found, or the next one of them."""
        await self._wait(lambda: len([start for start in self.starts if start.gap is not None]) >= number)
        return [start.gap for start in self.starts if start.gap is not None][number - 1]

    async def _wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                if self.task.done():
                    self.task.result()
                self._grown.clear()
                await self._grown.wait()

    def again(self) -> None:
        """Connect once more, after a connection that ended: as the daemon does, when the server has noticed that."""
        self.task = asyncio.ensure_future(self._read_when_free())

    async def _read_when_free(self) -> None:
        while True:
            try:
                return await self._read()
            except SlotInUse:
                await asyncio.sleep(0.05)

    def pause(self) -> None:
        """Take no batch any more, as while a target is away."""
        self._is_going.clear()

    def go_on(self) -> None:
        """Take batches again."""
        self._is_going.set()

    def forget(self) -> None:
        """Start the list anew."""
        self.batches.clear()


@contextlib.asynccontextmanager
async def read(build: Callable[[Events], Source], rules: Sequence[Mapping[str, Any]]) -> AsyncIterator[Reading]:
    """The source, read in the background; closed at the end."""
    reader = Reading(build, rules)
    try:
        yield reader
    finally:
        reader.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SourceDisconnected):
            await reader.task
        await reader.source.close()
