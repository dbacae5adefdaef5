"""The pgoutput source against a real server: what it yields, what it confirms, how it fails."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest

from invalidator.errors import ConfigError, SlotInUse, SlotLost, SourceDisconnected
from invalidator.model import Batch, Invalidation, Lsn, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction, Rules
from invalidator.postgres import replication
from invalidator.postgres.connection import connect
from invalidator.postgres.reader import CHUNK
from invalidator.postgres.replication import ReplicationStream
from invalidator.postgres.side import SideConnection
from invalidator.sources.pgoutput import PgoutputSource, Settings
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.postgres import Database
from tests.support.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("quiet_logs")


@dataclass
class Recorder:
    """Rules that name each row by its message type, its relation and its first text column."""

    wanted: re.Pattern[str] = re.compile(r".*")
    bound: list[Relation] = field(default_factory=list)

    def bind(self, relation: Relation) -> RowFunction | None:
        self.bound.append(relation)
        if not self.wanted.fullmatch(relation.name):
            return None
        prefix = f"{relation.name} ".encode()

        def row(data: bytes, invalidation: Invalidation, transaction: Transaction) -> None:
            size = int.from_bytes(data[34:38])
            invalidation.keys.add(prefix + data[25:26] + b" " + data[38 : 38 + size])

        return row

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        invalidation.keys |= {f"{relation.name} T".encode() for relation in relations}

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        invalidation.key_patterns.add(f"{relation.name} {reason}".encode())


class Reading:
    """A source that reads in the background into a list of batches."""

    def __init__(self, source: PgoutputSource, rules: Rules) -> None:
        self.source = source
        self.batches: list[Batch] = []
        self.grown = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.task = asyncio.ensure_future(self._read(rules))

    async def _read(self, rules: Rules) -> None:
        try:
            async for batch in self.source.batches(rules):
                self.batches.append(batch)
                self.grown.set()
                await self.room.wait()
        finally:
            self.grown.set()

    @property
    def names(self) -> set[bytes]:
        return set().union(*(batch.invalidation.keys for batch in self.batches))

    @property
    def end(self) -> Lsn:
        return max((batch.end for batch in self.batches if batch.end is not None), default=Lsn(0))

    async def until(self, *names: bytes) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not set(names) <= self.names:
                if self.task.done():
                    self.task.result()
                self.grown.clear()
                await self.grown.wait()


@contextlib.asynccontextmanager
async def reading(database: Database, rules: Rules | None = None, **options: Any) -> AsyncIterator[Reading]:
    source = PgoutputSource(settings(database, **options), Events(State()))
    reader = Reading(source, rules or Recorder())
    try:
        yield reader
    finally:
        reader.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SourceDisconnected):
            await reader.task
        await source.close()
        await released(database)


async def released(database: Database) -> None:
    """Return when the server has noticed that nobody reads from the slot any more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await sql(database, "SELECT 1 FROM pg_replication_slots WHERE slot_name = current_database() AND active"):
            pass


def settings(database: Database, **options: Any) -> Settings:
    return Settings(
        type="pgoutput", dsn=database.dsn, slot=database.name, publication="p", status_seconds=0.1, **options
    )


@pytest.fixture
def shop(database: Database) -> Database:
    """A table, a publication and a slot."""
    database.execute("CREATE TABLE item (id int PRIMARY KEY, name text, body text)")
    publish(database, "item")
    return database


def publish(database: Database, tables: str) -> None:
    database.execute(f"CREATE PUBLICATION p FOR TABLE {tables}")
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", database.name)


async def sql(database: Database, statement: str) -> list[tuple[Any, ...]]:
    return await asyncio.to_thread(database.execute, statement)


async def confirmed(database: Database) -> Lsn:
    statement = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = current_database()"
    rows = await sql(database, statement)
    return Lsn.parse(rows[0][0])


async def test_rows_of_committed_transactions_arrive_and_those_of_rolled_back_ones_do_not(shop: Database) -> None:
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await sql(shop, "BEGIN; INSERT INTO item VALUES (2); ROLLBACK")
        await sql(
            shop, "BEGIN; SAVEPOINT s; INSERT INTO item VALUES (3); ROLLBACK TO s; INSERT INTO item VALUES (4); COMMIT"
        )
        await sql(shop, "UPDATE item SET name = 'x' WHERE id = 1")
        await sql(shop, "DELETE FROM item WHERE id = 1")
        await reader.until(b"public.item D 1")

        assert reader.names == {b"public.item I 1", b"public.item I 4", b"public.item U 1", b"public.item D 1"}


