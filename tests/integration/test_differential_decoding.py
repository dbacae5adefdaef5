"""Random nasty SQL, decoded from slots made at the same point: by us, by test_decoding and by wal2json.

``FUZZ_EXAMPLES=200 pytest --timeout=0 tests/integration/test_differential_decoding.py`` looks longer; ``FUZZ_SEED=17``
begins at seed 17, which a failing test names. wal2json is looked for beside Debian's server; no wheel has it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from invalidator.demo.servers import PostgresServer, ServerMissing, find_postgres
from invalidator.model import Invalidation, Operation, Relation
from invalidator.telemetry.state import RuleState, TableState
from tests.support import nasty_sql
from tests.support.column_rules import column_rules
from tests.support.decoded import (
    Collector,
    Decoded,
    RowChange,
    Truncation,
    Values,
    by_test_decoding,
    by_us,
    by_wal2json,
)
from tests.support.pgoutput import UNCHANGED, Row
from tests.support.rule_interpreter import Change, Interpreter
from tests.support.services import missing
from tests.unit.rules.test_compiler import Bound

FIRST_SEED = int(os.environ.get("FUZZ_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("FUZZ_EXAMPLES", "2")))
TRANSACTIONS = 40
DEBIAN = Path("/usr/lib/postgresql")
PARTITIONED = frozenset({"public.event", "public.event B"})
"""pgoutput tells a TRUNCATE of these by their leaves only."""
GENERATED = {"public.computed": {"twice"}}
"""pgoutput leaves generated columns out."""
NO_NUMBERS = {"NaN", "Infinity", "-Infinity"}
FLOATS = {700, 701, 1700}
"""OIDs of the types that have such values, which JSON has not: wal2json writes null."""
BYTEA = 17
"""Whose values it writes without the leading ``\\x``."""
SETTINGS = {
    "max_prepared_transactions": "5",
    "logical_decoding_work_mem": "64kB",  # most transactions are spilled to disk
    "fsync": "off",
}


def _debian() -> Path:
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if not found:
        missing("no PostgreSQL of Debian: apt-get install postgresql, and postgresql-15-wal2json for its version")
    return found[-1].parent


def _usual() -> Path:
    try:
        return find_postgres()
    except ServerMissing as error:
        missing(str(error))


@pytest.fixture(scope="module", params=[_usual, _debian], ids=["usual", "debian"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The server that all tests take, and the one that wal2json is packaged for."""
    with PostgresServer(binaries=request.param(), settings=SETTINGS) as made:
        allow_wal2json(made)
        yield made


class Slots:
    """A database with the nasty tables, and slots of several plugins that begin at the same point."""

    def __init__(self, server: PostgresServer, plugins: Sequence[str]) -> None:
        self._server = server
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("DROP DATABASE IF EXISTS nasty WITH (FORCE)")
            admin.execute("CREATE DATABASE nasty TEMPLATE template0")
        self.dsn = server.dsn("nasty")
        self._plugins = tuple(plugins)
        self._connection = psycopg.connect(self.dsn, autocommit=True)
        nasty_sql.prepare(self._connection)
        self._connection.execute("CREATE PUBLICATION p FOR ALL TABLES")
        for plugin in plugins:
            self._connection.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [plugin, plugin])

    def read(self, plugin: str, *options: str) -> list[tuple[int, Any]]:
        """Everything that the slot has: position and payload of each message."""
        kind = "_binary" if plugin == "pgoutput" else ""
        function = f"pg_logical_slot_get{kind}_changes"
        marks = "".join(", %s" for _ in options)
        statement = f"SELECT lsn - '0/0'::pg_lsn, data FROM {function}(%s, NULL, NULL{marks})"  # noqa: S608
        return [(int(lsn), data) for lsn, data in self._connection.execute(statement.encode(), [plugin, *options])]

    def close(self) -> None:
        for plugin in self._plugins:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute("SELECT pg_drop_replication_slot(%s)", [plugin])
        self._connection.close()
        with psycopg.connect(self._server.dsn(), autocommit=True) as admin:
            admin.execute("DROP DATABASE nasty WITH (FORCE)")


