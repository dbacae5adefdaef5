"""The deciding parts of listening: what a payload says, what goes into a batch, what a flood may cost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invalidator.model import Column, Invalidation, Lsn, Operation, Relation, WidenReason
from invalidator.postgres.notify.payload import Notice, Unreadable, message, parse, shape_of, shaped, texts
from invalidator.postgres.notify.reader import Moment, Reader
from invalidator.rules.engine import Engine
from invalidator.rules.rows import read_message
from invalidator.rules.rule import RuleSet
from invalidator.telemetry.state import State
from tests.support.reading import engine_of, rule, ruleset_of

ITEM = Relation(7, "public", "item", "f", (Column("id", 23, is_identity=True), Column("slug", 25, is_identity=True)))
MOMENT = Moment(Lsn(1000), 77, 1_800_000_000.0)
RULES = [
    rule("item", "item:{id}", "slug:{slug}"),
    rule("item", "changed:{id}", name="changed", changed=["slug"]),
    rule("item", "big:{id}", name="big", when="id > 2"),
    rule("item", "moved:{old.slug}", name="moved", when="old.slug != new.slug", events=["update"]),
]
ALL_RULES = ruleset_of(RULES)
ITEM_RULES = ruleset_of(RULES[:1])


def payload(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def readable(**fields: object) -> Notice:
    return parse(payload(**{"table": "item", "op": "insert", **fields}))


class Listening:
    """A reader with rules, and a table that it knows."""

    def __init__(self, rules: RuleSet = ITEM_RULES, *, max_items: int = 100) -> None:
        self.state = State()
        engine = Engine(rules, states=self.state.rules, tables=self.state.tables)
        self.reader = Reader(engine, max_items=max_items, state=self.state.source)
        self.reader.begin(MOMENT)

    def hear(self, **fields: object) -> Invalidation:
        """What one payload names."""
        notice = self.reader.parse(payload(**{"table": "item", **fields}))
        if notice is not None:
            for name in self.reader.unknown([notice]):
                self.reader.bind(name, ITEM if name == ("public", "item") else None)
            self.reader.read(notice, MOMENT.at)
        return self.reader.take().invalidation

    def widened(self, name: str = "item") -> dict[str, int]:
        return dict(self.state.rules[name].widened)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(Unreadable):
        parse(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["schema", "table", "op", "old", "new", "more"]), JSON)
    | st.fixed_dictionaries(
        {"table": st.just("item"), "op": st.sampled_from(["insert", "UPDATE", "delete", "truncate", 7])},
        optional={name: st.dictionaries(st.sampled_from(["id", "slug", "x"]), JSON) for name in ("old", "new")},
    )
)
def test_no_payload_is_fatal(fields: dict[str, object]) -> None:
    heard = Listening()
    notice = heard.reader.parse(json.dumps(fields).encode())
    if notice is not None:
        heard.reader.bind((notice.schema, notice.table), ITEM)
        heard.reader.read(notice, MOMENT.at)


ROWS = st.fixed_dictionaries({"id": st.integers(1, 4), "slug": st.sampled_from(["a", "b", None])})
SENT = st.none() | st.sets(st.sampled_from(["id", "slug"]))


def covered(invalidation: Invalidation, key: str) -> bool:
    patterns = [pattern.decode() for pattern in invalidation.key_patterns]
    return key.encode() in invalidation.keys or any(key.startswith(pattern.rstrip("*")) for pattern in patterns)


def named(operation: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[str]:
    """What the rules name for a change that is told whole, worked out once more."""
    for row in (old, new):
        if row is not None:
            yield f"item:{row['id']}"
            if row["slug"] is not None:
                yield f"slug:{row['slug']}"
            if operation != "update" or (old or {})["slug"] != (new or {})["slug"]:
                yield f"changed:{row['id']}"
    if any(row is not None and row["id"] > 2 for row in (old, new)):
        yield from (f"big:{row['id']}" for row in (old, new) if row is not None)
    if old is not None and new is not None and old["slug"] not in (None, new["slug"]):
        yield f"moved:{old['slug']}"


@settings(deadline=None)
@given(st.sampled_from(["insert", "update", "delete"]), ROWS, ROWS, SENT, SENT)
def test_whatever_is_not_sent_nothing_stale_is_left(
    operation: str, old: dict[str, Any], new: dict[str, Any], old_sent: set[str] | None, new_sent: set[str] | None
) -> None:
    before = None if operation == "insert" else old
    after = None if operation == "delete" else new
    fields: dict[str, object] = {"op": operation}
    for image, row, sent in (("old", before, old_sent), ("new", after, new_sent)):
        if row is not None and sent is not None:
            fields[image] = {name: row[name] for name in sent}

    invalidation = Listening(ALL_RULES).hear(**fields)

    assert [key for key in named(operation, before, after) if not covered(invalidation, key)] == []


@settings(deadline=None)
@given(st.sampled_from(["insert", "update", "delete"]), ROWS, ROWS)
def test_a_payload_with_both_whole_rows_is_exact(operation: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    before = None if operation == "insert" else old
    after = None if operation == "delete" else new
    invalidation = Listening(ALL_RULES).hear(op=operation, old=before, new=after)
    assert not invalidation.key_patterns
    assert {key.decode() for key in invalidation.keys} == set(named(operation, before, after))


def test_of_an_update_with_the_old_key_alone_only_the_key_counts_as_known() -> None:
    notice = readable(op="update", old={"id": 1}, new={"id": 2, "slug": "b"})
    old, new = texts(notice.old, ITEM), texts(notice.new, ITEM)
    shape = shape_of(Operation.UPDATE, old, new)
    assert shape is not None
    sent = shaped(ITEM, shape)
    assert sent.replica_identity == "d"
    assert [column.name for column in sent.columns if column.is_identity] == ["id"]
    assert read_message(sent, message(sent, Operation.UPDATE, old, new)) == (
        Operation.UPDATE, {"id": "1"}, {"id": "2", "slug": "b"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("type_oid", "written", "text"),
    [
        (23, 7, b"7"),
        (1700, 1.50, b"1.5"),
        (16, True, b"t"),
        (16, "false", b"f"),
        (16, "yes", None),
        (25, "ü", "ü".encode()),
        (25, "nul\0", None),
        (25, "\ud800", None),
        (3802, {"a": 1}, None),
        (1007, [1, 2], None),
        (1114, "2026-01-02T03:04:05.6", b"2026-01-02 03:04:05.6"),
        (1114, "2026-01-02 03:04:05", b"2026-01-02 03:04:05"),
        (1114, "02.01.2026 03:04:05", None),
        (1184, "2026-01-02T03:04:05+00:00", b"2026-01-02 03:04:05+00"),
        (1184, "2026-01-02 03:04:05+00", b"2026-01-02 03:04:05+00"),
        (1184, "2026-01-02T12:04:05+09:00", None),
        (1184, "2026-01-02T03:04:05", None),
        (1184, "infinity", b"infinity"),
    ],
)
def test_a_value_counts_as_sent_only_in_the_text_that_logical_replication_would_send(
    type_oid: int, written: object, text: bytes | None
) -> None:
    relation = Relation(1, "public", "t", "f", (Column("a", type_oid, is_identity=True),))
    notice = parse(payload(table="t", op="insert", new={"a": written}))
    assert texts(notice.new, relation) == ({} if text is None else {"a": text})


def test_numbers_keep_the_digits_in_which_they_were_written() -> None:
    notice = parse(b'{"table": "t", "new": {"a": 1.500, "b": 12345678901234567890}}')
    assert notice.new == {"a": "1.500", "b": "12345678901234567890"}


def test_a_null_is_a_value_and_what_is_left_out_is_none() -> None:
    heard = Listening()
    assert heard.hear(op="insert", new={"id": 1, "slug": None}).keys == {b"item:1"}
    assert heard.widened() == {}
    assert heard.hear(op="insert", new={"id": 1}).key_patterns == {b"item:*", b"slug:*"}
    assert heard.widened() == {WidenReason.MISSING_COLUMN: 1}


def test_a_table_that_is_gone_widens_its_rules_and_is_refused() -> None:
    heard = Listening(ruleset_of([rule("gone", "gone:{id}"), *RULES[:1]]))
    assert heard.hear(table="gone", op="insert", new={"id": 1}).key_patterns == {b"gone:*"}
    assert heard.state.source.notifications.counts == {"unknown_table": 1}


def test_a_full_batch_grows_by_coarse_forms_only() -> None:
    heard = Listening(max_items=4)
    for number in range(1000):
        notice = readable(new={"id": number, "slug": str(number)})
        heard.reader.bind(("public", "item"), ITEM)
        heard.reader.read(notice, MOMENT.at)
    batch = heard.reader.take()
    assert len(batch.invalidation) == 4 + 2
    assert batch.invalidation.key_patterns == {b"item:*", b"slug:*"}
    assert heard.widened() == {WidenReason.BULK: 998}


def test_made_up_tables_and_columns_do_not_fill_the_memory() -> None:
    heard = Listening()
    for number in range(5000):
        made_up = [readable(table=f"table{number}"), readable()]
        for name in heard.reader.unknown(made_up):
            heard.reader.bind(name, ITEM if name == ("public", "item") else None)
        heard.reader.read(readable(new={"id": number, "slug": "a"}), MOMENT.at)
    wide = Relation(
        9, "public", "wide", "f", tuple(Column(f"c{number}", 25, is_identity=True) for number in range(600))
    )
    heard.reader.bind(("public", "wide"), wide)
    for number in range(600):
        heard.reader.read(parse(payload(table="wide", op="insert", new={f"c{number}": "x"})), MOMENT.at)
    tables = heard.reader._tables
    assert len(tables) <= 2001
    assert heard.state.source.notifications.counts["unknown_table"] == 0
    assert len(tables["public", "wide"].functions) <= 100


def test_a_table_that_was_altered_is_read_anew() -> None:
    heard = Listening()
    heard.hear(op="insert", new={"id": 1, "slug": "a"})
    assert heard.reader.unknown([readable()]) == []
    heard.reader.forget()
    assert heard.reader.unknown([readable()]) == [("public", "item")]
    other = Relation(7, "public", "other", "f", ITEM.columns)
    heard.reader.bind(("public", "item"), other)
    heard.reader.read(readable(new={"id": 2, "slug": "b"}), MOMENT.at)
    assert not heard.reader.take().invalidation


def test_other_rules_are_in_force_for_the_next_payload() -> None:
    heard = Listening()
    heard.hear(op="insert", new={"id": 1, "slug": "a"})
    heard.reader.swap(engine_of([rule("item", "other:{id}")], State()))
    assert heard.hear(op="insert", new={"id": 1, "slug": "a"}).keys == {b"other:1"}


def test_a_heartbeat_carries_its_position_and_what_came_before_it() -> None:
    heard = Listening()
    heard.reader.bind(("public", "item"), ITEM)
    heard.reader.read(readable(new={"id": 1, "slug": "a"}), MOMENT.at)
    assert heard.state.source.oldest_undelivered_commit == MOMENT.at
    heard.reader.beat(5.0, Lsn(99))
    batch = heard.reader.take()
    assert (batch.end, batch.heartbeat, batch.oldest_commit_time) == (Lsn(99), 5.0, MOMENT.at)
    assert batch.invalidation.keys == {b"item:1", b"slug:a"}
    assert heard.reader.take().end is None


def test_a_lookup_waits_for_nothing_but_what_has_ended() -> None:
    lookup = {"up": {"sql": "SELECT slug FROM item WHERE id = {id}"}}
    heard = Listening(ruleset_of([rule("item", "slug:{up.slug}", lookup=lookup)]))
    found = heard.hear(op="insert", new={"id": 1, "slug": "a"})
    assert found.lookup_transactions == {77: 999}