async def test_changes_made_while_nobody_read_arrive_afterwards(shop: Database) -> None:
    await sql(shop, "INSERT INTO item SELECT generate_series(1, 1000)")

    async with reading(shop) as reader:
        await reader.until(b"public.item I 1", b"public.item I 1000")

    assert len(reader.names) == 1000


async def test_nothing_is_confirmed_that_was_not_asked_for(shop: Database) -> None:
    before = await confirmed(shop)
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await reader.until(b"public.item I 1")
        first_end = reader.end
        await sql(shop, "INSERT INTO item VALUES (2)")
        await reader.until(b"public.item I 2")
        assert await confirmed(shop) == before

        reader.source.confirm(first_end)
        await eventually(shop, first_end)

    async with reading(shop) as again:
        await again.until(b"public.item I 2")
        assert again.names == {b"public.item I 2"}, "what was confirmed is not sent again, what was not is"


async def test_an_idle_source_moves_on_with_the_wal_of_others(shop: Database) -> None:
    await sql(shop, "CREATE TABLE unrelated (id int)")
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO unrelated SELECT generate_series(1, 10000)")
        target = Lsn.parse((await sql(shop, "SELECT pg_current_wal_lsn()::text"))[0][0])

        async with asyncio.timeout(DEADLINE_SECONDS):
            while reader.end < target:
                reader.grown.clear()
                await reader.grown.wait()

        assert reader.names == set()


async def test_rows_of_a_partition_carry_the_name_of_the_partitioned_table(database: Database) -> None:
    database.execute(
        "CREATE TABLE event (id int, day date) PARTITION BY RANGE (day);"
        "CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
        " PARTITION BY LIST (id);"
        "CREATE TABLE event_2026_1 PARTITION OF event_2026 FOR VALUES IN (1)"
    )
    publish(database, "event")
    async with reading(database) as reader:
        await sql(database, "INSERT INTO event VALUES (1, '2026-05-05')")
        await reader.until(b"public.event I 1")


async def test_truncating_several_tables_names_them_all(database: Database) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a)")
    publish(database, "a, b")
    async with reading(database) as reader:
        await sql(database, "TRUNCATE a CASCADE")
        await reader.until(b"public.a T", b"public.b T")


async def test_quoted_and_non_ascii_names_are_raw(database: Database) -> None:
    database.execute('CREATE SCHEMA "Über uns"; CREATE TABLE "Über uns"."It""em" (id int PRIMARY KEY)')
    publish(database, '"Über uns"."It""em"')
    async with reading(database) as reader:
        await sql(database, 'INSERT INTO "Über uns"."It""em" VALUES (1)')
        await reader.until('Über uns.It"em I 1'.encode())


async def test_types_origins_and_foreign_messages_are_passed_over(database: Database) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('good'); CREATE TABLE t (id int PRIMARY KEY, m mood, d int[])")
    publish(database, "t")
    database.execute("SELECT pg_replication_origin_create('elsewhere')")
    async with reading(database) as reader:
        await sql(
            database,
            "SELECT pg_replication_origin_session_setup('elsewhere');"
            "SELECT pg_logical_emit_message(true, 'somebody', 'hello');"
            "SELECT pg_logical_emit_message(false, 'invalidator.heartbeat', E'other_slot 17\\nx');"
            "INSERT INTO t VALUES (1, 'good', '{1,2}')",
        )
        await reader.until(b"public.t I 1")
    database.execute("SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('elsewhere')")


async def test_a_changed_table_is_bound_anew_before_its_next_row(shop: Database) -> None:
    rules = Recorder()
    async with reading(shop, rules) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await reader.until(b"public.item I 1")
        await sql(shop, "ALTER TABLE item ADD COLUMN price int")
        await sql(shop, "INSERT INTO item VALUES (2)")
        await reader.until(b"public.item I 2")

    assert [len(relation.columns) for relation in rules.bound] == [3, 4]


async def test_rows_that_no_rule_wants_are_skipped_and_counted(shop: Database) -> None:
    state = State()
    source = PgoutputSource(settings(shop), Events(state))
    reader = Reading(source, Recorder(wanted=re.compile("other")))
    await sql(shop, "INSERT INTO item SELECT generate_series(1, 500)")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while state.source.rows_without_rule < 500:
            reader.grown.clear()
            await reader.grown.wait()
    reader.task.cancel()
    await source.close()

    assert reader.names == set()