def written(slots: Slots, seed: int) -> Collector:
    """Write what the seed says, and decode it ourselves."""
    writer = nasty_sql.Writer(slots.dsn, seed)
    writer.run(TRANSACTIONS)
    writer.close()
    options = ("proto_version", "1", "publication_names", "p", "messages", "true")
    ours = by_us((lsn, bytes(data)) for lsn, data in slots.read("pgoutput", *options))
    print(f"seed {seed}: {len(writer.written)} statements, {len(ours.rows)} rows; again with FUZZ_SEED={seed}")
    return ours


@pytest.mark.parametrize("seed", SEEDS)
def test_test_decoding_tells_the_same_changes_and_rules_make_the_same_of_them(
    server: PostgresServer, seed: int
) -> None:
    slots = Slots(server, ["pgoutput", "test_decoding"])
    with contextlib.closing(slots):
        ours = written(slots, seed)
        theirs = by_test_decoding(slots.read("test_decoding", "include-xids", "1", "skip-empty-xacts", "1"))

    assert ours.decoded.messages == theirs.messages
    assert_same(ours.decoded, completed(theirs, ours))
    assert len(ours.rows) > TRANSACTIONS
    assert_rules_agree(ours, completed(theirs, ours))


@pytest.mark.parametrize("seed", SEEDS)
def test_wal2json_tells_the_same_changes(server: PostgresServer, seed: int) -> None:
    if not has_wal2json(server):
        if server.binaries.is_relative_to(DEBIAN):
            missing(
                f"no wal2json beside {server.binaries}: apt-get install postgresql-{server.binaries.parts[4]}-wal2json"
            )
        pytest.skip(f"no wal2json beside {server.binaries}")
    slots = Slots(server, ["pgoutput", "wal2json"])
    with contextlib.closing(slots):
        ours = written(slots, seed)
        options = ("format-version", "2", "include-xids", "1", "include-transaction", "1", "include-types", "0")
        theirs = by_wal2json(slots.read("wal2json", *options))

    assert ours.decoded.messages == theirs.messages
    assert_same(by_table(as_json_tells(ours)), by_table(completed(theirs, ours)))


def allow_wal2json(server: PostgresServer) -> None:
    """Minor versions since August 2026 have a list of the plugins that may be used."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        if not admin.execute("SELECT 1 FROM pg_settings WHERE name = 'output_plugin_libraries'").fetchone():
            return
        admin.execute("ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, wal2json")
    server.restart()


def has_wal2json(server: PostgresServer) -> bool:
    """Whether the server can decode with it."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        try:
            admin.execute("SELECT pg_create_logical_replication_slot('probe', 'wal2json', true)")
        except psycopg.errors.UndefinedFile:
            return False
    return True


# ---------------------------------------------------------------- what they are told apart by


def assert_same(ours: Decoded, theirs: Decoded) -> None:
    """The same transactions with the same changes, in the same order; the first difference is shown."""
    for mine, other in zip(ours.transactions, theirs.transactions, strict=False):
        assert mine[0] == other[0], "another transaction"
        for own, their in zip(mine[1], other[1], strict=False):
            assert own == their
        assert len(mine[1]) == len(other[1])
    assert [xid for xid, _ in ours.transactions] == [xid for xid, _ in theirs.transactions]


def completed(theirs: Decoded, ours: Collector) -> Decoded:
    """What the other plugin says, without what pgoutput leaves out, and with NULLs of old rows that it leaves out."""
    made = Decoded(end=theirs.end)
    rows = iter(ours.rows)
    for xid, events in theirs.transactions:
        kept = made.begin(xid)
        for event in events:
            if isinstance(event, Truncation):
                if tables := event.tables - PARTITIONED:
                    kept.append(Truncation(tables))
            else:
                row = next(rows, None)
                kept.append(event if row is None else _completed(event, row.relation))
    made.close()
    return made


