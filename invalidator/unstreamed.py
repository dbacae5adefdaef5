"""Looks every few seconds for what happens to tables without a word in the stream, and has their rules widened.

What was seen last is kept beside a cache, as our record is, so that what happens while no daemon runs is found too. It
is replaced only when the coarse forms are applied: a daemon that ends before finds the same change again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from invalidator.errors import TargetError
from invalidator.model import Gap, GapReason
from invalidator.postgres.catalog import unstreamed
from invalidator.postgres.catalog.unstreamed import Looked, TableFacts

if TYPE_CHECKING:
    from invalidator.ports import Recording
    from invalidator.postgres.side import SideConnection

Repair = Callable[[Gap, Callable[[], None]], None]
"""Has the rules of some tables widened, and calls back when that is applied."""


class CatalogWatch:
    """Implements :class:`invalidator.postgres.companions.Inspection`.

    Args:
        interval_seconds: between two looks.
        publication: whose members count.
        name: of the record.
        patterns: schema and table of each rule in force.
        recorder: where what was seen is kept; None: in memory alone.
        repair: what is done about a change.
    """

    def __init__(
        self,
        *,
        interval_seconds: float,
        publication: str,
        name: str,
        patterns: Callable[[], Iterable[tuple[str, str]]],
        recorder: Recording | None,
        repair: Repair,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._publication = publication
        self._name = name
        self._patterns = patterns
        self._recorder = recorder
        self._repair = repair
        self._seen: Looked | None = None
        self._kept: bytes | None = None
        self._is_known = recorder is None
        self._pending = 0

    async def look_again(self, side: SideConnection) -> None:
        """Look once.

        Raises:
            SourceError, ConfigError: the database could not be asked.
        """
        patterns = sorted(set(self._patterns()))
        looked = await side.ask(lambda connection: unstreamed.look(connection, patterns, self._publication))
        if not self._is_known:
            await self._recall()
        if self._seen is not None:
            changes = unstreamed.changes(self._seen, looked)
            # Rules that are new have tables that were not looked at: nothing is known to have happened to them.
            if changes:
                detail = "; ".join(f"{table}: {what}" for table, what in changes.items())
                gap = Gap(GapReason.CATALOG_CHANGED, detail, tables=frozenset(changes))
                self._pending += 1
                self._repair(gap, self._repaired)
        self._seen = looked
        if not self._pending:
            await self._keep(looked)

    def _repaired(self) -> None:
        self._pending -= 1

    async def _recall(self) -> None:
        """What another daemon, or this one before a restart, saw last."""
        assert self._recorder is not None  # noqa: S101  (only then something is unknown)
        try:
            self._kept = (await self._recorder.load_record(self._name)).content
        except TargetError:
            return  # told elsewhere; asked again at the next look
        self._is_known = True
        if self._seen is None:
            self._seen = decode(self._kept)

    async def _keep(self, looked: Looked) -> None:
        content = encode(looked)
        if self._recorder is None or not self._is_known or content == self._kept:
            return
        try:
            self._kept = (await self._recorder.keep_record(self._name, content, expected=self._kept)).content
        except TargetError:
            self._is_known = False


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
