"""One connection to the slot: its reading, its feedback to the server, and its end.

The reading loop is shaped by one measured fact: the walsender, not Python, is the limit, and it works twice as cheaply
when its reader lets the kernel's buffer fill instead of waking for each message (explanation: performance). So: drain
until dry, hand over at once what has come, and only when the stream is busy *and* little is waiting, nap for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING

from invalidator.errors import ConfigError, ProtocolError, SlotInUse, SlotLost, SourceDisconnected, SourceError
from invalidator.model import Batch, Lsn, StreamStart
from invalidator.postgres import catalog, decoder, slots
from invalidator.postgres.connected import Connected
from invalidator.postgres.reader import HEARTBEAT_PREFIX, Reader
from invalidator.postgres.replication import ReplicationStream
from invalidator.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.model import Relation
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection, Preparation, SlotKeeper
    from invalidator.postgres.options import StreamOptions
    from invalidator.postgres.reader import DdlFunction, MessageFunction
    from invalidator.postgres.recent import Recent
    from invalidator.telemetry.events import Events

_ROUNDS = 8
"""Reads of the socket (about 15 kB each) in one callback, before the event loop gets its turn."""
_BUSY_ROWS = 20
_NAP_BELOW_BYTES = 16_384
_NAP_SECONDS = 0.002
_HELD_BYTES = 16 * 1024 * 1024
"""WAL that is confirmed and kept all the same: from here on it is asked for whom. A segment is nothing unusual."""
_CONFIRM_INTERVAL_SECONDS = 0.02
"""Between two status updates: a confirmation is cheap, but not as cheap as a batch at full speed is short."""


class Session(Connected):
    """One connection to the slot: reads into the open batch while the consumer works on the one before."""

    def __init__(
        self,
        settings: StreamOptions,
        rules: Rules,
        events: Events,
        *,
        on_message: MessageFunction | None = None,
        on_ddl: DdlFunction | None = None,
        recent: Recent | None = None,
    ) -> None:
        super().__init__(events, silence_seconds=settings.silence_seconds)
        self._settings = settings
        # Anybody may emit messages: only what this session sent is a heartbeat, or somebody could fake our freshness.
        self._heartbeat_name = f"{settings.slot}/{secrets.token_hex(8)}"
        self._reader = Reader(
            rules,
            heartbeat_name=self._heartbeat_name,
            max_items=settings.max_batch_items,
            max_bytes=settings.max_batch_bytes,
            state=self._state,
            on_message=on_message,
            on_ddl=on_ddl,
            recent=recent,
        )
        self._stream: ReplicationStream | None = None
        self._side: SideConnection | None = None
        self._is_paused = True
        self._is_progress_due = False
        self._next_read: asyncio.TimerHandle | None = None
        self._confirmed = 0
        self._status_sent_at = 0.0
        self._status_timer: asyncio.TimerHandle | None = None
        self._start: StreamStart | None = None
        self.process: slots.Process | None = None
        """What streams to us."""

    def __repr__(self) -> str:
        return f"<Session {self._reader} confirmed={Lsn(self._confirmed)} failure={self._failure!r}>"

    # ---------------------------------------------------------------- life

    async def open(
        self,
        prepare: Preparation | None,
        *,
        has_streamed: bool,
        stands_by: bool = False,
        before: slots.Process | None = None,
        inspections: Sequence[Inspection] = (),
        keeper: SlotKeeper | None = None,
    ) -> None:
        """Check, connect and start streaming; while it ``stands_by``, look first whether the slot is free.

        So it does when a process has streamed to us ``before``, of which the server may not know yet that it is done.
        """
        settings = self._settings
        self._side = side = await SideConnection.open(settings.address, slot=settings.slot)
        await slots.verify_primary(side)
        if stands_by or before is not None:
            await slots.refuse_if_in_use(side, settings.slot, before=before)
        is_first = not has_streamed
        was_there = has_streamed or await slots.exists(side, settings.slot)
        if keeper is not None and not was_there:
            is_first = not await keeper.has_record(await side.ask(catalog.system))
        if prepare is not None:
            # Only a first start may make what is missing: later a missing slot is a hole, which a new one would hide.
            await prepare(side, is_first=is_first)
        names = {"slot": settings.slot, "publication": settings.publication}
        # One that goes while we look is no mistake in the settings, which would end the process for good.
        gap = await slots.verify(side, **names, is_missed=was_there or not is_first)
        if gap is not None:
            if keeper is None:
                msg = f"{gap.detail}: changes are missing"
                raise SlotLost(msg)
            keeper.allow_new_slot(gap)
            await slots.make_anew(side, settings.slot)
        self._start = await slots.start(side, settings.slot, gap)
        self._stream = await self._streaming(self._start)
        self._reader.encoding = self._stream.content_encoding
        self.process = await slots.process(side, self._stream.pid)
        # A server that shuts down waits for its walsenders, and they wait for us: hang up before anything else.
        side.watch(self._fail)
        self._events.stream_connected(position=self._start.position, server_version=side.server_name)
        self._hear()
        self._run(self._keep_listening(), "silence")
        self._run(self._keep_status(), "standby status")
        self._run(self._keep_heartbeat(side), "heartbeat")
        for inspection in inspections:
            self._run(self._keep_looking(inspection), "preflight")
        self._resume()

    async def _streaming(self, start: StreamStart) -> ReplicationStream:
        settings = self._settings
        try:
            return await ReplicationStream.open(
                settings.address,
                slot=settings.slot,
                publication=settings.publication,
                receive_buffer_bytes=settings.receive_buffer_bytes,
            )
        except SlotLost as error:
            # Lost since it was looked at: the next connection sees it as it is now, and decides.
            raise SourceDisconnected(str(error), reason="slot_lost") from error
        except SlotInUse as error:
            error.system = start.system
            raise

    async def close(self) -> None:
        """Hang up; what was confirmed last is told to the server first."""
        self._stop()
        for timer in (self._next_read, self._status_timer):
            if timer is not None:
                timer.cancel()
        if self._stream is not None:
            if self._failure is None:
                with contextlib.suppress(SourceError, ConfigError):
                    self._send_status()
            await self._stream.close()
        if self._side is not None:
            await self._side.close()
        await self._stopped()

    async def next(self) -> Batch:
        """Wait for something to hand over."""
        reader = self._reader
        while True:
            if self._failure is not None:
                raise self._failure
            if self._start is not None:
                start, self._start = self._start, None
                return Batch(start=start)
            if reader.unbound is not None:
                await self._bind(reader.unbound)
                self._resume()
            elif reader.has_something or reader.is_full or (self._is_progress_due and reader.has_progress):
                self._is_progress_due = False
                batch = reader.take()
                self._resume()
                return batch
            else:
                self._stirred.clear()
                await self._stirred.wait()

    @property
    def has_opened(self) -> bool:
        """Whether the stream began."""
        return bool(self._tasks)

    def swap(self, rules: Rules) -> None:
        """Put other rules in force between two transactions."""
        self._reader.swap(rules)

    def confirm(self, position: Lsn) -> None:
        """Move the confirmed position forward and tell the server soon."""
        if position.value > max(self._reader.end, self._state.server_position):
            msg = f"refused to confirm {position}: the server has sent nothing beyond {Lsn(self._reader.end)}"
            raise ProtocolError(msg)
        if position.value <= self._confirmed:
            return
        self._confirmed = position.value
        self._state.confirmed_position = self._state.applied_position = position.value
        if self._status_timer is None:
            wait = self._status_sent_at + _CONFIRM_INTERVAL_SECONDS - time.monotonic()
            self._status_timer = self._loop.call_later(max(0.0, wait), self._guarded, self._send_status)

    async def _bind(self, relation: Relation) -> None:
        side = await self._beside()
        with self._first_failure():
            self._reader.bind(await side.ask(lambda connection: catalog.completed(connection, relation)))

    # ---------------------------------------------------------------- reading

    def _resume(self) -> None:
        """Go on reading after a pause; libpq may hold messages that the socket does not show."""
        if self._is_paused and self._failure is None and self._reader.unbound is None:
            self._is_paused = self._state.is_paused = False
            self._state.moved_at = time.time()
            self._guarded(self._drain)
            self._read_in(0)

    def _pause(self) -> None:
        self._is_paused = self._state.is_paused = True
        if self._stream is not None:
            self._stream.unwatch()

    def _read_in(self, seconds: float) -> None:
        """Read again that much later without watching the socket meanwhile."""
        if not self._is_paused and self._next_read is None and self._failure is None:
            self._next_read = self._loop.call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        self._next_read = None
        if not self._is_paused and self._failure is None:
            self._guarded(self._read)

    def _on_readable(self) -> None:
        self._guarded(self._read)

    def _read(self) -> None:
        """Take what the socket holds, some rounds of it, and decide when to look again."""
        stream = self._stream
        assert stream is not None  # noqa: S101  (only called while it is open)
        before, received = self._reader.rows, self._state.received_bytes
        waiting = 0
        for _ in range(_ROUNDS):
            stream.consume()
            self._drain()
            waiting = stream.bytes_waiting()
            if self._is_paused or waiting < _NAP_BELOW_BYTES:
                break
        rows = self._reader.rows - before
        if self._state.received_bytes != received:
            self._hear()
        if self._is_paused:
            return
        if rows <= _BUSY_ROWS and waiting < _NAP_BELOW_BYTES:
            stream.watch(self._on_readable)
            return
        # Busy. Nobody watches the socket meanwhile: each message that is sent to a watched one costs the walsender a
        # callback or a wake-up. When plenty is waiting we go on as soon as the event loop had its turn. Else the
        # walsender is cheaper when we let the buffer fill: decided by bytes, never by rows, because with wide rows one
        # read holds few of them, and a nap after each read made such tables five times slower.
        stream.unwatch()
        self._read_in(0 if waiting >= _NAP_BELOW_BYTES else _NAP_SECONDS)

    def _drain(self) -> None:
        stream, reader = self._stream, self._reader
        assert stream is not None  # noqa: S101  (reading starts after open)
        before = (reader.rows, self._state.transactions)
        size = stream.drain(reader.drain)
        if before != (reader.rows, self._state.transactions):
            self._state.moved_at = time.time()
        if reader.is_reply_requested:
            reader.is_reply_requested = False
            self._is_progress_due = True
            self._send_status()
        if size < 0:
            raise stream.ended()
        if reader.unbound is not None or reader.is_full:
            self._pause()
        if reader.unbound is not None or reader.has_something or reader.is_full or self._is_progress_due:
            self._stirred.set()

    # ---------------------------------------------------------------- keeping the server informed

    def _send_status(self) -> None:
        self._status_timer = None
        self._status_sent_at = time.monotonic()
        if self._stream is not None:
            wants_answer = self._silent_seconds() > self._silence_seconds / 2
            status = decoder.standby_status(
                self._reader.end, self._confirmed, now=time.time(), reply_requested=wants_answer
            )
            self._stream.send(status)
            # crash point: status-sent

    async def _keep_status(self) -> None:
        """Feed back on a timer: it goes on while targets stall and reading is paused."""
        while self._failure is None:
            await asyncio.sleep(self._settings.status_interval_seconds)
            self._guarded(self._send_status)
            self._is_progress_due = True
            self._stirred.set()

    def _is_listening(self) -> bool:
        return not self._is_paused

    async def _keep_heartbeat(self, side: SideConnection) -> None:
        """Send a message through the WAL, and look at the slot, again and again."""
        while self._failure is None:
            await self._beat(side)
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def _beside(self) -> SideConnection:
        assert self._side is not None  # noqa: S101  (open() made it)
        return self._side

    async def _beat(self, side: SideConnection) -> None:
        sent = time.time()
        content = f"{self._heartbeat_name} {sent!r}"
        rows = await side.fetch(
            "SELECT extract(epoch FROM clock_timestamp())::float8, pg_logical_emit_message(true, %s, %s)",
            [HEARTBEAT_PREFIX, content],
        )
        self._state.heartbeat_sent = sent
        # The server read its clock somewhere between our two readings: the middle is off by half a round trip.
        self._state.clock_offset_seconds = float(rows[0][0]) - (sent + time.time()) / 2
        figures = await slots.figures(side, self._settings.slot)
        if figures is not None:
            self._state.slot_active = figures.is_active
            self._state.slot_wal_status = figures.wal_status
            self._state.slot_retained_wal_bytes = figures.retained_wal_bytes
            self._state.slot_unconfirmed_wal_bytes = figures.unconfirmed_wal_bytes
            self._state.slot_safe_wal_bytes = figures.safe_wal_bytes
            self._state.server_position = max(self._state.server_position, figures.server_position)
            held = (figures.retained_wal_bytes or 0) - (figures.unconfirmed_wal_bytes or 0)
            self._state.oldest_transaction = await slots.oldest_transaction(side) if held > _HELD_BYTES else None

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.abort()
        if self._side is not None:
            self._side.hang_up()
