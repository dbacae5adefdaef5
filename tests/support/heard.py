"""What rules make of the changes that one publication lets through a slot; several publications can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from invalidator.model import Invalidation, Relation
from invalidator.postgres.reader import Reader
from invalidator.rules.engine import Engine
from invalidator.rules.rule import RuleSet
from invalidator.telemetry.state import SourceState
from tests.support.postgres import Database

_HEADER = b"w" + bytes(24)


def heard(database: Database, slot: str, publication: str, rules: RuleSet) -> Invalidation:
    """Everything that the rules make of all that waits in the slot; it stays there."""
    rows = database.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
        " 'publication_names', quote_ident(%s))",
        slot,
        publication,
    )
    engine = Engine(rules, states={}, tables={})
    reader = Reader(engine, heartbeat_name="", max_items=1 << 20, max_bytes=1 << 30, state=SourceState())
    read = _script(_HEADER + bytes(data) for (data,) in rows)
    while reader.drain(read) > 0:
        assert reader.unbound is not None
        reader.bind(_rooted(database, reader.unbound))
    return reader.take().invalidation


def covers(invalidation: Invalidation, key: str) -> bool:
    """Whether that key would be unlinked, by its name or by a pattern."""
    patterns = [pattern.decode() for pattern in invalidation.key_patterns]
    return key.encode() in invalidation.keys or any(fnmatchcase(key, pattern) for pattern in patterns)


def _rooted(database: Database, relation: Relation) -> Relation:
    rows = database.execute(
        "SELECT n.nspname, c.relname FROM pg_class leaf JOIN pg_class c ON c.oid = pg_partition_root(leaf.oid)"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE leaf.oid = %s::oid AND leaf.relispartition",
        relation.oid,
    )
    return replace(relation, schema=rows[0][0], table=rows[0][1]) if rows else relation


def _script(messages: Iterable[bytes]) -> Callable[[int], tuple[int, memoryview]]:
    """libpq's get_copy_data over a list: 0 when it is dry."""
    left = iter(messages)

    def read(_: int) -> tuple[int, memoryview]:
        message = next(left, b"")
        return len(message), memoryview(message)

    return read