async def test_reading_pauses_at_the_bound_while_the_consumer_is_busy_and_the_server_still_hears_of_us(
    shop: Database,
) -> None:
    await sql(shop, "INSERT INTO item SELECT i, 'n', repeat('x', 1000) FROM generate_series(1, 20000) i")
    async with reading(shop, max_batch_items=100) as reader:
        reader.room.clear()
        await reader.until()
        statement = "SELECT reply_time FROM pg_stat_replication WHERE application_name LIKE 'invalidator/%'"
        seen: set[object] = set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(seen) < 4:
                seen |= {row[0] for row in await sql(shop, statement) if row[0] is not None}
        assert len(reader.batches) <= 1
        assert reader.source._session is not None
        assert len(reader.source._session._reader) < 100 + CHUNK

        reader.room.set()
        await reader.until(b"public.item I 20000")

    assert len(reader.names) == 20000


async def test_a_transaction_that_names_nothing_and_exceeds_the_bound_of_bytes_is_passed(shop: Database) -> None:
    async with reading(shop, Recorder(wanted=re.compile("other")), max_batch_bytes=65536) as reader:
        await sql(shop, "INSERT INTO item SELECT i, 'n', repeat('x', 1000) FROM generate_series(1, 5000) i")
        target = Lsn.parse((await sql(shop, "SELECT pg_current_wal_lsn()::text"))[0][0])

        async with asyncio.timeout(DEADLINE_SECONDS):
            while reader.end < target:
                reader.grown.clear()
                await reader.grown.wait()


async def test_an_idle_stream_counts_as_alive_by_what_is_no_row(shop: Database) -> None:
    async with reading(shop, heartbeat_seconds=0.05) as reader:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while reader.source._session is None or not reader.batches:
                reader.grown.clear()
                await reader.grown.wait()
            session = reader.source._session
            first = session._heard_at
            while session._heard_at == first:
                reader.grown.clear()
                await reader.grown.wait()
        assert reader.names == set()


async def test_a_slot_that_went_away_meanwhile_is_a_hole_and_not_made_anew(shop: Database) -> None:
    made: list[str] = []

    async def prepare(side: SideConnection, *, is_first: bool) -> None:
        made.append("may create" if is_first else "must not")

    source = PgoutputSource(settings(shop), Events(State()), prepare=prepare)
    reader = Reading(source, Recorder())
    await sql(shop, "INSERT INTO item VALUES (1)")
    await reader.until(b"public.item I 1")
    await source.close()
    reader.task.cancel()
    await released(shop)
    await sql(shop, "SELECT pg_drop_replication_slot(current_database())")

    with pytest.raises(SlotLost, match="changes are missing"):
        async for _ in source.batches(Recorder()):
            pass
    assert made == ["may create", "must not"]


async def test_a_publication_that_hides_partitions_is_refused(database: Database) -> None:
    database.execute("CREATE TABLE event (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    database.execute("CREATE PUBLICATION p FOR TABLE event WITH (publish_via_partition_root = true)")
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", database.name)

    with pytest.raises(ConfigError, match="TRUNCATE of a partition"):
        async for _ in PgoutputSource(settings(database), Events(State())).batches(Recorder()):
            pass


async def test_a_heartbeat_comes_back_through_the_wal(shop: Database) -> None:
    async with reading(shop, heartbeat_seconds=0.05) as reader:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not any(batch.heartbeat for batch in reader.batches):
                reader.grown.clear()
                await reader.grown.wait()


def system_of(reader: Reading) -> str:
    """Which cluster it reads from."""
    (start,) = (batch.start for batch in reader.batches if batch.start is not None)
    return start.system


async def test_a_second_reader_of_the_slot_stands_by_until_the_first_is_gone(shop: Database) -> None:
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await reader.until(b"public.item I 1")

        with pytest.raises(SlotInUse) as caught:
            async for _ in PgoutputSource(settings(shop), Events(State())).batches(Recorder()):
                pass
        assert caught.value.holder_pid
        assert caught.value.system == system_of(reader)

    async with reading(shop) as successor:
        await successor.until(b"public.item I 1")


async def test_what_streamed_to_us_before_is_no_other_daemon(shop: Database) -> None:
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await reader.until(b"public.item I 1")
        own = reader.source._process
        ((pid,),) = await sql(shop, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = current_database()")
        assert own is not None
        assert (own.pid, own.started is not None) == (pid, True)

        again = PgoutputSource(settings(shop), Events(State()))
        again._process = own  # as after a connection that we know to be lost, and the server does not
        for _ in range(2):
            with pytest.raises(SourceDisconnected, match=rf"our own last connection .*PID {pid}\b") as caught:
                await anext(aiter(again.batches(Recorder())))
            assert caught.value.reason == "own_connection"
        again._process = replace(own, started=None)  # the same number after a restart of the server
        with pytest.raises(SlotInUse):
            await anext(aiter(again.batches(Recorder())))


async def test_while_it_stands_by_only_the_slot_is_looked_at_and_a_slot_that_goes_is_a_hole(shop: Database) -> None:
    looks: list[bool] = []

    async def prepare(side: SideConnection, *, is_first: bool) -> None:
        looks.append(is_first)

    second = PgoutputSource(settings(shop), Events(State()), prepare=prepare)
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await reader.until(b"public.item I 1")
        for _ in range(3):
            with pytest.raises(SlotInUse) as caught:
                await anext(aiter(second.batches(Recorder())))
            assert caught.value.system == system_of(reader)
        assert looks == [True]
    await sql(shop, "SELECT pg_drop_replication_slot(current_database())")

    with pytest.raises(SlotLost, match="changes are missing"):
        await anext(aiter(second.batches(Recorder())))
    assert looks == [True, False]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("SELECT pg_drop_replication_slot(current_database())", "there is no replication slot"),
        ("DROP PUBLICATION p", "there is no publication 'p'"),
        (
            "SELECT pg_drop_replication_slot(current_database());"
            "SELECT pg_create_logical_replication_slot(current_database(), 'test_decoding')",
            "plugin 'test_decoding'",
        ),
    ],
)
async def test_a_wrong_setup_is_a_configuration_error_that_says_what_to_run(
    shop: Database, spoil: str, message: str
) -> None:
    await sql(shop, spoil)

    with pytest.raises(ConfigError, match=message) as caught:
        async for _ in PgoutputSource(settings(shop), Events(State())).batches(Recorder()):
            pass
    assert caught.value.fix


