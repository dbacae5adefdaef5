"""One connection to the outbox: it holds the leader lock, looks for new rows, and deletes what is confirmed.

Rows are asked for when the consumer wants a batch. While it works, more of them gather in the table: there is nothing
to be read ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar

import psycopg

from invalidator.errors import ConfigError, ProtocolError, SourceError
from invalidator.model import Batch, Gap, GapReason, Lsn
from invalidator.postgres import catalog, leader
from invalidator.postgres.catalog.outbox import LOCK_KEY
from invalidator.postgres.connected import Connected
from invalidator.postgres.connection import answered_within, ask, connect, hang_up
from invalidator.postgres.failures import ours
from invalidator.postgres.outbox import fitness
from invalidator.postgres.outbox.deletion import CONFIRM_SQL, EMPTY_SQL, Deletion
from invalidator.postgres.outbox.history import START_SQL, begun
from invalidator.postgres.outbox.images import texts
from invalidator.postgres.outbox.loading import prepare
from invalidator.postgres.outbox.pace import ROUSE_SQL, SLEEP_SQL, Pace
from invalidator.postgres.outbox.reader import HEARTBEAT, LOST, Layout, Reader, Row
from invalidator.postgres.outbox.window import PAGE_SQL, Window, page
from invalidator.postgres.provision.capture import CHANNEL
from invalidator.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from invalidator.model import Relation, StreamStart
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection
    from invalidator.postgres.outbox.options import OutboxOptions
    from invalidator.postgres.recent import Recent
    from invalidator.telemetry.events import Events

_DELETE_INTERVAL_SECONDS: Final = 0.2
_FORGET_SECONDS: Final = 10.0
"""Names and types of relations are asked for again after so long: nobody tells of RENAME and ALTER TYPE."""
_CLOSE_SECONDS: Final = 1.5

Answer = TypeVar("Answer")

_SESSION: Final[LiteralString] = """
    SELECT set_config('synchronous_commit', 'off', false),  -- a deletion that is lost is made again
           set_config('invalidator.reader', 'on', false),  -- for the guard of the outbox
           -- Without statistics, as after a sudden backlog, the planner sorts all that waits for each page of it.
           set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false)
"""
_LISTEN: Final[LiteralString] = f"LISTEN {CHANNEL}"
_HEARTBEAT: Final[LiteralString] = """
    INSERT INTO invalidator.outbox (relation, schema_name, table_name, operation)
    VALUES (0, 'invalidator', %s, %s) RETURNING extract(epoch FROM clock_timestamp())::float8
