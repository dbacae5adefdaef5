"""Lookups over a real stream: related rows are found, what cannot be found out widens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from invalidator.demo.servers import PostgresServer
from invalidator.model import Operation
from tests.support.lookups import LookupStream
from tests.support.postgres import Database
from tests.support.processes import DEADLINE_SECONDS
from tests.support.standby import Standby

pytestmark = pytest.mark.usefixtures("quiet_logs")

ITEMS = """
  - name: item
    table: public.item
    lookup:
      order:
        sql: |
          SELECT o.user_id, o.note -- the parent
          FROM orders o
          WHERE o.id = {order_id}
        limit: 3
    invalidate:
      keys: ["item:{id}", "user:{order.user_id}:orders"]
      l1: ["user:{order.user_id}:*"]
      tags: ["note:{order.note|default:'none'}", "both:{order.user_id}:{id}"]
    coarse: {tags: [all-users]}
"""


@pytest.fixture
async def stream(database: Database, tmp_path: Path) -> AsyncIterator[LookupStream]:
    made = LookupStream(database.dsn, tmp_path, database.name)
    await made.sql("CREATE TABLE orders (id bigint PRIMARY KEY, user_id int, note text)")
    await made.sql("CREATE TABLE item (id int PRIMARY KEY, order_id bigint)")
    await made.sql("ALTER TABLE item REPLICA IDENTITY FULL")
    await made.sql("INSERT INTO orders SELECT n, 100 + n, NULL FROM generate_series(1, 2000) n")
    yield made
    await made.close()


async def test_a_child_that_moves_between_parents_invalidates_both(stream: LookupStream) -> None:
    await stream.sql("INSERT INTO item VALUES (1, 10)")
    async with stream.streaming(ITEMS, "item"):
        made = await stream.names("UPDATE item SET order_id = 11 WHERE id = 1")
    assert made.keys == {b"item:1", b"user:110:orders", b"user:111:orders"}
    assert made.l1 == {b"user:110:*", b"user:111:*"}
    assert made.tags == {b"note:none", b"both:110:1", b"both:111:1"}
    state = stream.state.rules["item"]
    assert not state.widened
    assert state.lookups == {"ok": 2, "overflow": 0}
    assert sum(state.lookup_duration.counts) == 1  # both images in one statement


async def test_a_deleted_child_finds_its_parent(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item"):
        made = await stream.names("INSERT INTO item VALUES (1, 10)", "DELETE FROM item")
    assert b"user:110:orders" in made.keys


async def test_a_null_parameter_asks_nothing(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item"):
        made = await stream.names("INSERT INTO item VALUES (1, NULL)")
    assert made.keys == {b"item:1"}
    state = stream.state.rules["item"]
    assert state.null_skips == 1
    assert not state.lookups


async def test_the_same_question_is_asked_once(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item"):
        made = await stream.names("INSERT INTO item SELECT n, 1 + n % 2 FROM generate_series(1, 200) n")
    assert {name for name in made.keys if name.startswith(b"user")} == {b"user:101:orders", b"user:102:orders"}
    assert len({name for name in made.tags if name.startswith(b"both")}) == 200
    state = stream.state.rules["item"]
    assert state.lookups["ok"] == 2 * sum(state.lookup_duration.counts)  # a transaction may come in several batches


async def test_a_thousand_rows_of_one_batch_are_few_statements(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item"):
        await stream.names("INSERT INTO item VALUES (0, NULL)")  # the table is known
        stream.delivered.is_open.clear()
        await stream.everything_until_now()  # is delivered, and holds the next batch back until all of it has come
        await stream.sql("INSERT INTO item SELECT n, n FROM generate_series(1, 1000) n")
        rows = stream.state.tables["public.item"].rows
        async with asyncio.timeout(DEADLINE_SECONDS):
            while rows[Operation.INSERT] <= 1000:  # noqa: ASYNC110  (plain integers)
                await asyncio.sleep(0.005)
        stream.delivered.is_open.set()
        made = await stream.everything_until_now()
    assert {f"user:{n + 100}:orders".encode() for n in range(1, 1001)} <= made.keys
    state = stream.state.rules["item"]
    assert state.lookups["ok"] == 1000
    assert sum(state.lookup_duration.counts) == 1


MANY = """
  - name: author
    table: public.author
    lookup:
      post: {sql: "SELECT p.id, p.slug FROM post p WHERE p.author_id = {id}", limit: 3}
    invalidate:
      keys: ["post:{post.slug}"]
      cdn: ["post-{post.id}"]
    soft: true
    repeat_after: [500ms]
    coarse: {tags: ["all-posts"], cdn: ["posts"]}
