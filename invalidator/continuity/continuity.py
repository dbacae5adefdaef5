"""Keeps the record of what was applied beside each cache, and tells the source only what every required one holds.

    begin     a connection starts: its position is held against the records (checkpoint.record judges)
    applied   every required target has come so far
    run       writes the records, notices a Redis that is another one, and releases positions to the source

What follows from it is up to the ``Stream``: drop more than was lost, or read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from invalidator.checkpoint.horizon import Horizon
from invalidator.checkpoint.record import Record, judge
from invalidator.continuity.abreast import Abreast
from invalidator.continuity.debts import Debts
from invalidator.continuity.recorder import Recorder, database
from invalidator.errors import ConfigError, RecordTaken, SlotLost, SourceDisconnected, TargetError, TargetRejected
from invalidator.model import Gap, GapReason, Lsn, StreamStart

if TYPE_CHECKING:
    from invalidator.continuity.debts import Lanes
    from invalidator.continuity.settings import Settings
    from invalidator.ports import Clock, Kept, Recording
    from invalidator.telemetry.events import Events

_BUSY_SECONDS: Final = 0.2
"""Between two writes of a record while positions move."""
_IDLE_SECONDS: Final = 0.5
"""Between two looks whether a Redis is still the same one."""
_HOUR: Final = 3600.0
_WIDEN_ONCE: Final = (
    "Start the daemon once with INVALIDATOR_CONTINUITY__ON_GAP=widen: it drops what the rules can name and goes on"
)


class Stream(Protocol):
    """The pipeline, as far as its history is concerned."""

    def repair(self, gap: Gap, on_repaired: Callable[[], None]) -> None:
        """Drop the coarse form of every rule, at one target or at all, and call back when that is applied."""
        ...

    def restart(self, why: str) -> None:
        """Read everything again that is not confirmed."""
        ...

    def confirm(self, position: Lsn) -> None:
        """Tell the source."""
        ...


class Continuity:
    """See the module.

    Args:
        recorders: name, target, and whether it holds positions back.
        slot: the record's name.
        settings: what to do about gaps.
        events: what is told.
        clock: its seconds count.
        targets: the names of all, also of those that keep no record.
    """

    def __init__(
        self,
        recorders: Sequence[tuple[str, Recording, bool]],
        *,
        slot: str,
        settings: Settings,
        events: Events,
        clock: Clock,
        targets: Collection[str] = (),
    ) -> None:
        self.settings = settings
        self._debts = Debts(settings, targets, events)
        self._recorders = [Recorder(*each) for each in recorders]
        self._slot = slot
        self._events = events
        self._clock = clock
        self._horizon = Horizon(settings.redo_window_seconds)
        self._stream: Stream | None = None
        self._start: StreamStart | None = None
        self._has_begun = self._is_connected = False
        self._is_judged = False
        self._applied: Lsn | None = None
        self._new_slots: tuple[int, ...] = ()
        self._apart: set[str] = set()
        self._repairing = 0
        self._moved = asyncio.Event()
        self._tending = asyncio.Lock()
        self._abreast = Abreast(clock)

    def __repr__(self) -> str:
        return f"<Continuity start={self._start} applied={self._applied} {self._horizon!r}>"

    def attach(self, stream: Stream, lanes: Lanes | None = None) -> None:
        """Name the stream, and who delivers; before anything else is called."""
        self._stream = stream
        if lanes is not None:
            self._debts.attach(lanes)

    def returned(self, name: str) -> None:
        """A target without which positions were confirmed works again."""
        gap, number = self._debts.repair(name)
        self._found([gap], partial(self._paid, name, number))

    def owns_record(self, name: str) -> bool:
        """Whether the record at this target is about the database that we stream from, as far as it has said."""
        ours = None if self._start is None else database(self._start.system)
        return any(each.name == name and each.claimed_as == ours for each in self._recorders)

    # ---------------------------------------------------------------- what the source asks

    @property
    def keeps_records(self) -> bool:
        """Whether any target can keep one."""
        return bool(self._recorders)

    async def has_record(self, system: str) -> bool:
        """Whether we have streamed from this slot before, in this life or another; see ``companions.RecordKeeper``.

        Raises:
            SourceDisconnected: a required target that may hold a record does not answer, or has one of a database that
                is not ours, and no other holds one.
            ConfigError: a required target does not let us look.
        """
        unknown: TargetError | None = None
        for recorder in self._recorders:
            try:
                if system:
                    await recorder.claim(self._slot, system, self._clock.monotonic())
                record = Record.decode((await recorder.target.load_record(self._slot)).content)
            except RecordTaken as error:
                unknown = error if recorder.required else unknown
            except TargetRejected as error:
                if recorder.required:
                    msg = f"{recorder.name} does not let us look at our record: {error}"
                    raise ConfigError(msg, fix=error.fix) from None
            except TargetError as error:
                unknown = error if recorder.required else unknown
            else:
                if record is not None:
                    self._new_slots = max(self._new_slots, record.new_slots, key=len)
                    return True
        if unknown is not None:
            msg = f"the slot is missing, and whether it is missed cannot be told: {unknown}"
            raise SourceDisconnected(msg, reason="record_taken" if isinstance(unknown, RecordTaken) else "record")
        return False

    def allow_new_slot(self, gap: Gap) -> None:
        """Let a slot be made in the place of one that is gone or lost.

        Raises:
            SlotLost: the settings say stop.
            SourceDisconnected: that happened too often lately; ask again later.
        """
        if self.settings.on_gap == "stop":
            msg = (
                f"{gap.detail}: changes are missing. {_WIDEN_ONCE}. With a slot made anew by hand it would stop again:"
                " our record tells of the gap"
            )
            raise SlotLost(msg)
        now = self._clock.time()
        lately = tuple(at for at in self._new_slots if abs(now - at) < _HOUR)  # a clock may have been wrong
        if len(lately) >= self.settings.max_new_slots_per_hour:
            self._events.slot_lost(error=gap.detail)
            msg = (
                f"{gap.detail}; the slot was made anew {len(lately)} times within an hour already "
                "(continuity.max_new_slots_per_hour)"
            )
            raise SourceDisconnected(msg, reason="slot_lost")
        self._new_slots = (*lately, int(now))

    # ---------------------------------------------------------------- what the pipeline tells

    def begin(self, start: StreamStart) -> None:
        """A connection to the source begins; nothing is recorded or confirmed before it was judged."""
        self._start = start
        self._applied = None
        self._has_begun = self._is_connected = True
        self._is_judged = False
        self._horizon.clear()
        for recorder in self._recorders:
            recorder.begin()
        if start.gap is not None:
            self._found([start.gap])
        self._moved.set()

    def lost(self) -> None:
        """The connection is gone; the next one is not told what was applied on it, because it may be another history.

        Its positions need not even exist there: a slot that was told of them would skip commits that come later.
        """
        self._is_connected = False

    def stand_by(self, system: str | None) -> None:
        """Another process streams from this database (None: nobody knows which); if ours was another, so is the record.

        It may as well be a connection of ours that the server does not know to be gone: then it is the same database.
        """
        if self._start is not None and system is not None and database(system) != database(self._start.system):
            self._start = None

    def applied(self, position: Lsn) -> None:
        """Every required target has applied everything up to the position."""
        if not self._has_begun or not any(recorder.required for recorder in self._recorders):
            self._attached.confirm(position)  # nobody vouches for a cache, or the source has no history
        elif self._start is not None:
            self._applied = position
            self._moved.set()

    # ---------------------------------------------------------------- the work

    async def run(self) -> None:
        """Keep the records until cancelled."""
        try:
            while True:
                async with self._tending:
                    await self._tend_all(patience_seconds=_IDLE_SECONDS)
                self._moved.clear()
                await self._clock.sleep(_BUSY_SECONDS)
                if not self._moved.is_set():
                    await self._clock.sleep(_IDLE_SECONDS - _BUSY_SECONDS)
        finally:
            await self._abreast.stop()

    async def tend(self) -> None:
        """Do all that is to be done now, however slow a target is, and whatever is under way already."""
        async with self._tending:
            await self._abreast.do({}, patience_seconds=None)
            await self._tend_all(patience_seconds=None)

    async def _tend_all(self, *, patience_seconds: float | None) -> None:
        start = self._start
        if start is None:
            return
        applied = self._applied  # once: two targets may well keep their record under one key of one Redis
        work = {each.name: partial(self._tend, each, start, applied) for each in self._recorders}
        await self._abreast.do(work, patience_seconds=patience_seconds)
        if self._start is start:  # else the connection was lost meanwhile
            self._judge(start)
            self._excuse()
            self._release()

    def _release(self) -> None:
        """Let positions go on that every required record has held for long enough."""
        holding = [each.recorded for each in self._recorders if self._holds(each)] or [self._applied]
        held = [each for each in holding if each is not None]
        if len(held) == len(holding):
            self._horizon.add(min(held), self._clock.monotonic())
        released = self._horizon.release(self._clock.monotonic())
        if released is not None and self._is_connected:
            # crash point: recorded-not-confirmed
            self._attached.confirm(released)

    @property
    def _attached(self) -> Stream:
        assert self._stream is not None  # noqa: S101  (attached before anything runs)
        return self._stream

    async def _tend(self, recorder: Recorder, start: StreamStart, applied: Lsn | None) -> None:
        try:
            await self._keep(recorder, start, applied)
        except TargetError as error:
            recorder.kept = None  # it may have been written all the same
            recorder.is_unusable = True
            if not recorder.target.lies_apart:  # the journal tells of its file
                fix = error.fix if isinstance(error, TargetRejected) else None
                self._events.record_failed(recorder.name, error=str(error), result=error.result, fix=fix)
        else:
            recorder.is_unusable = False
            self._events.record_kept(recorder.name)

    async def _keep(self, recorder: Recorder, start: StreamStart, applied: Lsn | None) -> None:
        await recorder.claim(self._slot, start.system, self._clock.monotonic())
        before = recorder.record
        debts = self._debts.owed | self._debts.sought()
        has_other_debts = debts != frozenset(before.debts if before is not None else ())
        is_new = has_other_debts or applied not in (None, recorder.recorded)
        is_due = recorder.is_judged and is_new and not self._repairing and recorder.name not in debts
        if recorder.kept is None or not is_due:
            self._look(recorder, await recorder.target.load_record(self._slot), start)
            return
        record = Record(
            self._slot,
            start.system,
            start.timeline,
            applied or (before.applied if before is not None and before.is_of(start) else start.position),
            self._events.state.rules_loaded.hash,
            self._new_slots,
            apart=tuple(sorted(self._apart)),
            debts=tuple(sorted(debts)),
        )
        content = record.encode()
        kept = await recorder.target.keep_record(self._slot, content, expected=recorder.kept.content)
        self._look(recorder, kept, start, written=content)
        if self._start is start and kept.content == content:
            recorder.recorded = applied
            if recorder.target.lies_apart:
                self._apart.add(recorder.name)

    def _look(self, recorder: Recorder, kept: Kept, start: StreamStart, *, written: bytes | None = None) -> None:
        """Compare what a target holds with what we knew of it."""
        before, is_another = recorder.kept, recorder.look(kept)
        if is_another and kept.content is None:
            # It came back without our record: empty, or as it was before we began. The latter keeps stale entries.
            detail = f"{recorder.name} is another server, or was started anew, and holds no record of ours"
            self._found([Gap(GapReason.TARGET_LOST_WRITES, detail, recorder.name)])
        elif is_another:
            # Everything up to its record is there, and perhaps nothing behind it: read that again, or, if it was
            # confirmed already, the judgement at the next connection finds it out.
            self._restart(f"{recorder.name} is another server, or was started anew")
        elif before is not None and kept.content not in (before.content, written):
            if kept.content is None:
                self._events.record_forgotten(recorder.name)
            else:
                self._restart(f"{recorder.name} holds another record than the one that we wrote{recorder.whose(start)}")

    def _restart(self, why: str) -> None:
        self._start = None
        self._attached.restart(why)

    def _judge(self, start: StreamStart) -> None:
        """Once a connection, when every required target has answered; the others when they do."""
        sought = self._debts.sought()
        if any(each.kept is None for each in self._recorders if self._holds(each) and each.name not in sought):
            return
        fresh = [recorder for recorder in self._recorders if recorder.kept is not None and not recorder.is_judged]
        if self._start is not start or not fresh:
            return
        records = {each.name: each.record_before(start.end) for each in self._recorders if each.kept is not None}
        for recorder in fresh:
            recorder.is_judged = True
        known = {each.name for each in self._recorders if each.target.lies_apart}
        self._apart |= known.intersection(name for r in records.values() if r is not None for name in r.apart)
        self._new_slots = max(self._new_slots, *(r.new_slots for r in records.values() if r is not None), (), key=len)
        if not self._is_judged and start.gap is None and not any(records.values()):
            self._first_start(start)
        self._is_judged = True
        names = {None, *(recorder.name for recorder in fresh)}
        self._found([gap for gap in judge(records, start) if gap.target in names])
        self._learn({name for record in records.values() if record is not None for name in record.debts})

    def _learn(self, debts: set[str]) -> None:
        for name in self._debts.learn(debts):
            self.returned(name)

    def _holds(self, recorder: Recorder) -> bool:
        return recorder.holds and recorder.name not in self._debts.excused

    def _excuse(self) -> None:
        """Let positions go on without targets, of which a record says so that will be there after a crash.

        That is one at another target, or its own one, which stays behind and so tells it as well.
        """
        for name in self._debts.sought():
            told = (name in each.record.debts for each in self._recorders if each.record and each.name != name)
            if any(told) or any(each.name == name and each.has_record for each in self._recorders):
                # crash point: debt-written-down
                self._debts.excuse(name)
                self._moved.set()

    def _paid(self, name: str, number: int) -> None:
        self._debts.paid(name, number)
        self._moved.set()

    def _first_start(self, start: StreamStart) -> None:
        self._events.stream_begun(position=start.position)
        if self.settings.on_first_start == "widen":
            self._found([Gap(GapReason.FIRST_START, "nothing is known about the age of what is cached")])

    def _found(self, gaps: Sequence[Gap], on_repaired: Callable[[], None] | None = None) -> None:
        for gap in gaps:
            if (
                gap.target is None
                and gap.tables is None
                and self.settings.on_gap == "stop"
                and gap.reason is not GapReason.FIRST_START
            ):
                msg = (
                    f"{gap.detail}: changes may be missing, and the settings say continuity.on_gap: stop. {_WIDEN_ONCE}"
                )
                raise SlotLost(msg)
            # Positions that were applied before it was found are not recorded before it is made good: a daemon that
            # ends in the middle would find no gap any more.
            self._repairing += 1
            self._attached.repair(gap, partial(self._repaired, on_repaired))

    def _repaired(self, and_then: Callable[[], None] | None) -> None:
        self._repairing -= 1
        if and_then is not None:
            and_then()
        self._moved.set()
