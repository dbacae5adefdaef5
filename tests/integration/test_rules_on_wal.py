"""Compiled rules on what Postgres really writes, and the test encoder against the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from invalidator.model import Invalidation, Operation, Relation, Transaction
from invalidator.postgres import decoder
from invalidator.rules.engine import Engine
from invalidator.rules.explain import row_message
from invalidator.rules.rule import Coarse, Exact, Place, Rule, RuleSet
from invalidator.rules.template import parse
from invalidator.telemetry.state import RuleState
from tests.support import pgoutput
from tests.support.pgoutput import UNCHANGED
from tests.support.postgres import Database

HEADER = b"w" + bytes(24)
LONG = "x" * 9_000


@dataclass
class Wal:
    """A table whose changes are read back as messages."""

    database: Database

    def create(self, columns: str, identity: str = "") -> None:
        self.database.execute(f"CREATE TABLE article ({columns})")
        self.database.execute("ALTER TABLE article ALTER body SET STORAGE EXTERNAL")
        if identity:
            self.database.execute(f"ALTER TABLE article REPLICA IDENTITY {identity}")
        self.database.execute("CREATE PUBLICATION p FOR TABLE article")
        self.database.execute("SELECT pg_create_logical_replication_slot(current_database() || '_slot', 'pgoutput')")

    def messages(self, *statements: str) -> list[bytes]:
        """What the statements, each its own transaction, put into the stream."""
        for statement in statements:
            self.database.execute(statement)
        rows = self.database.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes(current_database() || '_slot', NULL, NULL, "
            "'proto_version', '1', 'publication_names', 'p')"
        )
        return [HEADER + bytes(data) for (data,) in rows]


@pytest.fixture
def wal(database: Database) -> Wal:
    return Wal(database)


def relation_and_rows(messages: list[bytes]) -> tuple[Relation, list[bytes]]:
    relations = [decoder.relation(message) for message in messages if message[25:26] == b"R"]
    return relations[0], [message for message in messages if message[25:26] in (b"I", b"U", b"D")]


def applied(relation: Relation, rows: list[bytes], *keys: str) -> tuple[list[set[bytes]], RuleState]:
    rule = Rule(
        name="article",
        schema="public",
        table="article",
        events=frozenset(Operation),
        changed=None,
        exact=Exact(keys=tuple(map(parse, keys))),
        coarse=Coarse(keys=(parse("COARSE"),)),
        bulk_over=None,
        repeat_after=(),
        soft=False,
        place=Place("rules.yaml", 1, 1),
    )
    states: dict[str, RuleState] = {}
    function = Engine(RuleSet((rule,), ""), states=states, tables={}).bind(relation)
    assert function is not None
    made = []
    for row in rows:
        invalidation = Invalidation()
        function(row, invalidation, Transaction(1, 2, 3))
        made.append(invalidation.keys)
    assert not states["article"].errors
    return made, states["article"]


CHANGES = (
    "INSERT INTO article VALUES (1, 'a', repeat('x', 9000))",
    "UPDATE article SET slug = 'b'",
    "UPDATE article SET id = 2",
    "UPDATE article SET body = NULL",
    "DELETE FROM article",
)


def test_the_default_identity_sends_the_old_key_when_it_changed(wal: Wal) -> None:
    wal.create("id int PRIMARY KEY, slug text, body text")
    relation, rows = relation_and_rows(wal.messages(*CHANGES))
    made, state = applied(relation, rows, "id:{id}", "slug:{slug}", "body:{new.body|md5}")
    body = b"body:" + parse("{x|md5}").references[0].filtered(LONG.encode())  # type: ignore[operator]
    assert made == [
        {b"id:1", b"slug:a", body},
        {b"id:1", b"slug:b", b"COARSE"},
        {b"id:1", b"id:2", b"slug:b", b"COARSE"},
        {b"id:2", b"slug:b", b"COARSE"},
        {b"id:2", b"COARSE"},
    ]
    assert state.widened == {"old_unavailable": 4, "value_unavailable": 2}  # twice the long text was not sent
    assert state.null_skips == 1


def test_a_full_identity_sends_every_old_value(wal: Wal) -> None:
    wal.create("id int, slug text, body text", "FULL")
    relation, rows = relation_and_rows(wal.messages(*CHANGES))
    made, state = applied(relation, rows, "id:{id}", "slug:{slug}", "body:{new.body|trim|hashtag}")
    body = b"body:{" + LONG.encode() + b"}"
    assert made == [
        {b"id:1", b"slug:a", body},
        {b"id:1", b"slug:a", b"slug:b", body},  # the long text was not sent again, but stood in the old row
        {b"id:1", b"id:2", b"slug:b", body},
        {b"id:2", b"slug:b"},
        {b"id:2", b"slug:b"},
    ]
    assert not state.widened


def test_an_identity_by_index_sends_its_columns(wal: Wal) -> None:
    wal.database.execute("CREATE TABLE other (x int)")
    wal.create("id int, slug text NOT NULL UNIQUE, body text", "USING INDEX article_slug_key")
    relation, rows = relation_and_rows(wal.messages(*CHANGES))
    made, state = applied(relation, rows, "slug:{slug}")
    assert made == [{b"slug:a"}, {b"slug:a", b"slug:b"}, {b"slug:b"}, {b"slug:b"}, {b"slug:b"}]
    assert not state.widened


@pytest.mark.parametrize("identity", ["", "FULL"])
def test_the_encoders_write_what_postgres_writes(wal: Wal, identity: str) -> None:
    wal.create("id int PRIMARY KEY, slug text, body text", identity)
    messages = wal.messages(*CHANGES, "TRUNCATE article")
    relation, rows = relation_and_rows(messages)
    full = identity == "FULL"
    long = LONG.encode()
    first, second, third, fourth = [b"1", b"a", long], [b"1", b"b", long], [b"2", b"b", long], [b"2", b"b", None]
    kept: list[pgoutput.Row] = [[b"1", b"b", UNCHANGED], [b"2", b"b", UNCHANGED]]
    oid = relation.oid
    expected = [
        pgoutput.insert(oid, first),
        pgoutput.update(oid, kept[0], old=first if full else None),
        pgoutput.update(oid, kept[1], old=second) if full else pgoutput.update(oid, kept[1], key=[b"1", None, None]),
        pgoutput.update(oid, fourth, old=third if full else None),
        pgoutput.delete(oid, old=fourth) if full else pgoutput.delete(oid, key=[b"2", None, None]),
    ]
    assert [row[25:] for row in rows] == [row[25:] for row in expected]
    announced = next(message for message in messages if message[25:26] == b"R")
    # The type modifier is the one thing that is not kept: it is -1 for text and int.
    assert pgoutput.relation(relation)[25:] == announced[25:]
    assert pgoutput.truncate([oid])[25:] in [message[25:] for message in messages]
    explained = [
        row_message(relation, Operation.INSERT, None, {"id": 1, "slug": "a", "body": LONG}),
        row_message(relation, Operation.UPDATE, {"id": 1, "slug": "a", "body": LONG}, {"id": 1, "slug": "b"}),
        row_message(relation, Operation.UPDATE, {"id": 1, "slug": "b", "body": LONG}, {"id": 2, "slug": "b"}),
    ]
    assert [row[25:] for row in explained] == [row[25:] for row in rows[:3]]