"""


async def test_more_rows_than_the_limit_widen_that_row_alone(stream: LookupStream) -> None:
    await stream.sql("CREATE TABLE author (id int PRIMARY KEY, name text)")
    await stream.sql("CREATE TABLE post (id int, slug text, author_id int)")
    await stream.sql("INSERT INTO post SELECT n, 's' || n, 1 FROM generate_series(1, 4) n")
    await stream.sql("INSERT INTO post VALUES (11, 'a', 2), (12, 'b', 2), (13, NULL, 2)")
    async with stream.streaming(MANY, "author"):
        made = await stream.names("INSERT INTO author VALUES (1), (2)")
    assert made.keys == {b"post:a", b"post:b"}
    assert made.tags == {b"all-posts"}
    assert made.cdn_soft == {b"post-11", b"post-12", b"post-13", b"posts"}
    repeated = made.repeats[(0.5,)]
    assert (repeated.keys, repeated.tags, repeated.cdn_soft) == (made.keys, made.tags, made.cdn_soft)
    state = stream.state.rules["author"]
    assert state.widened == {"lookup_overflow": 1}
    assert state.lookups == {"ok": 1, "overflow": 1}
    assert state.null_skips == 1  # the key of the post without a slug


async def answered(stream: LookupStream, key: bytes) -> None:
    """Return when order 10 is looked up again after a failure."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while key not in (await stream.names("DELETE FROM item", "INSERT INTO item VALUES (2, 10)")).keys:
            pass


async def test_a_slow_answer_widens_and_the_next_one_is_waited_for(stream: LookupStream) -> None:
    rule = ITEMS.replace("o.id = {order_id}", "o.id = {order_id} AND (SELECT pg_sleep(nap) IS NOT NULL FROM slow)")
    await stream.sql("CREATE TABLE slow (nap float8)")
    await stream.sql("INSERT INTO slow VALUES (60)")
    async with stream.streaming(rule, "item", timeout_seconds=1):  # long enough to connect in it
        made = await stream.names("INSERT INTO item VALUES (1, 10)")
        assert made.tags == {b"all-users"}
        state = stream.state.rules["item"]
        assert state.widened == {"lookup_timeout": 1}
        assert state.lookups == {"timeout": 1}
        assert state.lookup_error == "no answer within 1 s"
        await stream.sql("UPDATE slow SET nap = 0")
        await answered(stream, b"user:110:orders")
        assert state.lookup_error is None


async def test_a_lookup_may_have_a_timeout_of_its_own(stream: LookupStream) -> None:
    rule = ITEMS.replace("o.id = {order_id}", "o.id = {order_id} AND pg_sleep(60) IS NOT NULL")
    async with stream.streaming(rule.replace("limit: 3", "timeout: 1s"), "item", timeout_seconds=50):
        await stream.names("INSERT INTO item VALUES (1, 10)")
    assert stream.state.rules["item"].lookup_error == "no answer within 1 s"


