"""One connection's life: it holds the leader lock, hears notifications, and proves again and again that it does.

Two connections: one only listens, the other notifies, and looks at the database. Whatever fails on the other costs no
notification, so it is opened again and the listener goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from invalidator.errors import ConfigError, SourceDisconnected, SourceError
from invalidator.model import Batch, Lsn
from invalidator.postgres import catalog, leader, slots
from invalidator.postgres.connected import Connected
from invalidator.postgres.connection import answered_within, connect
from invalidator.postgres.notify import proof
from invalidator.postgres.notify.listener import Listener
from invalidator.postgres.notify.reader import Reader
from invalidator.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.model import Gap, StreamStart
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection
    from invalidator.postgres.notify.listener import Heard
    from invalidator.postgres.notify.options import NotifyOptions
    from invalidator.postgres.notify.proof import Beat
    from invalidator.postgres.recent import Recent
    from invalidator.telemetry.events import Events

_MOST: Final = 1000
"""Notifications between two turns of the event loop."""
_CLOSE_SECONDS: Final = 1.5
_FORGET_SECONDS: Final = 10.0
"""Names and types of tables are asked for again after so long: nobody tells of RENAME and ALTER TYPE."""


class NotifySession(Connected):
    """One connection; see ``ports.Source`` for what it guarantees.

    Args:
        options: what it is told.
        rules: make the function for each relation.
        events: what it reports to.
        recent: keeps changes for who wants to look at them.
    """

    def __init__(self, options: NotifyOptions, rules: Rules, events: Events, *, recent: Recent | None = None) -> None:
        super().__init__(events, silence_seconds=options.silence_seconds)
        self._options = options
        self._reader = Reader(rules, max_items=options.max_batch_items, state=self._state, recent=recent)
        self._channel = proof.own_channel()
        self._beats: dict[bytes, Beat] = {}
        self._early: bytes | None = None
        """A beat that was heard before its sender was told that it is sent."""
        self._beaten = asyncio.Event()
        self._listener: Listener | None = None
        self._side: SideConnection | None = None
        self._side_lock = asyncio.Lock()
        self._start: StreamStart | None = None
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
        await side.ask(lambda own: leader.refuse_if_led(own, lock_key(self._options.slot), what=self._purpose))
        name = self._options.slot
        dsn = self._options.address
        self._listener = listener = Listener(await connect(dsn, application_name=f"invalidator/{name}/listen"))
        listener.watch(self._fail)
        await listener.listen(self._options.channels)
        # Before the lock: a pooler would keep it for ever on a connection that is not ours.
        self._begun(beat := await proof.prove(listener, side, self._channel, seconds=self._options.unheard_seconds))
        await listener.ask(lambda own: leader.lead(own, lock_key(name), what=self._purpose))
        system = await side.ask(partial(catalog.system, with_database=True))  # the lock, too, is of one database
        self._start = replace(await slots.start(side, "", gap), system=system, position=beat.position)
        self._state.moved_at = time.time()
        self._events.stream_connected(position=beat.position, server_version=side.server_name)
        self._hear()
        self._run(self._keep_listening(), "silence")
        self._run(self._keep_reading(listener), "notifications")
        self._run(self._keep_asking(listener), "signs of life")
        self._run(self._keep_beating(listener), "heartbeat")
        if inspection is not None:
            self._run(self._keep_looking(inspection), "preflight")

    async def close(self) -> None:
        """Free the lock, and end the connections."""
        self._stop()
        await self._leave_side()
        if self._listener is not None:
            if self._tasks and self._failure is None:
                own = self._listener.connection
                with contextlib.suppress(SourceError, ConfigError), answered_within(own, _CLOSE_SECONDS):
                    await self._listener.ask(lambda own: leader.leave(own, lock_key(self._options.slot)))
            await self._listener.close()
        await self._stopped()

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
            self._stirred.clear()
            await self._stirred.wait()

    def swap(self, rules: Rules) -> None:
        """Put other rules in force for what comes from now on."""
        self._reader.swap(rules)

    def confirm(self, position: Lsn) -> None:
        """Remember it: the server keeps nothing for us."""
        self._state.confirmed_position = self._state.applied_position = position.value

    @property
    def _purpose(self) -> str:
        return f"of the name '{self._options.slot}' listens"

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
                self._stirred.set()

    async def _keep_asking(self, listener: Listener) -> None:
        """Have the server say something. A listener hears nothing for long when nothing changes, or when it hangs."""
        while True:
            await asyncio.sleep(self._options.silence_seconds / 2)
            await listener.fetch("SELECT 1")
            self._hear()

    async def _read(self, listener: Listener, heard: Sequence[Heard]) -> None:
        self._state.moved_at = time.time()
        self._hear()
        payloads = [payload for channel, payload in heard if channel != self._channel]
        notices = [notice for notice in map(self._reader.parse, payloads) if notice is not None]
        if notices:
            moment = await listener.now()
            await self._bind(listener, self._reader.unknown(notices))
            self._reader.begin(moment)
            for notice in notices:
                self._reader.read(notice, moment.at)
            self._reader.commit()
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

    async def _keep_beating(self, listener: Listener) -> None:
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
            async with proof.must_be_heard(listener, self._options.unheard_seconds):
                await self._beaten.wait()

    def _begun(self, beat: Beat) -> None:
        state = self._state
        state.heartbeat_sent = beat.sent
        state.clock_offset_seconds = beat.clock_offset_seconds
        state.server_position = max(state.server_position, beat.position.value)
        state.notification_queue_usage = beat.queue_usage
        if beat.payload == self._early:
            self._came_back(beat)
            self._stirred.set()
        else:
            self._beats[beat.payload] = beat

    def _came_back(self, beat: Beat) -> None:
        """Everything that was notified before it has been read."""
        self._reader.beat(beat.sent, beat.position)
        self.heard_at = beat.sent
        self._state.received_position = beat.position.value
        self._beaten.set()

    def _hang_up(self) -> None:
        for connection in (self._listener, self._side):
            if connection is not None:
                connection.hang_up()


def lock_key(name: str) -> int:
    """Advisory lock of the one daemon of this name that listens in this database."""
    digest = hashlib.sha256(f"invalidator/notify/{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def _verify(side: SideConnection) -> None:
    slots.verify_version(side)
    if (await side.ask(catalog.server)).is_standby:
        msg = "this server is a standby: notifications are heard on the primary only"
        raise SourceDisconnected(msg, reason="configuration")
