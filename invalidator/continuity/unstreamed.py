"""Looks every few seconds for what happens to tables without a word in the stream, and has their rules widened.

What was seen last is kept beside a cache, as our record is, so that what happens while no daemon runs is found too. It
is replaced only when the coarse forms are applied: a daemon that ends before finds the same change again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from invalidator.errors import TargetError
from invalidator.model import Gap, GapReason, readings
from invalidator.ports import Kept
from invalidator.postgres.catalog import unstreamed
from invalidator.postgres.catalog.told import HOOKED_SQL, Told
from invalidator.postgres.catalog.unstreamed import Looked, TableFacts

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from invalidator.ports import Recording
    from invalidator.postgres.side import SideConnection

Look = Callable[["AsyncConnection[Any]", Sequence[tuple[str, str]]], Awaitable[Looked]]
"""Looks at the tables that match one of the patterns (schema and table)."""
Repair = Callable[[Gap, Callable[[], None]], None]
"""Has the rules of some tables widened, and calls back when that is applied."""

_TOLD_SECONDS: Final = 1.0
"""What is told of a table more often widens it once in so long."""
_MOST_TOLD: Final = 10_000


@dataclass(frozen=True, slots=True)
class Beside:
    """Where what was seen last is kept."""

    recorder: Recording
    name: str
    is_ours: Callable[[], bool]
    """Whether what is kept there is about our database, and no other one's."""


class CatalogWatch:
    """Implements :class:`invalidator.postgres.companions.Inspection`.

    Args:
        interval_seconds: between two looks.
        look: how: by a publication, or by triggers.
        patterns: schema and table of each rule in force.
        beside: where what was seen is kept; None: in memory alone.
        repair: what is done about a change.
        wants: whether any rule in force is about this schema and table.
    """

    def __init__(
        self,
        *,
        interval_seconds: float,
        look: Look,
        patterns: Callable[[], Iterable[tuple[str, str]]],
        beside: Beside | None,
        repair: Repair,
        wants: Callable[[str, str], bool] = lambda schema, table: True,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._look = look
        self._patterns = patterns
        self._beside = beside
        self._repair = repair
        self._seen: Looked | None = None
        self._kept = Kept(None, "")
        self._pending = 0
        self._told = Told(wants)
        self._is_hooked: bool | None = None
        self._widened_at: dict[str, float] = {}
        self._late: set[str] = set()

    def take(self, content: bytes) -> list[tuple[str, str]]:
        """The tables whose rules widen, in the stream itself, for what the DDL hook tells; some may be of no rule.

        Anybody may emit such messages: without the hook they mean nothing, and with it a table is widened at once, and
        then only once a second however much is told of it. Before the first look it counts as there.
        """
        if self._is_hooked is False:
            return []
        now, due = time.monotonic(), list[str]()
        if len(self._widened_at) > _MOST_TOLD:  # a rule for tables of any name, and somebody who makes names up
            self._widened_at.clear()
        for name in self._told.changes(content):
            if now - self._widened_at.get(name, -math.inf) >= _TOLD_SECONDS:
                self._widened_at[name] = now
                due.append(name)
            elif name not in self._late:
                self._late.add(name)
                asyncio.get_running_loop().call_later(_TOLD_SECONDS, self._widen_late, name)
        return [each for name in due for each in readings(name)]

    def _widen_late(self, name: str) -> None:
        self._late.discard(name)
        self._pending += 1
        detail = f"{name}: altered again within {_TOLD_SECONDS:g} s"
        self._repair(Gap(GapReason.CATALOG_CHANGED, detail, tables=frozenset([name])), self._repaired)

    async def look_again(self, side: SideConnection) -> None:
        """Look once.

        Raises:
            SourceError, ConfigError: the database could not be asked.
        """
        patterns = sorted(set(self._patterns()))
        looked = await side.ask(lambda connection: self._look(connection, patterns))
        self._is_hooked = bool((await side.fetch(HOOKED_SQL))[0][0])
        self._told.looked(looked)
        is_known = self._beside is None
        earlier = [self._seen]
        if self._beside is not None and self._beside.is_ours():
            with contextlib.suppress(TargetError):  # told elsewhere; asked again at the next look
                kept = await self._beside.recorder.load_record(self._beside.name)
                is_known = True
                if kept != self._kept:
                    # What another daemon, or this one before a restart, saw last; or the cache was set back to an
                    # earlier state, and what was widened in it since then is stale again.
                    earlier.append(decode(kept.content))
                self._kept = kept
        self._compare([each for each in earlier if each is not None], looked)
        self._seen = looked
        if is_known and not self._pending:
            await self._keep(looked)

    def _compare(self, earlier: Iterable[Looked], looked: Looked) -> None:
        """Have widened what happened since any of the earlier looks."""
        changes: dict[str, str] = {}
        for before in earlier:
            # Rules that are new have tables that were not looked at: nothing is known to have happened to them.
            changes |= unstreamed.changes(before, looked)
        if changes:
            detail = "; ".join(f"{table}: {what}" for table, what in changes.items())
            self._pending += 1
            self._repair(Gap(GapReason.CATALOG_CHANGED, detail, tables=frozenset(changes)), self._repaired)
            # crash point: catalog-change-found

    def _repaired(self) -> None:
        self._pending -= 1

    async def _keep(self, looked: Looked) -> None:
        """Write down what was seen, unless it stands there: a flushed cache has forgotten it."""
        content, before = encode(looked), self._kept
        if self._beside is None or content == before.content:
            return
        with contextlib.suppress(TargetError):  # it may have been written all the same: the next look tells
            kept = await self._beside.recorder.keep_record(self._beside.name, content, expected=before.content)
            # crash point: catalog-kept
            if kept.incarnation != before.incarnation:
                self._seen = decode(before.content)  # another server, which may lack what was widened since then
            elif kept.content == content:
                self._kept = kept


def encode(looked: Looked) -> bytes:
    """What was seen, as JSON."""
    return json.dumps({name: asdict(facts) for name, facts in sorted(looked.items())}, separators=(",", ":")).encode()


def decode(content: bytes | None) -> Looked | None:
    """What was encoded; None for anything else."""
    try:
        tables: Any = json.loads(content or b"")
        return {
            str(name): TableFacts(
                int(facts["oid"]),
                tuple(map(str, facts["published"])),
                {int(oid): bool(holds) for oid, holds in facts["partitions"].items()},
                {int(number): str(text) for number, text in facts["columns"].items()},
            )
            for name, facts in tables.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