async def test_texts_do_not_depend_on_how_the_database_writes_them(stream: LookupStream) -> None:
    values = ("2026-02-01", "2026-02-01 10:11:12+00", "1 day 02:00:00")
    rule = (
        "  - name: thing\n    table: public.thing\n    events: [insert]\n    lookup:\n      same:\n"
        "        sql: SELECT t.d, t.t, t.i FROM thing t WHERE t.d = {d} AND t.t = {t} AND t.i = {i}\n"
        '    invalidate: {tags: ["at {same.d} {same.t} {same.i}"]}\n    coarse: {tags: [all]}\n'
    )
    await stream.sql("CREATE TABLE thing (id int PRIMARY KEY, d date, t timestamptz, i interval)")
    ((name,),) = await stream.sql("SELECT quote_ident(current_database())")
    for setting in ("DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Tokyo'", "IntervalStyle = 'iso_8601'"):
        await stream.sql(f"ALTER DATABASE {name} SET {setting}")
    async with stream.streaming(rule, "thing"):
        await stream.sql("INSERT INTO thing VALUES (1, %s, %s, %s)", *values)
        made = await stream.everything_until_now()
    assert made.tags == {" ".join(("at", *values)).encode()}


SLOW = """
  - name: slow-{0}
    table: public.item
    lookup:
      order:
        sql: "SELECT o.user_id FROM orders o WHERE o.id = {{order_id}} AND pg_sleep(60) IS NOT NULL"
        timeout: {1}
    invalidate: {{keys: ["slow-{0}:{{order.user_id}}"]}}
    coarse: {{tags: ["all-slow-{0}"]}}
"""


async def test_the_wait_for_a_connection_is_part_of_the_timeout(stream: LookupStream) -> None:
    timeouts = ("2s", "2s", "100ms", "100ms", "100ms")
    rules = "".join(SLOW.format(number, timeout) for number, timeout in enumerate(timeouts))
    async with stream.streaming(rules, "item", connections=2):
        made = await stream.names("INSERT INTO item VALUES (1, 10)")
    assert made.tags == {b"all-slow-%d" % number for number in range(5)}
    states = [stream.state.rules[f"slow-{number}"] for number in range(5)]
    assert all(state.lookups == {"timeout": 1} for state in states)
    assert [sum(state.lookup_duration.counts) for state in states] == [1, 1, 0, 0, 0]  # the others had no turn
    assert states[4].lookup_error == "no connection of lookups.connections was free within 0.1 s"


