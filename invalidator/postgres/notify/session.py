"""One connection's life: it holds the leader lock, hears notifications, and proves again and again that it does.

Two connections: one only listens, the other notifies, and looks at the database. Whatever fails on the other costs no
notification, so it is opened again and the listener goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString

from invalidator.errors import ConfigError, SlotInUse, SourceDisconnected, SourceError
from invalidator.model import Batch, Lsn
from invalidator.postgres import catalog, slots
from invalidator.postgres.connection import connect
from invalidator.postgres.notify import proof
from invalidator.postgres.notify.listener import Listener
from invalidator.postgres.notify.reader import Reader
from invalidator.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from invalidator.model import Gap, StreamStart
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection
    from invalidator.postgres.notify.listener import Heard
    from invalidator.postgres.notify.options import NotifyOptions
    from invalidator.postgres.notify.proof import Beat
    from invalidator.telemetry.events import Events

_MOST: Final = 1000
"""Notifications between two turns of the event loop."""
_FORGET_SECONDS: Final = 10.0
"""Names and types of tables are asked for again after so long: nobody tells of RENAME and ALTER TYPE."""

_SESSION: Final[LiteralString] = """
    SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '3', false),
           set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '15000', false)
"""
"""A daemon whose machine is gone must lose the lock."""
_LOCK: Final[LiteralString] = "SELECT pg_try_advisory_lock(%s)"
_HOLDER: Final[LiteralString] = """
    SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""


