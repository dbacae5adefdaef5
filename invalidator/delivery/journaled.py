"""A CDN target behind the journal: a batch is applied when it is durable, and purged as soon as the CDN takes it.

The lane hands a batch over only when the inner layers have applied it, so whatever is in the journal may go out at
once. If the journal cannot take it, the target is applied directly, and the lane confirms late as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from invalidator.delivery.journal import Journal, as_invalidation, as_purges
from invalidator.delivery.journal_file import EVERYTHING, Failure, Purge
from invalidator.delivery.waiting import retry_seconds, wait
from invalidator.errors import JournalUnusable, TargetError, TargetThrottled, TargetUnavailable
from invalidator.model import Applied, Batch, Layer
from invalidator.ports import Kept, Pacing, Repeating

if TYPE_CHECKING:
    from invalidator.model import Invalidation
    from invalidator.ports import RetryOptions, Target

UNUSABLE_SECONDS: Final = 5.0
"""Between two looks at a journal that cannot be read, and that nobody else looks at."""
_FILE: Final = "file"
"""The incarnation of a record in a file: while we have it open it is the same one."""
MAX_RESUMED_SECONDS: Final = 3600.0
"""A pause that goes on after a restart is no longer than this: the clock may have been set back."""


class JournaledTarget:
    """A CDN target as ``ports`` has it, with a record and something to do in the background.

    Args:
        target: purges.
        journal: shared by all CDN targets.
        required: False: what fails beyond the deadline is given up.
        retry: how purges that failed are tried again.
    """

    lies_apart: bool = True

    def __init__(self, target: Target, journal: Journal, *, required: bool, retry: RetryOptions) -> None:
        self.repeat_after_seconds = target.repeat_after_seconds if isinstance(target, Repeating) else ()
        self._target = target
        self._pacing = target if isinstance(target, Pacing) else None
        self._journal = journal
        self._required = required
        self._retry = retry
        self._clock = journal.clock
        self._events = journal.events
        self._attempts = 0
        self._since = 0.0
        self._throttled_seconds = 0.0
        self._heartbeat: float | None = None
        self._asked = asyncio.Event()
        journal.add(target, self._asked.set)

    def __repr__(self) -> str:
        return f"<JournaledTarget {self._target!r} attempts={self._attempts}>"

    @property
    def name(self) -> str:
        """That of the CDN target."""
        return self._target.name

    @property
    def layer(self) -> Layer:
        """That of the CDN target."""
        return self._target.layer

    @property
    def rate_limit_wait_seconds(self) -> float:
        """Waited for the target's token bucket and because it asked for it."""
        own = self._pacing.rate_limit_wait_seconds if self._pacing is not None else 0.0
        return self._throttled_seconds + own

    async def apply(self, batch: Batch) -> Applied:
        """Take the batch durably, or, if that cannot be done, purge it now.

        Raises:
            TargetError: neither could be done.
        """
        purges = as_purges(
            batch.invalidation,
            now=self._clock.time(),
            committed=self._local(batch.oldest_commit_time),
            repeats=not batch.is_repeat,
        )
        try:
            if purges:
                await self._journal.ask(self.name, purges)
                # crash point: journal-has-taken
        except JournalUnusable:
            return await self._target.apply(batch)
        self._heartbeat = batch.heartbeat or self._heartbeat
        if purges or batch.heartbeat is not None:
            self._asked.set()
        return Applied(is_deferred=True)

    async def load_record(self, name: str) -> Kept:
        """Our record, from the journal's file: it says what is in there, or was purged from there.

        Raises:
            TargetUnavailable: the file cannot be used.
        """
        try:
            return Kept(await self._journal.load_record(self.name, name), _FILE)
        except JournalUnusable as error:
            raise TargetUnavailable(str(error)) from error

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        """Whoever has the file open has it alone; see ``ports.Recording``."""
        return owner

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        """Replace our record; see ``ports.Recording``.

        Raises:
            TargetUnavailable: the file cannot be used.
        """
        try:
            return Kept(await self._journal.keep_record(self.name, name, content, expected=expected), _FILE)
        except JournalUnusable as error:
            raise TargetUnavailable(str(error)) from error

    async def close(self) -> None:
        """Release connections; the journal is its owner's."""
        await self._target.close()

    async def run(self) -> None:
        """Work the journal off, until cancelled; raises nothing."""
        await self._resume()
        while True:
            self._asked.clear()
            try:
                taken = await self._journal.take(self.name)
                if taken or self._heartbeat is not None:
                    await self._purge(taken)
                else:
                    due = self._journal.next_repeat(self.name)
                    await wait(self._asked, self._clock, None if due is None else max(0.0, due - self._clock.time()))
            except JournalUnusable:  # told by the journal
                await wait(self._asked, self._clock, UNUSABLE_SECONDS)

    async def _resume(self) -> None:
        """Go on with the pause that a restart has interrupted."""
        try:
            failure = await self._journal.failure(self.name)
        except JournalUnusable:
            return
        if failure is not None:
            self._attempts, self._since = failure.attempts, failure.since
            self._events.delivery_resumed(self.name, error=failure.error, result=failure.result, since=failure.since)
            await self._clock.sleep(min(max(0.0, failure.not_before - self._clock.time()), MAX_RESUMED_SECONDS))

    async def _purge(self, taken: list[Purge]) -> None:
        is_repeat = bool(taken) and all(each.delay for each in taken)
        batch = Batch(as_invalidation(taken), heartbeat=self._heartbeat, is_repeat=is_repeat)
        self._heartbeat = None
        started = self._clock.monotonic()
        try:
            applied = await self._target.apply(batch)
        except TargetError as error:
            await self._fail(taken, error)
            return
        # crash point: purged-not-settled
        commits = [each.committed for each in taken if each.committed is not None]
        age = max(0.0, self._clock.time() - min(commits)) if commits else None
        seconds = self._clock.monotonic() - started
        happenings = self._events.state.happenings
        if happenings.watchers and taken:
            times = {"at": self._clock.time(), "seconds": seconds}
            happenings.applied(self.name, self.layer, batch, applied, **times, age_seconds=age)
        self._events.batch_applied(self.name, applied, seconds=seconds, age_seconds=age)
        if self._attempts:
            self._attempts = 0
            await self._journal.note(self.name, None)
        await self._journal.settle(self.name, taken, self._repeats(taken))

    async def _fail(self, taken: list[Purge], error: TargetError) -> None:
        """Keep what remains, give up what a best-effort target need not have any more, and pause."""
        now = self._clock.time()
        seconds = retry_seconds(error, self._attempts + 1, self._retry)
        if not self._attempts:
            self._since = now
        self._attempts += 1
        self._events.delivery_failed(
            self.name, error=str(error), result=error.result, attempt=self._attempts, retry_in_seconds=seconds, now=now
        )
        if isinstance(error, TargetThrottled):
            self._throttled_seconds += seconds
        self._journal.progress.set()
        failure = Failure(self._attempts, self._since, now + seconds, str(error), error.result)
        with contextlib.suppress(JournalUnusable):  # told by the journal, and no reason to knock at once
            await self._journal.note(self.name, failure)
            await self._keep(taken, error.remaining)
        await self._clock.sleep(seconds)

    async def _keep(self, taken: list[Purge], remaining: Invalidation | None) -> None:
        """Settle what was done before it failed, and what is given up."""
        done = [] if remaining is None else _done(taken, remaining)
        then = self._repeats(done)
        if remaining is not None and remaining.cdn_all and all(each.name != EVERYTHING for each in taken):
            then.append(Purge(EVERYTHING, self._clock.time()))  # the target wants it in the place of tags
        given_up: list[Purge] = []
        if not self._required:
            before = self._clock.time() - self._retry.deadline_seconds
            left = set(taken).difference(done)
            given_up = [each for each in left if each.due - each.delay <= before]
        if done or then or given_up:
            await self._journal.settle(self.name, [*done, *given_up], then)
        if given_up:
            self._events.delivery_abandoned(self.name, items=len(given_up))

    def _repeats(self, done: list[Purge]) -> list[Purge]:
        """What is purged again later: a response that was being rendered during the purge is stored stale."""
        now = self._clock.time()
        return [
            replace(each, delay=delay, due=now + delay, repeats=False, committed=None)
            for each in done
            if each.repeats and not each.delay
            for delay in self.repeat_after_seconds
        ]

    def _local(self, commit_time: float | None) -> float | None:
        """The server's unix seconds on our clock."""
        offset = self._events.state.source.clock_offset_seconds
        return None if commit_time is None else commit_time - offset


def _done(taken: list[Purge], remaining: Invalidation) -> list[Purge]:
    """What a target had done before it failed; some know tags in lower case only."""
    left = remaining.cdn | remaining.cdn_soft
    if remaining.cdn_all:
        left.add(EVERYTHING)
    return [each for each in taken if each.name not in left and each.name.lower() not in left]
