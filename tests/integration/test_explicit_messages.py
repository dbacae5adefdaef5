"""Logical messages of applications over a real stream: in order, transactional, and never fatal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from invalidator.model import Invalidation
from invalidator.rules.engine import Engine
from invalidator.rules.explicit import ExplicitInvalidation, Verdict
from invalidator.rules.rule import RuleSet
from invalidator.sources.pgoutput import PgoutputSource, Settings
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.postgres import Database, Server, own_database
from tests.support.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("quiet_logs")


class Stream:
    """What a source with explicit messages has yielded so far."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.invalidations: list[Invalidation] = []
        self.grown = asyncio.Event()

    @property
    def keys(self) -> set[bytes]:
        return set().union(*(invalidation.keys for invalidation in self.invalidations))

    async def until(self, key: bytes) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while key not in self.keys:
                self.grown.clear()
                await self.grown.wait()


@contextlib.asynccontextmanager
async def stream(database: Database) -> AsyncIterator[Stream]:
    database.execute("CREATE PUBLICATION p")
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", database.name)
    state = State()
    options = Settings(type="pgoutput", dsn=database.dsn, slot=database.name, publication="p", status_seconds=0.1)
    messages = ExplicitInvalidation({"keys": ["cms:"]}, grammars=[], state=state.source.messages)
    source = PgoutputSource(options, Events(state), on_message=messages)
    seen = Stream(state)

    async def read() -> None:
        rules = Engine(RuleSet((), ""), states=state.rules, tables=state.tables)
        async for batch in source.batches(rules):
            seen.invalidations.append(batch.invalidation)
            seen.grown.set()

    reading = asyncio.create_task(read())
    try:
        yield seen
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await source.close()


def emit(content: str, *, prefix: str = "invalidator", transactional: str = "true") -> str:
    return f"SELECT pg_logical_emit_message({transactional}, '{prefix}', $msg${content}$msg$)"


async def sql(database: Database, statement: str) -> None:
    await asyncio.to_thread(database.execute, statement)


async def test_a_message_arrives_with_its_transaction_and_a_rolled_back_one_never(database: Database) -> None:
    async with stream(database) as seen:
        await sql(database, "BEGIN; " + emit('{"keys": ["cms:gone"]}') + "; ROLLBACK")
        await sql(database, "BEGIN; " + emit('{"keys": ["cms:1"]}') + "; COMMIT")
        await seen.until(b"cms:1")
        assert seen.keys == {b"cms:1"}
        assert seen.state.source.messages.counts == {Verdict.APPLIED: 1}


async def test_messages_are_read_in_the_encoding_of_the_database(postgres_server: Server) -> None:
    with own_database(postgres_server, "ENCODING 'LATIN1' LOCALE 'C'") as database:
        async with stream(database) as seen:
            await sql(database, emit('{"keys": ["cms:café"]}'))
            await sql(database, emit('{"keys": ["cms:last"]}'))
            await seen.until(b"cms:last")
            assert seen.keys == {"cms:café".encode(), b"cms:last"}
            assert seen.state.source.messages.counts == {Verdict.APPLIED: 2}


async def test_bad_messages_are_counted_and_the_stream_goes_on(database: Database) -> None:
    async with stream(database) as seen:
        await sql(database, emit("no json"))
        await sql(database, emit('{"keys": ["shop:secret"]}'))
        await sql(database, emit('{"keys": ["cms:early"]}', transactional="false"))
        await sql(database, "SELECT pg_logical_emit_message(true, 'invalidator', '\\xff00'::bytea)")
        await sql(database, "SELECT pg_logical_emit_message(true, 'invalidator', repeat('x', 20 * 1024 * 1024))")
        await sql(database, emit('{"keys": ["cms:other"]}', prefix="somebody.else"))
        await sql(database, emit('{"keys": ["cms:last"]}'))
        await seen.until(b"cms:last")
        assert seen.keys == {b"cms:last"}
        assert seen.state.source.messages.counts == {
            Verdict.MALFORMED: 2,
            Verdict.NOT_ALLOWED: 1,
            Verdict.NOT_TRANSACTIONAL: 1,
            Verdict.TOO_LARGE: 1,
            Verdict.APPLIED: 1,
        }