async def test_a_lookup_that_failed_is_not_asked_until_its_back_off_is_over(
    stream: LookupStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invalidator.postgres.lookup_breaker.FIRST_SECONDS", 60.0)
    monkeypatch.setattr("invalidator.postgres.lookup_breaker.MAX_SECONDS", 60.0)
    async with stream.streaming(ITEMS, "item"):
        await stream.sql("ALTER TABLE orders RENAME TO gone")
        await stream.names("INSERT INTO item VALUES (1, 10)")
        await stream.sql("ALTER TABLE gone RENAME TO orders")
        made = await stream.names("INSERT INTO item VALUES (2, 10)")
        assert made.tags == {b"all-users"}
        state = stream.state.rules["item"]
        assert state.lookups == {"error": 2}
        assert sum(state.lookup_duration.counts) == 1
        assert state.lookup_error == 'relation "orders" does not exist'


async def test_a_type_that_gets_another_name_is_looked_up_again(stream: LookupStream) -> None:
    await stream.sql("CREATE TYPE mood AS ENUM ('happy')")
    await stream.sql("ALTER TABLE item ADD mood mood DEFAULT 'happy'")
    rule = ITEMS.replace("o.id = {order_id}", "o.id = {order_id} AND {mood}::text = 'happy'")
    async with stream.streaming(rule, "item", connections=1):
        made = await stream.names("INSERT INTO item VALUES (1, 10)")
        assert b"user:110:orders" in made.keys
        await stream.sql("ALTER TYPE mood RENAME TO temper")
        await answered(stream, b"user:110:orders")


async def test_an_error_widens_and_is_told(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item"):
        await stream.sql("ALTER TABLE orders RENAME TO gone")
        made = await stream.names("INSERT INTO item VALUES (1, 10)")
        assert made.tags == {b"all-users"}
        state = stream.state.rules["item"]
        assert state.widened == {"lookup_error": 1}
        assert state.lookup_error == 'relation "orders" does not exist'
        await stream.sql("ALTER TABLE gone RENAME TO orders")
        await answered(stream, b"user:110:orders")
        assert state.lookup_failing_since is None


async def test_a_column_that_the_result_lacks_widens(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS.replace("order.note", "order.notes"), "item"):
        made = await stream.names("INSERT INTO item VALUES (1, 10)")
    assert made.tags == {b"all-users"}
    error = stream.state.rules["item"].lookup_error
    assert error is not None
    assert "order.notes" in error
    assert "user_id, note" in error


async def test_no_message_of_postgres_carries_a_value_of_a_row(stream: LookupStream) -> None:
    await stream.sql("ALTER TABLE item ADD secret text")
    rule = ITEMS.replace("o.id = {order_id}", "o.id = {secret}::bigint")
    async with stream.streaming(rule, "item"):
        await stream.names("INSERT INTO item VALUES (1, 10, 'hunter2')")
    assert stream.state.rules["item"].lookup_error == "InvalidTextRepresentation (22P02)"


async def test_a_killed_connection_is_replaced(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item"):
        await stream.names("INSERT INTO item VALUES (1, 10)")
        killed = await stream.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'invalidator/lookups' AND datname = current_database()"
        )
        assert killed == [(True,)]
        made = await stream.names("INSERT INTO item VALUES (2, 11)")
    assert b"user:111:orders" in made.keys
    assert not stream.state.rules["item"].widened


async def test_a_server_that_is_not_there_widens_at_once(stream: LookupStream) -> None:
    async with stream.streaming(ITEMS, "item", dsn="postgresql://nobody@127.0.0.1:1/nowhere"):
        made = await stream.names("INSERT INTO item VALUES (1, 10)", "INSERT INTO item VALUES (2, 10)")
    assert made.tags == {b"all-users"}
    error = stream.state.rules["item"].lookup_error
    assert error is not None
    assert "Connection refused" in error


async def test_a_lookup_cannot_write(stream: LookupStream) -> None:
    await stream.sql(
        "CREATE FUNCTION sly(bigint) RETURNS bigint LANGUAGE sql AS "
        "'INSERT INTO orders VALUES ($1 + 1000000) RETURNING id'"
    )
    async with stream.streaming(ITEMS.replace("o.id = {order_id}", "o.id = sly({order_id})"), "item"):
        await stream.names("INSERT INTO item VALUES (1, 10)")
    assert stream.state.rules["item"].lookup_error == "cannot execute INSERT in a read-only transaction"
    assert await stream.sql("SELECT count(*) FROM orders WHERE id > 1000000") == [(0,)]


async def test_the_session_cannot_be_made_writable(stream: LookupStream) -> None:
    rule = ITEMS.replace(
        "o.id = {order_id}", "o.id = {order_id} AND set_config('transaction_read_only', 'off', true) = 'off'"
    )
    async with stream.streaming(rule, "item"):
        await stream.names("INSERT INTO item VALUES (1, 10)")
    assert stream.state.rules["item"].widened == {"lookup_error": 1}


HOSTILE = (
    "plain",
    "it's",
    'say "x"',
    "back\\slash",
    "{braces},NULL",
    "NULL",
    "",
    " lead",
    "; DROP TABLE thing; --",
    "*?[x]",
    "ü☃\U0001f600",
    "line\nbreak\ttab",
    "$1 %s {id}",
)

TYPES = """
  - name: thing
    table: public.thing
    events: [insert]
    lookup:
      same:
        sql: >-
          SELECT t.id, t.v::text AS v FROM thing t WHERE t.v IS NOT DISTINCT FROM {v}
    invalidate: {keys: ["same:{same.id}"], tags: ["v:{same.v}"]}
"""


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", HOSTILE),
        ("varchar(40)", HOSTILE),
        ("char(12)", ("ab", "c d")),
        ("uuid", ("2f1b7a3e-0000-4000-8000-000000000001",)),
        ("bytea", ("\\x00ff5c22", "\\x")),
        ("mood", ("happy", 'very "sad"', "o{h, n}o")),
        ("spot", ("(1,a)", '(2,"b ""c"", d")', "(,)")),
        ("int[]", ("{1,2}", "{}", "{NULL,3}")),
        ("text[]", ('{a,"b c","d\\"e"}',)),
        ("even", ("2", "40")),
        ("timestamptz", ("2026-01-02 03:04:05.678901+00", "infinity")),
        ("interval", ("1 day 02:00:00",)),
        ("float8", ("0.1", "1e300", "NaN")),
        ("numeric", ("12345678901234567890.123456789",)),
        ("jsonb", ('{"a": ["b", null]}',)),
        ("bool", ("t", "f")),
        ("inet", ("10.0.0.1/8",)),
        ("bit(3)", ("101",)),
        ("int4range", ("[1,5)",)),
        ('"Od d"."My ""Type"', ("x",)),
    ],
)
async def test_values_of_every_type_arrive_as_they_are(
    stream: LookupStream, kind: str, values: tuple[str, ...]
) -> None:
    await stream.sql("""CREATE TYPE mood AS ENUM ('happy', 'very "sad"', 'o{h, n}o')""")
    await stream.sql("CREATE TYPE spot AS (n int, t text)")
    await stream.sql("CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0)")
    await stream.sql('CREATE SCHEMA "Od d"')
    await stream.sql("""CREATE TYPE "Od d"."My ""Type" AS ENUM ('x', 'y')""")
    await stream.sql(f"CREATE TABLE thing (id int PRIMARY KEY, v {kind})")
    async with stream.streaming(TYPES, "thing"):
        for number, value in enumerate(values):
            await stream.sql(f"INSERT INTO thing VALUES (%s, %s::{kind})", number, value)  # noqa: S608  (of the test)
        made = await stream.everything_until_now()
    state = stream.state.rules["thing"]
    assert (state.lookup_error, dict(state.widened)) == (None, {})
    assert made.keys == {f"same:{number}".encode() for number in range(len(values))}