def _completed(event: RowChange, relation: Relation) -> RowChange:
    hidden = GENERATED.get(event.table, set())

    def visible(values: Values | None) -> Values | None:
        return None if values is None else {name: value for name, value in values.items() if name not in hidden}

    old = visible(event.old)
    if old is not None and relation.replica_identity == "f":
        old = {column.name: old.get(column.name) for column in relation.columns}
    return RowChange(event.table, event.operation, old, visible(event.new))


def as_json_tells(ours: Collector) -> Decoded:
    """Ours as wal2json can tell it: bytes and numbers in its way, and the identity of every update.

    Tables of one TRUNCATE are told one by one, and the order among them says nothing.
    """
    made = Decoded(end=ours.decoded.end)
    rows = iter(ours.rows)
    for xid, events in ours.decoded.transactions:
        kept = made.begin(xid)
        for event in events:
            if isinstance(event, Truncation):
                kept += [Truncation(frozenset([table])) for table in event.tables]
            else:
                kept.append(_as_json_tells(event, next(rows).relation))
    return made


def _as_json_tells(event: RowChange, relation: Relation) -> RowChange:
    types = {column.name: column.type_oid for column in relation.columns}
    keys = [column.name for column in relation.columns if column.is_identity]

    def text(name: str, value: str | None) -> str | None:
        if types[name] in FLOATS and value in NO_NUMBERS:
            return None
        return value[2:] if types[name] == BYTEA and value is not None else value

    def told(values: Values | None) -> Values | None:
        return None if values is None else {name: text(name, value) for name, value in values.items()}

    old = event.old
    if event.operation is Operation.UPDATE and old is None and event.new is not None:
        old = {name: event.new[name] for name in keys if name in event.new}
    return RowChange(event.table, event.operation, told(old), told(event.new))


def by_table(decoded: Decoded) -> Decoded:
    """With the tables of successive TRUNCATEs in order of their names."""
    made = Decoded(end=decoded.end)
    for xid, events in decoded.transactions:
        kept = made.begin(xid)
        for _, group in itertools.groupby(events, type):
            kept += sorted(group, key=lambda event: sorted(event.tables) if isinstance(event, Truncation) else [])
    return made


# ---------------------------------------------------------------- rules


def change_of(event: RowChange, relation: Relation) -> Change:
    """The change as the slow interpreter takes it."""

    def row(values: Values | None, absent: Any) -> Row | None:
        if values is None:
            return None
        texts = [values.get(column.name, absent) for column in relation.columns]
        return [text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text for text in texts]

    is_full = relation.replica_identity == "f"
    old = row(event.old, None)
    return Change(event.operation, row(event.new, UNCHANGED), old if is_full else None, None if is_full else old)


def assert_rules_agree(ours: Collector, theirs: Decoded) -> None:
    """Compiled functions on pgoutput's bytes do what the slow interpreter makes of the other plugin's text."""
    events = [event for _, events in theirs.transactions for event in events if isinstance(event, RowChange)]
    bound: dict[Relation, tuple[Bound, Interpreter]] = {}
    for row, event in zip(ours.rows, events, strict=True):
        if row.relation not in bound:
            rules = column_rules(row.relation)
            states = {rule.name: RuleState(rule.name) for rule in rules}
            slow = Interpreter(list(enumerate(rules)), row.relation, states, TableState("public.article"))
            bound[row.relation] = Bound(row.relation, rules), slow
        fast, slow = bound[row.relation]
        made, expected = Invalidation(), Invalidation()
        fast.function(row.message, made, row.transaction)
        slow.apply(change_of(event, row.relation), expected, row.transaction)
        assert made == expected, event
    for fast, slow in bound.values():
        assert fast.states == slow.states
        assert not any(state.errors for state in fast.states.values())
