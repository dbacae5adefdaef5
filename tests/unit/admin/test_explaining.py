"""What is kept of any source is told in one shape: who watches need not know which one it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from invalidator.admin.explaining import MAX_VALUE, Explaining
from invalidator.model import Column, Lsn, Operation, Relation
from invalidator.postgres.notify.reader import Moment
from invalidator.postgres.notify.reader import Reader as NotifyReader
from invalidator.postgres.outbox.reader import Layout, Row
from invalidator.postgres.outbox.reader import Reader as OutboxReader
from invalidator.postgres.reader import Reader
from invalidator.postgres.recent import MAX_MESSAGE_BYTES, Recent
from invalidator.rules.engine import Engine
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.rules.rows import row_message
from invalidator.telemetry.state import MessageState, State
from tests.support import pgoutput as wire
from tests.support.outbox import array
from tests.support.reading import rule, ruleset_of

RULESET = ruleset_of([rule("item", "item:{id}", "slug:{slug}"), rule("other", "other:{id}")])
COLUMNS = (Column("id", 23, is_identity=True), Column("slug", 25, is_identity=True))
ITEM = Relation(7, "public", "item", "f", COLUMNS)
NOBODYS = Relation(8, "public", "nobodys", "f", COLUMNS)
COMMITTED = 1_800_000_000.0

Images = tuple[dict[str, str] | None, dict[str, str] | None]
Change = tuple[str, Images]
"""Kind, old and new row."""
CHANGES: list[Change] = [
    ("insert", (None, {"id": "1", "slug": "a"})),
    ("update", ({"id": "1", "slug": "a"}, {"id": "1", "slug": "b"})),
    ("delete", ({"id": "1", "slug": "b"}, None)),
    ("truncate", (None, None)),
]


def engine(state: State) -> Engine:
    return Engine(RULESET, states=state.rules, tables=state.tables)


def streamed(recent: Recent, changes: list[Change]) -> None:
    def of(kind: str, old: Any, new: Any) -> bytes:
        return wire.truncate([7]) if kind == "truncate" else row_message(ITEM, Operation(kind), old, new)

    state = State()
    reader = Reader(
        engine(state), heartbeat_name="h", max_items=100, max_bytes=1 << 20, state=state.source, recent=recent
    )
    reader.bind(ITEM)
    time = round((COMMITTED - 946_684_800) * 1e6)
    messages = [of(kind, *images) for kind, images in changes]
    left = [wire.begin(final_lsn=99, commit_time=time, xid=5), *messages, wire.commit(lsn=99, end_lsn=100)]

    def read(_: int) -> tuple[int, memoryview]:
        message = left.pop(0) if left else b""
        return len(message), memoryview(message)

    reader.drain(read)


def written(recent: Recent, changes: list[Change]) -> None:
    state = State()
    reader = OutboxReader(engine(state), heartbeat_name="h", max_items=100, state=state.source, recent=recent)
    layout = Layout(7, "public", "item", b"names")
    reader.bind(layout, ITEM)
    letters = {"insert": "I", "update": "U", "delete": "D", "truncate": "T", "unknown": "?"}
    for number, (kind, images) in enumerate(changes):
        old, new = (None if row is None else array([*row.values()]) for row in images)
        reader.read(Row(5, number, COMMITTED, layout, letters[kind], old, new), Lsn(100))
    reader.commit()


def notified(recent: Recent, changes: list[Change]) -> None:
    state = State()
    reader = NotifyReader(engine(state), max_items=100, state=state.source, recent=recent)
    reader.bind(("public", "item"), ITEM)
    reader.begin(Moment(Lsn(100), 5, COMMITTED))
    for kind, (old, new) in changes:
        fields = {"table": "item", "op": kind} | ({"old": old} if old else {}) | ({"new": new} if new else {})
        notice = reader.parse(json.dumps(fields).encode())
        assert notice is not None
        reader.read(notice, COMMITTED)
    reader.commit()


SOURCES: dict[str, Callable[[Recent, list[Change]], None]] = {
    "pgoutput": streamed, "outbox": written, "notify": notified,
}  # fmt: skip


def told(recent: Recent) -> list[dict[str, Any]]:
    def explicit(state: MessageState) -> ExplicitInvalidation:
        return ExplicitInvalidation({}, grammars=(), state=state)

    explaining = Explaining(RULESET, (), explicit)
    return [explaining.document(each) for each in recent.transactions()]


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_tells_the_same_of_the_same_changes(source: str) -> None:
    recent = Recent(100)
    SOURCES[source](recent, CHANGES)
    (made,) = told(recent)
    expected = Recent(100)
    streamed(expected, CHANGES)
    (wanted,) = told(expected)
    wanted["xid"] = None if source == "notify" else 5  # a notification does not tell whose it is
    assert made == wanted
    assert made["lsn"] == "0/64"
    assert made["commit_time"] == COMMITTED
    assert [row["operation"] for row in made["rows"]] == ["insert", "update", "delete", "truncate"]
    assert made["rows"][1]["columns"] == {"id": {"old": "1", "new": "1"}, "slug": {"old": "a", "new": "b"}}
    assert made["rows"][1]["rules"][0]["invalidation"]["keys"] == ["item:1", "slug:a", "slug:b"]


@pytest.mark.parametrize("source", ["outbox", "notify"])
def test_a_change_that_nobody_knows_is_told_as_one_with_what_it_widens(source: str) -> None:
    recent = Recent(100)
    SOURCES[source](recent, [("unknown", (None, None))])
    ((row,),) = (each["rows"] for each in told(recent))
    assert (row["operation"], row["table"], row["columns"]) == ("unknown", "public.item", {})
    (concerned,) = row["rules"]
    assert concerned["widened"] == ["capture_failed"]
    assert concerned["invalidation"] == {"key_patterns": ["item:*", "slug:*"]}


@pytest.mark.parametrize("source", SOURCES)
def test_of_a_long_change_it_is_told_that_it_is_missing(source: str) -> None:
    recent = Recent(100)
    long = {"id": "1", "slug": "x" * MAX_MESSAGE_BYTES}
    SOURCES[source](recent, [("insert", (None, long)), ("insert", (None, {"id": "2", "slug": "y" * MAX_VALUE * 2}))])
    (made,) = told(recent)
    assert not made["is_whole"]
    assert made["rows"][0]["columns"]["slug"]["new"] == "y" * MAX_VALUE + "…"


def test_changes_of_tables_without_a_rule_are_not_kept() -> None:
    recent = Recent(100)
    state = State()
    reader = OutboxReader(engine(state), heartbeat_name="h", max_items=100, state=state.source, recent=recent)
    layout = Layout(8, "public", "nobodys", b"names")
    reader.bind(layout, NOBODYS)
    for number, kind in enumerate("IT?"):
        reader.read(Row(number, number, COMMITTED, layout, kind, None, array(["1", "a"])), Lsn(100))
    reader.commit()
    assert told(recent) == []


def test_rows_of_an_outbox_are_told_by_transaction_and_only_when_all_of_them_are_read() -> None:
    recent = Recent(100)
    state = State()
    reader = OutboxReader(engine(state), heartbeat_name="h", max_items=100, state=state.source, recent=recent)
    layout = Layout(7, "public", "item", b"names")
    reader.bind(layout, ITEM)
    for xid, number in ((5, 1), (5, 2), (6, 3)):
        reader.read(Row(xid, number, COMMITTED, layout, "I", None, array([str(number), "a"])), Lsn(100))
    assert [(each["xid"], each["lsn"], len(each["rows"])) for each in told(recent)] == [(5, "0/64", 2), (6, None, 1)]
    assert [each.transaction.xid for each in recent.whole_after(0, rows=100)] == [5]
    reader.commit()
    assert [each.transaction.xid for each in recent.whole_after(0, rows=100)] == [5, 6]
