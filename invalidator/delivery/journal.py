"""The journal for all CDN targets: the file behind a thread, its bound, and what becomes visible of it.

Only what a CDN that fails has not purged yet is in here. Correctness does not depend on it: whenever it cannot be
used, its targets confirm late, as they do without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from pydantic import Field

from invalidator.delivery.journal_file import EVERYTHING, Failure, Figures, JournalFile, Purge
from invalidator.errors import JournalUnusable
from invalidator.model import Invalidation
from invalidator.ports import Options, TagPurging
from invalidator.telemetry.state import JournalState

if TYPE_CHECKING:
    from invalidator.ports import Clock, Target
    from invalidator.telemetry.events import Events

SHUT_SECONDS: Final = 2.0
"""Between two tries to open a file that cannot be opened or written: our record alone is asked for twice a second."""
_WITHIN: Final = frozenset({"full", "disk_full"})
"""Reasons for which the file stays open and answers: what it has can be read and purged."""
MAX_TAKEN: Final = 1000
"""Names that go to a target at once; a crash before they are settled purges no more than these again."""

Result = TypeVar("Result")


class Settings(Options):
    """Settings of ``state:``."""

    path: str = ""
    """A file, such as `/var/lib/invalidator/state.db`, that takes the work of CDN targets: then no outage of a CDN
    holds WAL. It needs a volume that outlives the process, and one daemon for each file. Empty: none; CDN targets hold
    the position until they have purged. It also holds the record by which missing changes are noticed."""
    max_journal_items: int = Field(default=100_000, ge=100)
    """CDN tags that may wait in the file for each target. Beyond it, tags of rules are replaced by their coarse tags,
    then, with `purge_all_on_gap`, all by one purge of everything; else the position is held again."""


class Cover(Protocol):
    """What the coarse CDN tags of the rules in force cover."""

    def everything(self) -> Invalidation:
        """The coarse tags of all rules."""
        ...

    def shrink(self, tags: Collection[bytes], wanted: int) -> tuple[set[bytes], Invalidation]:
        """The tags that coarse ones replace, and those; until no more than ``wanted`` are left."""
        ...


class Journal:
    """The journal file, for use in the event loop.

    Args:
        settings: where it is, and its bound.
        cover: gives what the rules in force cover.
        events: what is told.
        clock: unix seconds.
    """

    def __init__(self, settings: Settings, cover: Callable[[], Cover], events: Events, clock: Clock) -> None:
        self.clock = clock
        self.events = events
        self.progress = asyncio.Event()
        """Set whenever less waits than before, or it is known that it must wait."""
        self._limit = settings.max_journal_items
        self._cover = cover
        self._consents: dict[str, bool] = {}
        self._next_repeat: dict[str, float | None] = {}
        self._failed: dict[str, str] = {}  # which operation, by target; empty: any
        self._wakers: list[Callable[[], None]] = []
        self._lost: str | None = None
        self._shut: JournalUnusable | None = None
        self._retry_at = 0.0
        self._file = JournalFile(Path(settings.path), self._on_lost, self._on_set_aside)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    def __repr__(self) -> str:
        return f"<Journal {self._file.path} targets={list(self._consents)}>"

    def add(self, target: Target, wake: Callable[[], None]) -> None:
        """Take the work of one more target, which is woken when there is more in the file than it has asked for."""
        self._wakers.append(wake)
        self._consents[target.name] = isinstance(target, TagPurging) and target.consents_to_purge_all
        self.events.state.targets[target.name].journal = JournalState(self._limit)

    async def open(self) -> None:
        """Look what is in there from before; raises nothing, because every later call tries again."""
        items: dict[str, int] = {}
        try:
            for target in self._consents:
                items[target] = (await self._call("look", target, self._file.figures)).items
            strangers = await self._in_thread(self._file.strangers, set(self._consents))
        except JournalUnusable:
            return
        self.events.journal_opened(path=str(self._file.path), items=items, strangers=strangers)

    async def ask(self, target: str, purges: Collection[Purge]) -> None:
        """Take requests durably.

        Raises:
            JournalUnusable: nothing was taken.
        """
        ask = partial(self._file.ask, limit=self._limit, consents=self._consents[target], shrink=self._shrink)
        steps = await self._call("ask", target, ask, purges)
        state = self._state(target)
        state.taken_items += len(purges)
        if steps:
            self.events.journal_escalated(target, steps=steps, left=state.items)

    async def take(self, target: str) -> list[Purge]:
        """What is due for the target, oldest first.

        Raises:
            JournalUnusable: it cannot be read now.
        """
        now = self.clock.time()
        take = partial(self._file.take, now=now, limit=MAX_TAKEN, max_repeats=self._limit // 2)
        taken = await self._call("take", target, take)
        early = [each.due - now for each in taken if each.delay and now < each.due <= now + each.delay]
        if early:
            self.events.repeat_hurried(items=len(early), early_seconds=max(early))
        return taken

    async def settle(self, target: str, done: Collection[Purge], then: Collection[Purge] = ()) -> None:
        """Forget what was purged, and put in what follows.

        Raises:
            JournalUnusable: it will be purged once more.
        """
        await self._call("settle", target, self._file.settle, done, then)
        self.progress.set()

    async def note(self, target: str, failure: Failure | None) -> None:
        """Keep how the target fails, for after a restart.

        Raises:
            JournalUnusable: it is not kept.
        """
        await self._call("note", target, self._file.note, failure)

    async def failure(self, target: str) -> Failure | None:
        """How the target failed before the restart.

        Raises:
            JournalUnusable: it cannot be read now.
        """
        return await self._call("look", target, self._file.failure)

    async def load_record(self, target: str, name: str) -> bytes | None:
        """What is kept for the target under this name.

        Raises:
            JournalUnusable: it cannot be read now.
        """
        return await self._in_thread(self._file.load_record, target, name)

    async def keep_record(self, target: str, name: str, content: bytes, *, expected: bytes | None) -> bytes | None:
        """Replace it durably, unless something else is kept than expected; what is kept now.

        Raises:
            JournalUnusable: it may not be kept.
        """
        return await self._in_thread(self._file.keep_record, target, name, content, expected)

    async def drain(self) -> None:
        """Return when nothing waits but for targets that fail."""
        while any(self._state(name).items and not self._fails(name) for name in self._consents):
            self.progress.clear()
            await self.progress.wait()

    async def close(self) -> None:
        """Give file and lock back."""
        await self._in_executor(self._file.close)
        self._thread.shutdown()

    def next_repeat(self, target: str) -> float | None:
        """Unix seconds at which the target's next repeat is due."""
        return self._next_repeat.get(target)

    async def _call(self, operation: str, target: str, function: Callable[..., Result], *arguments: object) -> Result:
        """Do it for the target in the thread, then look what waits for it now."""

        def both() -> tuple[Result, Figures]:
            return function(target, *arguments), self._file.figures(target)

        try:
            result, figures = await self._in_thread(both)
        except JournalUnusable as error:
            if self._failed.get(target) != "ask":  # only another request shows that there is room again
                self._failed[target] = operation if error.reason in _WITHIN else ""
            self.events.journal_failed(target, error=str(error), reason=error.reason)
            self.progress.set()
            raise
        state = self._state(target)
        state.items, state.repeats, state.oldest = figures.items, figures.repeats, figures.oldest
        self._next_repeat[target] = figures.next_repeat
        if operation == "ask" or self._failed.get(target) in ("", operation):
            self._failed.pop(target, None)
            self.events.journal_recovered(target)
        return result

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Do it there; a file that could be neither opened nor written a moment ago is not touched."""
        if self._shut is not None and self.clock.monotonic() < self._retry_at:
            raise JournalUnusable(str(self._shut), reason=self._shut.reason)
        try:
            result = await self._in_executor(function, *arguments)
        except JournalUnusable as error:
            # A damaged file lies aside by now, and a new one should take its place at once.
            if error.reason not in _WITHIN | {"damaged"}:
                again = JournalUnusable(str(error), reason=error.reason)  # without what the traceback holds
                self._shut, self._retry_at = again, self.clock.monotonic() + SHUT_SECONDS
            raise
        was_shut, self._shut = self._shut is not None, None
        if self._tell_lost() or was_shut:
            for wake in self._wakers:
                wake()
        return result

    async def _in_executor(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *arguments))

    def _tell_lost(self) -> bool:
        name, self._lost = self._lost, None
        if name is None:
            return False
        for target, consents in self._consents.items():
            steps = ["everything" if consents else "coarse"]
            self.events.journal_lost(target, set_aside=name, steps=steps)
        return True

    def _state(self, target: str) -> JournalState:
        return self.events.state.targets[target].journal or JournalState()

    def _fails(self, target: str) -> bool:
        state = self.events.state.targets[target]
        return state.failing_since is not None or self._state(target).unusable is not None

    # ---------------------------------------------------------------- called in the thread

    def _shrink(self, waiting: Mapping[bytes, bool]) -> tuple[Collection[bytes], Mapping[bytes, bool]]:
        replaced, instead = self._cover().shrink(waiting, self._limit // 2)
        return replaced, {each.name: each.soft for each in as_purges(instead, now=0)}

    def _on_lost(self) -> Mapping[str, Iterable[Purge]]:
        """Everything where that is allowed; else the coarse tags of all rules, which cover what rules have named."""
        coarse, now = self._cover().everything(), self.clock.time()
        return {
            target: as_purges(Invalidation(cdn_all=True) if consents else coarse, now=now)
            for target, consents in self._consents.items()
        }

    def _on_set_aside(self, name: str) -> None:
        self._lost = name


def as_purges(
    invalidation: Invalidation, *, now: float, committed: float | None = None, repeats: bool = True
) -> list[Purge]:
    """What an invalidation names at a CDN, as requests of this moment (unix seconds)."""
    make = partial(Purge, due=now, committed=committed, repeats=repeats)
    found = [make(name, soft=False) for name in invalidation.cdn]
    found += [make(name, soft=True) for name in invalidation.cdn_soft - invalidation.cdn]
    return [*found, make(EVERYTHING)] if invalidation.cdn_all else found


def as_invalidation(purges: Iterable[Purge]) -> Invalidation:
    """What these ask a CDN for."""
    asked = Invalidation()
    for each in purges:
        if each.name == EVERYTHING:
            asked.cdn_all = True
        else:
            (asked.cdn_soft if each.soft else asked.cdn).add(each.name)
    asked.cdn_soft -= asked.cdn
    return asked