async def test_a_slot_that_goes_while_it_is_looked_at_is_a_hole_and_no_wrong_setup(shop: Database) -> None:
    async def drop(side: SideConnection, *, is_first: bool) -> None:
        assert is_first
        await side.fetch("SELECT pg_drop_replication_slot(current_database())")

    with pytest.raises(SlotLost, match=r"was there before.*changes are missing"):
        await anext(aiter(PgoutputSource(settings(shop), Events(State()), prepare=drop).batches(Recorder())))
    with pytest.raises(SlotLost, match="is gone"):
        await ReplicationStream.open(shop.dsn, slot=shop.name, publication="p")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"dbname": "nowhere"}, "nowhere"), ({"user": "nobody_here"}, "nobody_here"), ({"port": "1"}, "refused")],
)
async def test_a_wrong_address_says_which_part(shop: Database, change: dict[str, str], message: str) -> None:
    dsn = psycopg.conninfo.make_conninfo(shop.dsn, **change)
    source = PgoutputSource(Settings(type="pgoutput", dsn=dsn), Events(State()))

    with pytest.raises((ConfigError, SourceDisconnected), match=message) as caught:
        async for _ in source.batches(Recorder()):
            pass
    assert isinstance(caught.value, SourceDisconnected) == ("port" in change)


async def test_an_ended_connection_is_a_disconnection_and_the_next_call_goes_on(shop: Database) -> None:
    async with reading(shop) as reader:
        await sql(shop, "INSERT INTO item VALUES (1)")
        await reader.until(b"public.item I 1")
        await sql(shop, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

        with pytest.raises(SourceDisconnected):
            await asyncio.wait_for(reader.task, DEADLINE_SECONDS)

    async with reading(shop) as again:
        await again.until(b"public.item I 1")


async def eventually(database: Database, position: Lsn) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await confirmed(database) < position:
            pass


async def test_a_server_that_hangs_while_replication_starts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_START_SECONDS", 0.1)
    ended = asyncio.Event()

    async def log_in_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
        writer.write(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")  # welcome, ready for a query
        while await reader.read(1000):
            pass
        ended.set()
        writer.close()

    async with await asyncio.start_server(log_in_and_hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        dsn = f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable"
        with pytest.raises(SourceDisconnected, match=r"starting replication from slot 's': no answer within 0.1 s"):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await ReplicationStream.open(dsn, slot="s", publication="p")
        await ended.wait()


@pytest.mark.parametrize("replication", [True, False])
async def test_no_setting_of_the_server_limits_how_long_a_transaction_may_take_to_be_read(
    database: Database, *, replication: bool
) -> None:
    if int(database.execute("SHOW server_version_num")[0][0]) < 170000:
        pytest.skip("transaction_timeout is new in 17")
    database.execute(f"ALTER DATABASE {database.name} SET transaction_timeout = '1h'")
    connection = await connect(database.dsn, replication=replication, application_name="test")
    try:
        cursor = await connection.execute("SHOW transaction_timeout")
        assert await cursor.fetchone() == ("0",)
    finally:
        await connection.close()