async def test_many_chunks_find_everything(stream: LookupStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invalidator.postgres.lookups.ROWS_PER_STATEMENT", 40)  # ten rows with a limit of three
    async with stream.streaming(ITEMS, "item"):
        made = await stream.names("INSERT INTO item SELECT n, n FROM generate_series(1, 95) n")
    assert {f"user:{n + 100}:orders".encode() for n in range(1, 96)} <= made.keys
    state = stream.state.rules["item"]
    assert state.lookups["ok"] == 95
    assert sum(state.lookup_duration.counts) >= 10


TWO = """
  - name: item
    table: public.item
    lookup:
      order: {sql: "SELECT o.user_id FROM orders o WHERE o.id = {order_id}"}
      sibling: {sql: "SELECT i.id FROM item i WHERE i.order_id = {new.order_id} AND {meta.table} = 'item'"}
    invalidate: {keys: ["user:{order.user_id}", "item:{sibling.id}", "moved:{order.user_id}:{old.id}"]}
"""


async def test_two_lookups_of_a_rule_and_one_connection(stream: LookupStream) -> None:
    await stream.sql("INSERT INTO item VALUES (1, 10), (2, 10), (3, 11)")
    async with stream.streaming(TWO, "item", connections=1):
        made = await stream.names("UPDATE item SET order_id = 11 WHERE id = 1", "INSERT INTO item VALUES (4, 12)")
    assert made.keys == {
        b"user:110",
        b"user:111",
        b"user:112",
        b"item:1",
        b"item:3",
        b"item:4",
        b"moved:110:1",
        b"moved:111:1",
    }


# -- visibility ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def held_commit(stream: LookupStream, *statements: str) -> AsyncIterator[None]:
    """A transaction that is in the WAL, and decoded, but visible only at the end of the block.

    Its commit waits for a synchronous standby that does not exist.
    """
    connection = await psycopg.AsyncConnection.connect(stream.dsn)
    await connection.execute("SET synchronous_commit = on")
    for statement in statements:
        await connection.execute(statement)
    pid = connection.info.backend_pid
    commit = asyncio.ensure_future(connection.commit())
    try:
        waiting = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await stream.sql(waiting, pid) != [("SyncRep",)]:
                assert not commit.done()
        yield
    finally:
        await stream.sql("SELECT pg_cancel_backend(%s)", pid)
        await commit  # a warning: the commit stands, the standby may not have it
        await connection.close()


@pytest.fixture
async def waiting(crashable_postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[LookupStream]:
    """A stream from a server whose commits wait for an absent standby, unless they say that they do not."""
    made = LookupStream(crashable_postgres.dsn(), tmp_path, "waiting")
    await made.sql("SET synchronous_commit = local")
    await made.sql("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    await made.sql("SELECT pg_reload_conf()")
    await made.sql("CREATE TABLE orders (id bigint PRIMARY KEY, user_id int, note text)")
    await made.sql("CREATE TABLE item (id int PRIMARY KEY, order_id bigint)")
    await made.sql("ALTER TABLE item REPLICA IDENTITY FULL")
    await made.sql("INSERT INTO orders VALUES (1, 7), (2, 9)")
    yield made
    await made.close()


async def polls(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Return when a lookup has ended a transaction there: it either may not ask yet, or has asked already."""
    asking = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'invalidator/lookups' AND query = 'ROLLBACK'"
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await (await connection.execute(asking)).fetchall() == [(0,)]:
            pass


async def test_a_lookup_waits_until_it_sees_the_commit(waiting: LookupStream) -> None:
    async with waiting.streaming(ITEMS, "item", timeout_seconds=30):
        held = held_commit(waiting, "UPDATE orders SET user_id = 8 WHERE id = 1", "INSERT INTO item VALUES (1, 1)")
        async with held:
            await polls(await waiting.connection())
            assert await waiting.sql("SELECT user_id FROM orders WHERE id = 1") == [(7,)]
            assert not waiting.delivered.everything
        made = await waiting.everything_until_now()
    assert made.keys == {b"item:1", b"user:8:orders"}
    assert not waiting.state.rules["item"].widened


async def test_a_commit_that_stays_invisible_widens(waiting: LookupStream) -> None:
    streaming = waiting.streaming(ITEMS, "item", timeout_seconds=1)
    async with streaming, held_commit(waiting, "INSERT INTO item VALUES (1, 1)"):
        made = await waiting.everything_until_now()
        assert await waiting.sql("SELECT count(*) FROM item") == [(0,)]
    assert made.tags == {b"all-users"}
    assert made.keys == {b"item:1"}
    assert waiting.state.rules["item"].widened == {"lookup_timeout": 1}


async def test_a_lookup_on_a_standby_waits_until_it_has_replayed_the_commit(
    crashable_postgres: PostgresServer, tmp_path: Path
) -> None:
    stream = LookupStream(crashable_postgres.dsn(), tmp_path, "standby")
    await stream.sql("CREATE TABLE orders (id bigint PRIMARY KEY, user_id int, note text)")
    await stream.sql("CREATE TABLE item (id int PRIMARY KEY, order_id bigint)")
    await stream.sql("ALTER TABLE item REPLICA IDENTITY FULL")
    await stream.sql("INSERT INTO orders VALUES (1, 7)")
    standby = await asyncio.to_thread(Standby, crashable_postgres)
    replica = await psycopg.AsyncConnection.connect(standby.dsn(), autocommit=True)
    try:
        async with stream.streaming(ITEMS, "item", dsn=standby.dsn(), timeout_seconds=30):
            await replica.execute("SELECT pg_wal_replay_pause()")
            await stream.sql("UPDATE orders SET user_id = 8")
            await stream.sql("INSERT INTO item VALUES (1, 1)")
            await polls(replica)
            assert not stream.delivered.everything
            await replica.execute("SELECT pg_wal_replay_resume()")
            made = await stream.everything_until_now()
        assert made.keys == {b"item:1", b"user:8:orders"}
        assert not stream.state.rules["item"].widened
    finally:
        await replica.close()
        await stream.close()
        await asyncio.to_thread(standby.close)