class NotifySession:
    """One connection; see ``ports.Source`` for what it guarantees.

    Args:
        options: what it is told.
        rules: make the function for each relation.
        events: what it reports to.
    """

    def __init__(self, options: NotifyOptions, rules: Rules, events: Events) -> None:
        self._options = options
        self._events = events
        self._state = events.state.source
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(rules, max_items=options.max_batch_items, state=self._state)
        self._channel = proof.own_channel()
        self._beats: dict[bytes, Beat] = {}
        self._early: bytes | None = None
        """A beat that was heard before its sender was told that it is sent."""
        self._beaten = asyncio.Event()
        self._listener: Listener | None = None
        self._side: SideConnection | None = None
        self._side_lock = asyncio.Lock()
        self._start: StreamStart | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None
        self._ready = asyncio.Event()
        self._forgot_at = time.monotonic()
        self.heard_at = time.time()
        """Unix seconds on our clock up to which everything was heard, as far as is known."""

    def __repr__(self) -> str:
        return f"<NotifySession {self._options.name} failure={self._failure!r}>"

    # ---------------------------------------------------------------- life

    async def open(self, gap: Gap | None, inspection: Inspection | None = None) -> None:
        """Listen, see that it works, and take the lock.

        Args:
            gap: what was not heard before.
            inspection: looks at the database again and again.

        Raises:
            SlotInUse: another daemon holds the lock.
            ConfigError: something cannot work; says what to do.
        """
        side = await self._beside()
        await _verify(side)
        await self._see_that_nobody_leads(side)
        name = self._options.slot
        dsn = self._options.address
        self._listener = listener = Listener(await connect(dsn, application_name=f"invalidator/{name}/listen"))
        listener.watch(self._fail)
        await listener.fetch(_SESSION)
        await listener.listen(self._options.channels)
        # Before the lock: a pooler would keep it for ever on a connection that is not ours.
        self._begun(beat := await proof.prove(listener, side, self._channel, seconds=self._options.unheard_seconds))
        if not (await listener.fetch(_LOCK, [lock_key(name)]))[0][0]:
            await self._see_that_nobody_leads(side)
            msg = "another daemon has just taken the lock"
            raise SlotInUse(msg)
        system = await side.ask(partial(catalog.system, with_database=True))  # the lock, too, is of one database
        self._start = replace(await slots.start(side, "", gap), system=system, position=beat.position)
        self._state.moved_at = time.time()
        version = side.server_version
        self._events.stream_connected(position=beat.position, server_version=f"{version // 10000}.{version % 10000}")
        self._run(self._keep_reading(listener), "notifications")
        self._run(self._keep_beating(), "heartbeat")
        if inspection is not None:
            self._run(self._keep_looking(inspection), "preflight")

    async def close(self) -> None:
        """End the connections, which frees the lock."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leave_side()
        if self._listener is not None:
            await self._listener.close()

    async def next(self) -> Batch:
        """Wait for something to hand over."""
        while True:
            if self._start is not None:
                start, self._start = self._start, None
                return Batch(start=start)
            if self._reader.has_something:
                return self._reader.take()
            if self._failure is not None:
                raise self._failure
            self._ready.clear()
            await self._ready.wait()

    def swap(self, rules: Rules) -> None:
        """Put other rules in force for what comes from now on."""
        self._reader.swap(rules)

    def restart(self, why: str) -> None:
        """End this connection. Nothing can be read again: the next one begins with a gap."""
        self._fail(SourceDisconnected(why, reason="redo"))

    def confirm(self, position: Lsn) -> None:
        """Remember it: the server keeps nothing for us."""
        self._state.confirmed_position = self._state.applied_position = position.value

    async def _see_that_nobody_leads(self, side: SideConnection) -> None:
        holders = await side.fetch(_HOLDER, [lock_key(self._options.slot)])
        if holders:
            msg = f"another daemon of the name '{self._options.slot}' listens: it holds the advisory lock"
            raise SlotInUse(msg, holder_pid=holders[0][0])

    async def _beside(self) -> SideConnection:
        """The other connection, opened again if it was lost."""
        async with self._side_lock:
            if self._side is None or self._side.connection.closed:
                self._side = await SideConnection.open(self._options.address, slot=self._options.slot)
            return self._side

    async def _leave_side(self) -> None:
        side, self._side = self._side, None
        if side is not None:
            await side.close()

    # ---------------------------------------------------------------- reading

    async def _keep_reading(self, listener: Listener) -> None:
        """Read whatever comes, however long the consumer takes."""
        while True:
            heard = await listener.take(_MOST)
            await self._read(listener, heard)
            if self._reader.has_something:
                self._ready.set()

    async def _read(self, listener: Listener, heard: Sequence[Heard]) -> None:
        self._state.moved_at = time.time()
        payloads = [payload for channel, payload in heard if channel != self._channel]
        notices = [notice for notice in map(self._reader.parse, payloads) if notice is not None]
        if notices:
            moment = await listener.now()
            await self._bind(listener, self._reader.unknown(notices))
            self._reader.begin(moment)
            for notice in notices:
                self._reader.read(notice, moment.at)
        for payload in (payload for channel, payload in heard if channel == self._channel):
            if payload in self._beats:
                self._came_back(self._beats.pop(payload))
            else:
                self._early = payload

    async def _bind(self, listener: Listener, names: Sequence[tuple[str, str]]) -> None:
        if names:
            found = await listener.ask(lambda connection: catalog.named(connection, names))
            for name in names:
                self._reader.bind(name, found.get(name))
        if time.monotonic() - self._forgot_at > _FORGET_SECONDS:
            self._forgot_at = time.monotonic()
            self._reader.forget()

    # ---------------------------------------------------------------- beside reading

    async def _keep_beating(self) -> None:
        """Notify ourselves again and again. What is not sent proves nothing; what is sent must come back."""
        while True:
            await asyncio.sleep(self._options.heartbeat_seconds)
            try:
                self._beaten.clear()
                self._begun(await proof.send(await self._beside(), self._channel))
            except (SourceError, ConfigError) as error:
                await self._leave_side()
                self._events.heartbeat_failed(error)
                continue
            async with proof.must_be_heard(self._options.unheard_seconds):
                await self._beaten.wait()

    def _begun(self, beat: Beat) -> None:
        state = self._state
        state.heartbeat_sent = beat.sent
        state.clock_offset_seconds = beat.clock_offset_seconds
        state.server_position = max(state.server_position, beat.position.value)
        state.notification_queue_usage = beat.queue_usage
        if beat.payload == self._early:
            self._came_back(beat)
            self._ready.set()
        else:
            self._beats[beat.payload] = beat

    def _came_back(self, beat: Beat) -> None:
        """Everything that was notified before it has been read."""
        self._reader.beat(beat.sent, beat.position)
        self.heard_at = beat.sent
        self._state.received_position = beat.position.value
        self._beaten.set()

    async def _keep_looking(self, inspection: Inspection) -> None:
        """Hold the database against the rules. A question that fails is no reason to stop listening."""
        while True:
            try:
                await inspection.look_again(await self._beside())
            except (SourceError, ConfigError) as error:
                self._events.preflight_failed(error)
            await asyncio.sleep(inspection.interval_seconds)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._events.stream_broken(error)
            self._ready.set()


def lock_key(name: str) -> int:
    """Advisory lock of the one daemon of this name that listens in this database."""
    digest = hashlib.sha256(f"invalidator/notify/{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def _verify(side: SideConnection) -> None:
    if side.server_version < slots.OLDEST_SERVER:
        msg = f"Postgres {side.server_version // 10000} is too old: 14 or newer is needed"
        raise ConfigError(msg)
    if (await side.ask(catalog.server)).is_standby:
        msg = "this server is a standby: notifications are heard on the primary only"
        raise SourceDisconnected(msg, reason="configuration")
