"""What DDL the stream tells of, once ``setup --ddl-hook`` has made event triggers that emit messages. No I/O.

Anybody may emit such messages. So nothing in one raises, memory follows the tables of the rules, and the worst that one
can do is what a real one does: rules widen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, LiteralString

from invalidator.model import readings
from invalidator.postgres.catalog.unstreamed import Looked

PREFIX: Final = "invalidator.ddl"
EVENTS: Final[tuple[LiteralString, ...]] = ("ddl_command_end", "sql_drop", "table_rewrite")
"""What fires the triggers, and behind ``invalidator_`` their names."""
MAX_BYTES: Final = 4 * 1024 * 1024
_MOST_TABLES: Final = 10_000

HOOKED_SQL: LiteralString = """
    SELECT count(*) = 3 FROM pg_event_trigger
     WHERE evtname IN ('invalidator_ddl_command_end', 'invalidator_sql_drop', 'invalidator_table_rewrite')
       AND evtenabled <> 'D'
"""


class Told:
    """Names and partitions of the rules' tables, as they were when they were looked at or told of last.

    Args:
        wants: whether any rule is about this schema and table.
    """

    def __init__(self, wants: Callable[[str, str], bool]) -> None:
        self._wants = wants
        self._names: dict[int, str] = {}
        self._partitions: dict[int, dict[int, bool]] = {}

    def looked(self, looked: Looked) -> None:
        """Somebody has looked: this is how they are."""
        self._names = {facts.oid: name for name, facts in looked.items()}
        self._partitions = {facts.oid: dict(facts.partitions) for facts in looked.values()}

    def changes(self, content: bytes) -> dict[str, str]:
        """The rules' tables of which rows may have changed unseen by what a message tells of, and what happened."""
        try:
            entries: Any = json.loads(content.decode()) if len(content) <= MAX_BYTES else ()
            found = [each for entry in entries for each in self._entry(entry)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return {}
        return {name: what for name, what in found if self._is_wanted(name)}

    def _entry(self, entry: Any) -> Iterator[tuple[str, str]]:
        if entry["what"] == "unknown":
            yield from ((name, "altered, and the hook could not tell how") for name in self._names.values())
            return
        oid, name = int(entry["oid"]), f"{entry['schema']}.{entry['table']}"
        match entry["what"]:
            case "dropped":
                yield from self._dropped(oid, name)
            case "altered":
                yield from ((each, "columns altered") for each in {name, self._names.get(oid, name)})
            case "there":
                partitions = entry.get("partitions")
                yield from self._there(oid, name, {int(key): bool(holds) for key, holds in (partitions or {}).items()})
            case _:
                return

    def _dropped(self, oid: int, name: str) -> Iterator[tuple[str, str]]:
        for root, partitions in self._partitions.items():
            if oid in partitions:
                del partitions[oid]
                yield self._names[root], "1 partitions detached or dropped"
                return
        self._partitions.pop(oid, None)
        yield from ((each, "dropped or renamed") for each in {name, self._names.pop(oid, name)})

    def _there(self, oid: int, name: str, partitions: Mapping[int, bool]) -> Iterator[tuple[str, str]]:
        before, known = self._names.get(oid), self._partitions.get(oid, {})
        if before is not None and before != name:
            yield from ((each, "dropped or renamed") for each in (before, name))
        if gone := known.keys() - partitions.keys():
            yield name, f"{len(gone)} partitions detached or dropped"
        if come := [each for each in partitions.keys() - known.keys() if partitions[each]]:
            yield name, f"{len(come)} partitions with rows attached"
        if before is not None or (self._is_wanted(name) and len(self._names) < _MOST_TABLES):
            self._names[oid], self._partitions[oid] = name, dict(partitions)

    def _is_wanted(self, name: str) -> bool:
        return any(self._wants(schema, table) for schema, table in readings(name))