"""


class OutboxSession(Connected):
    """One connection; see ``ports.Source`` for what it guarantees.

    Args:
        options: what it is told.
        rules: make the function for each relation.
        events: what it reports to.
        recent: keeps changes for who wants to look at them.
    """

    def __init__(self, options: OutboxOptions, rules: Rules, events: Events, *, recent: Recent | None = None) -> None:
        super().__init__(events, silence_seconds=options.silence_seconds)
        self._options = options
        self._heartbeat_name = f"{options.name}/{secrets.token_hex(8)}"
        self._reader = Reader(
            rules,
            heartbeat_name=self._heartbeat_name,
            max_items=options.max_batch_items,
            state=self._state,
            recent=recent,
        )
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._side: SideConnection | None = None
        self._is_asking = False
        self._window = Window()
        self._layouts: dict[tuple[int, str, str, bytes | None], Layout] = {}
        self._pace = Pace(options)
        self._ready: deque[Batch] = deque()
        self._last_end = Lsn(0)
        self._has_rows_without_end = False
        self._ends: deque[tuple[Lsn, str]] = deque()
        """Position of each window that was handed over and is not confirmed, with its snapshot."""
        self._begun: StreamStart | None = None
        self._confirmed: Deletion | None = None
        self._strangers: Deletion | None = None
        """Of rows that nobody can place, once the gap is known."""
        self._deleted_at = self._forgot_at = time.monotonic()

    def __repr__(self) -> str:
        return f"<OutboxSession {self._window} open={len(self._ends)} failure={self._failure!r}>"

    # ---------------------------------------------------------------- life

    async def open(self, inspections: Sequence[Inspection] = ()) -> None:
        """Connect, take the lock, and see that the outbox is there.

        Raises:
            SlotInUse: another daemon holds the lock.
            ConfigError: something is missing or cannot work; says what to run.
        """
        dsn = self._options.address
        self._connection = connection = await connect(dsn, application_name=f"invalidator/{self._options.name}")
        connection.add_notify_handler(lambda _: self._stirred.set())
        self._run(self._keep_listening(), "silence")
        await self._ask(prepare)
        await self._rows(_SESSION)
        await self._ask(fitness.verify)
        await self._ask(lambda own: leader.lead(own, LOCK_KEY, what="reads this outbox"))
        row = (await self._rows(START_SQL))[0]
        self._begun = start = begun(row)
        self._ready.append(Batch(start=start))
        self._confirmed = Deletion(CONFIRM_SQL, start.system)
        if start.gap is not None:
            self._strangers = Deletion(EMPTY_SQL, start.system)
            self._strangers.want(start.position, row[-1])
        if self._options.wake == "notify":
            await self._rows(_LISTEN)
        self._side = side = await SideConnection.open(dsn, slot=self._options.name)
        side.watch(self._fail)
        self._events.stream_connected(position=start.position, server_version=side.server_name)
        self._run(self._keep_heartbeat(side), "heartbeat")
        for inspection in inspections:
            self._run(self._keep_looking(inspection), "preflight")

    async def close(self) -> None:
        """Delete what was confirmed last, free the lock, and end the connections."""
        self._stop()
        if self._connection is not None:
            if self._failure is None:
                with (
                    contextlib.suppress(SourceError, ConfigError),
                    answered_within(self._connection, _CLOSE_SECONDS),
                ):
                    if self._confirmed is not None:
                        await self._delete_while(self._confirmed, _CLOSE_SECONDS / 2)
                        await leader.leave(self._connection, LOCK_KEY)
            await self._connection.close()
        if self._side is not None:
            await self._side.close()
        await self._stopped()

    async def next(self) -> Batch:
        """Wait for something to hand over. Nothing is read while nobody asks for it."""
        self._state.is_paused = False
        self._state.moved_at = time.time()
        try:
            return await self._next()
        finally:
            self._state.is_paused = True

    async def _next(self) -> Batch:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._ready:
                return self._ready.popleft()
            if self._strangers is not None:
                await self._delete_while(self._strangers, math.inf)
                self._strangers = None
            is_deleting = await self._delete_some()
            await asyncio.sleep(self._pace.gathering_seconds)
            self._stirred.clear()
            if not await self._look() and not is_deleting:
                await self._wait()

    def swap(self, rules: Rules) -> None:
        """Put other rules in force between two transactions."""
        self._reader.swap(rules)

    def confirm(self, position: Lsn) -> None:
        """Let everything up to the position be deleted soon."""
        if position > self._last_end:
            msg = f"refused to confirm {position}: nothing beyond {self._last_end} was handed over"
            raise ProtocolError(msg)
        while self._ends and self._ends[0][0] <= position:
            assert self._confirmed is not None  # noqa: S101  (open() made it)
            self._confirmed.want(*self._ends.popleft())
        self._state.confirmed_position = self._state.applied_position = position.value

    # ---------------------------------------------------------------- reading

    async def _look(self) -> bool:
        """Look once, and see to it that writers notify or need not (``pace``); whether to look again at once."""
        found, pace = await self._read_page(), self._pace
        if pace.must_rouse:
            await self._rows(ROUSE_SQL)
            pace.is_asleep = False
        elif pace.may_sleep and (await self._rows(SLEEP_SQL))[0][0]:
            pace.is_asleep = True
            return True  # who wrote before did not notify, and can be seen now: locks are given back after that
        return found

    async def _read_page(self) -> bool:
        """Read one page into batches; whether there was anything."""
        window = self._window
        self._forget()
        found = await self._rows(PAGE_SQL, page(window, self._pace.limit))
        # crash point: outbox-read
        snapshot, position = str(found[0][0]), Lsn.parse(found[0][1])
        rows = [self._row(values) for _, _, *values in found if values[0] is not None]
        if rows:
            self._state.moved_at = time.time()
        self._state.received_position = self._state.server_position = position.value
        is_full = len(rows) == self._pace.limit
        self._window = window.after(snapshot, (rows[-1].xid, rows[-1].id) if rows else None, is_full=is_full)
        await self._bind(rows)
        if lost := [row for row in rows if row.operation == LOST]:
            self._tell_lost(lost[0])
        for row in rows:
            if self._reader.is_full:
                self._ready.append(self._reader.take(None))
            self._reader.read(row, position)
        if not is_full:
            self._reader.commit()
        self._pace.looked(len(rows), sum(row.size for row in rows), is_full=is_full)
        self._has_rows_without_end = self._has_rows_without_end or bool(rows)
        end = None if is_full else self._end(position, self._window.seen)
        if end is not None or self._reader.has_something:
            self._ready.append(self._reader.take(end))
        return bool(rows) or bool(self._ready)

    def _tell_lost(self, row: Row) -> None:
        """Begin again in the middle of the connection: nothing is confirmed until what was lost is made up for."""
        assert self._begun is not None  # noqa: S101  (open() made it)
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.written_at))
        detail = f"somebody changed the outbox by {row.layout.table} at {at} UTC: rows may be gone that were never read"
        gap = Gap(GapReason.OUTBOX_EMPTIED, detail)
        self._ready.append(Batch(start=replace(self._begun, position=Lsn(self._state.confirmed_position), gap=gap)))

    def _end(self, position: Lsn, snapshot: str) -> Lsn | None:
        """What confirms everything read so far; None: nothing was read, or its position is no new one yet.

        The log may not have moved since the last window: then the next position that it moves to stands for both.
        """
        if not self._has_rows_without_end or position <= self._last_end:
            return None
        self._has_rows_without_end = False
        self._last_end = position
        self._ends.append((position, snapshot))
        return position

    def _forget(self) -> None:
        if time.monotonic() - self._forgot_at > _FORGET_SECONDS:
            self._forgot_at = time.monotonic()
            self._layouts.clear()  # tables come and go
            self._reader.forget()

    async def _bind(self, rows: Sequence[Row]) -> None:
        for layout in self._reader.unknown(rows):
            self._reader.bind(layout, await self._ask(partial(_described, layout)))

    def _row(self, values: Sequence[Any]) -> Row:
        xid, number, written_at, relation, schema, table, operation, columns, old, new = values
        if operation in (HEARTBEAT, LOST):  # each has its own text
            layout = Layout(relation, schema, table, b"")
        else:
            key = relation, schema, table, columns
            layout = self._layouts.get(key) or self._layouts.setdefault(
                key, Layout(relation, schema, table, columns or b"")
            )
        return Row(int(xid), number, written_at, layout, operation, old, new)

    async def _wait(self) -> None:
        """Until the next look is due, or the server says something: a notification, or farewell."""
        assert self._connection is not None  # noqa: S101  (open() made it)
        descriptor = self._connection.fileno()
        self._loop.add_reader(descriptor, self._stirred.set)
        try:
            async with asyncio.timeout(self._pace.waiting_seconds):
                await self._stirred.wait()
        except TimeoutError:
            pass
        finally:
            self._loop.remove_reader(descriptor)

    # ---------------------------------------------------------------- deleting

    async def _delete_some(self) -> bool:
        """Delete a part of what is confirmed, if it is time to; whether there may be more of it."""
        deletion = self._confirmed
        assert deletion is not None  # noqa: S101  (open() made it)
        if deletion.is_begun or time.monotonic() - self._deleted_at > _DELETE_INTERVAL_SECONDS:
            self._deleted_at = time.monotonic()
            await self._delete(deletion)
        return deletion.is_begun

    async def _delete_while(self, deletion: Deletion, seconds: float) -> None:
        """Delete part by part until nothing is left, or for so long; what is left then is read again."""
        began = time.monotonic()
        while deletion.has_more and time.monotonic() - began < seconds:
            self._state.moved_at = time.time()
            await self._delete(deletion)

    async def _delete(self, deletion: Deletion) -> None:
        part = deletion.part()
        if part is None:
            return
        began = time.monotonic()
        # crash point: confirmed-not-deleted
        answer = await self._rows(deletion.statement, part)
        # crash point: deleted-from-outbox
        deletion.deleted(answer, seconds=time.monotonic() - began)

    async def _rows(
        self, statement: LiteralString, parameters: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        async def question(connection: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...]]:
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(statement, parameters, prepare=True)
                return await cursor.fetchall() if cursor.description else []

        return await self._ask(question)

    async def _ask(self, question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Answer]]) -> Answer:
        """Wait for the answer however long it takes, if only the server says something meanwhile."""
        assert self._connection is not None  # noqa: S101  (open() made it)
        self._hear()
        self._is_asking = True
        with self._first_failure():
            try:
                return await ask(self._connection, question)
            except psycopg.Error as error:
                raise ours(error, doing="asking the outbox") from error
            finally:
                self._is_asking = False

    def _is_listening(self) -> bool:
        return self._is_asking

    # ---------------------------------------------------------------- beside reading

    async def _keep_heartbeat(self, side: SideConnection) -> None:
        """Send a row through the outbox again and again."""
        while self._failure is None:
            sent = time.time()
            rows = await side.fetch(_HEARTBEAT, [f"{self._heartbeat_name} {sent!r}", HEARTBEAT])
            self._state.heartbeat_sent = sent
            self._state.clock_offset_seconds = float(rows[0][0]) - (sent + time.time()) / 2
            await asyncio.sleep(self._options.heartbeat_seconds)

    async def _beside(self) -> SideConnection:
        assert self._side is not None  # noqa: S101  (open() made it)
        return self._side

    def _hang_up(self) -> None:
        if self._connection is not None:
            hang_up(self._connection)
        if self._side is not None:
            self._side.hang_up()


async def _described(layout: Layout, connection: psycopg.AsyncConnection[Any]) -> Relation:
    names = tuple(name or "" for name in texts(layout.columns)) if layout.columns else ()
    return await catalog.described(connection, layout.relation, schema=layout.schema, table=layout.table, names=names)
