"""What every CDN target has in common; a provider's own file adds only what its API is like.

A provider declares its capabilities and its tag grammar as data and has three pure functions: ``purge`` (tags to
request), ``purge_everything`` (to request) and ``judge`` (answer to outcome). This module obeys them: it chunks by
count and by bytes, keeps to the rate, sends, halves what was too large, finds the one tag that a provider does not
take, and says what is still to be done when it cannot go on.

A tag that cannot be purged is not left out. The rules engine keeps such tags away (it knows the grammar), so this
is the second door: the rest of the batch is purged first, then, where ``purge_all_on_gap`` consents, everything;
else the batch stays unfinished with just that tag remaining, and the operator is told.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Final, Generic, TypeVar, assert_never

import structlog

from invalidator.errors import ConfigError, TargetError, TargetRejected, TargetThrottled, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Layer
from invalidator.net.clock import SystemClock
from invalidator.net.http import Answer, HttpClient, Request
from invalidator.ports import Clock, Probe, TagGrammar
from invalidator.targets.cdn._capabilities import Capabilities, Rate
from invalidator.targets.cdn._outcome import (
    Done,
    OperatorMustAct,
    Outcome,
    RejectTags,
    RetryAfter,
    Split,
    Unavailable,
    judge_status,
)
from invalidator.targets.cdn._settings import CdnOptions
from invalidator.targets.cdn._token_bucket import TokenBucket

PROBE_TAG: Final = "invalidator-probe"
"""Purged to see whether purging is allowed; no response should carry it."""

MAX_REFUSED_TAGS: Final = 8
"""So many tags refused one by one mean that the provider refuses our requests, not our tags."""


@dataclass(frozen=True, slots=True)
class _Call:
    """Tags that go out together."""

    tags: tuple[str, ...]
    soft: bool

    def halves(self) -> tuple[_Call, _Call]:
        middle = len(self.tags) // 2
        return _Call(self.tags[:middle], self.soft), _Call(self.tags[middle:], self.soft)


@dataclass(slots=True)
class _Work:
    """One batch at this target: what is still to do, and what was done."""

    hard: set[str]
    soft: set[str]
    everything: bool
    calls: deque[_Call] = field(default_factory=deque)
    refused: list[str] = field(default_factory=list)
    found: int = 0
    purged: int = 0
    removed: int = 0

    def finish(self, call: _Call, removed: int) -> None:
        self.hard.difference_update(call.tags)
        self.soft.difference_update(call.tags)
        self.purged += len(call.tags)
        self.removed += removed

    def remaining(self) -> Invalidation:
        return Invalidation(
            cdn=set(map(_encoded, self.hard)),
            cdn_soft=set(map(_encoded, self.soft)),
            cdn_all=self.everything,
        )


OptionsT = TypeVar("OptionsT", bound=CdnOptions)


class TagPurge(ABC, Generic[OptionsT]):
    """A target that purges by tag over HTTP; see the module for what a provider's class adds.

    Args:
        name: of the target in the settings.
        settings: its options.
        clock: turned by tests.
    """

    layer: ClassVar[Layer] = Layer.L3
    tag_grammar: ClassVar[TagGrammar]
    capabilities: ClassVar[Capabilities]

    def __init__(self, name: str, settings: OptionsT, *, clock: Clock | None = None) -> None:
        self.name = name
        self.settings = settings
        self.repeat_after_seconds = settings.repeat_after_seconds
        self.consents_to_purge_all = settings.purge_all_on_gap
        self.rate_limit_wait_seconds = 0.0
        if settings.purge_all_on_gap and not self.capabilities.everything:
            msg = f"target '{name}': {self.tag_grammar.provider} has no call that purges everything"
            raise ConfigError(msg, fix="remove purge_all_on_gap and write a coarse cdn tag into each rule")
        self._clock: Clock = SystemClock() if clock is None else clock
        self._bucket = TokenBucket(self._rate(), self._clock.monotonic())
        self._client = HttpClient(
            timeout_seconds=settings.timeout_seconds, max_connections=self.capabilities.concurrency
        )

    @abstractmethod
    def purge(self, tags: list[str], *, soft: bool) -> Request:
        """The request that purges these tags, at most ``max_tags`` that the grammar allows. Pure."""

    def purge_everything(self) -> Request:
        """The request that purges everything; asked only when ``capabilities.everything``. Pure."""
        raise NotImplementedError

    def judge(self, answer: Answer) -> Outcome:
        """What an answer means. Pure; never raises, whatever the answer holds."""
        return judge_status(answer)

    def prove_alive(self) -> Request | None:
        """The cheapest request that any answer below 500 proves the provider alive by, if there is one. Pure."""
        return None

    def default_rate(self) -> Rate:
        """The rate where the settings give none; here that of the capabilities."""
        return self.capabilities.rate

    async def apply(self, batch: Batch) -> Applied:
        """Purge every tag that the batch names; see ``ports.Target`` for what is guaranteed.

        Raises:
            TargetThrottled: the provider asks for a pause.
            TargetUnavailable: no answer, or one that says "not now".
            TargetRejected: credentials, URL or a tag are refused, or everything should go without consent.
        """
        work = self._plan(batch.invalidation)
        if work.everything and self.consents_to_purge_all:
            return await self._purge_everything(work)
        if work.calls:
            await self._work_off(work)
        elif batch.heartbeat is not None and not work.refused and not work.everything:
            await self._prove_alive()
        if work.refused:
            return await self._widen(work)
        if work.everything:
            msg = f"{self._label}: everything is stale, and purge_all_on_gap does not consent to purge it"
            raise TargetRejected(msg, remaining=work.remaining())
        return Applied(cdn_tags=work.purged, removed=work.removed)

    async def probe(self) -> Probe:
        """Purge a tag that nothing carries: the one call that proves the permission which we need, and drops nothing.

        Asking about the token instead would need permissions that a token for purging alone does not have.
        """
        outcome = await self._exchange(self.purge([PROBE_TAG], soft=self.capabilities.soft))
        if not isinstance(outcome, Done):
            msg = f"{self._label}: does not take a purge of the tag '{PROBE_TAG}': check URL and settings"
            raise TargetRejected(msg)
        return Probe((f"{self.tag_grammar.provider}: purge allowed",))

    async def close(self) -> None:
        """Release connections."""
        await self._client.close()

    @property
    def _label(self) -> str:
        return f"{self.tag_grammar.provider} ({self.name})"

    def _rate(self) -> Rate:
        default = self.default_rate()
        return Rate(self.settings.rate_per_second or default.per_second, self.settings.rate_burst or default.burst)

    def _plan(self, invalidation: Invalidation) -> _Work:
        hard, soft = self._names(invalidation.cdn), self._names(invalidation.cdn_soft)
        work = _Work(hard, soft - hard, invalidation.cdn_all)
        kinds = [(work.hard, False), (work.soft, True)] if self.capabilities.soft else [(hard | soft, False)]
        for tags, is_soft in kinds:
            allowed = [tag for tag in sorted(tags) if self.tag_grammar.allows(_encoded(tag))]
            work.refused += tags.difference(allowed)
            work.calls += (_Call(chunk, is_soft) for chunk in self.capabilities.chunks(allowed))
        return work

    def _names(self, tags: set[bytes]) -> set[str]:
        names = {tag.decode(errors="surrogateescape") for tag in tags}  # no text at all is refused, not a crash
        return names if self.capabilities.case_sensitive else {name.lower() for name in names}

    async def _work_off(self, work: _Work) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.capabilities.concurrency, len(work.calls))):
                    group.create_task(self._call_until_done(work))
        except BaseExceptionGroup as failures:
            ours, others = failures.split(TargetError)
            if ours is None or others is not None:
                raise
            # Several calls may fail at once: the one that asks for most is the one to act on.
            worst = max((error for error in ours.exceptions if isinstance(error, TargetError)), key=_weight)
            worst.remaining = work.remaining()
            raise worst from None

    async def _call_until_done(self, work: _Work) -> None:
        while work.calls:
            call = work.calls.popleft()
            outcome = await self._exchange(self.purge(list(call.tags), soft=call.soft), tokens=len(call.tags))
            match outcome:
                case Done(removed):
                    work.finish(call, removed)
                case Split():
                    self._search(work, call, frozenset())
                case RejectTags(tags):
                    self._search(work, call, tags)
                case _:
                    assert_never(outcome)

    def _search(self, work: _Work, call: _Call, named: frozenset[str]) -> None:
        """Set aside the tags that are to blame, and call again for the others."""
        blamed = set(call.tags) if len(call.tags) == 1 else named.intersection(call.tags)
        work.refused += blamed
        work.found += len(blamed)
        if work.found > MAX_REFUSED_TAGS:
            if not self.consents_to_purge_all:
                msg = f"{self._label}: refuses tag after tag, so it is the request that is wrong: check the settings"
                raise TargetRejected(msg)
            work.calls.clear()  # everything will be purged instead
        elif not blamed:
            work.calls.extendleft(reversed(call.halves()))
        elif rest := tuple(tag for tag in call.tags if tag not in blamed):
            work.calls.appendleft(_Call(rest, call.soft))

    async def _exchange(self, request: Request, *, tokens: int = 1) -> Done | Split | RejectTags:
        wait = self._bucket.take(tokens if self.capabilities.charged_per == "tag" else 1, self._clock.monotonic())
        if wait > 0:
            self.rate_limit_wait_seconds += wait
            await self._clock.sleep(wait)
        outcome = self.judge(await self._client.send(request))
        match outcome:
            case RetryAfter():
                seconds = outcome.wait_seconds(self._clock.time())
                msg = f"{self._label}: asks us to wait {seconds:g} s"
                raise TargetThrottled(msg, retry_after_seconds=seconds)
            case Unavailable(message, result):
                msg = f"{self._label}: {message}"
                raise TargetUnavailable(msg, result=result)
            case OperatorMustAct(message):
                msg = f"{self._label}: {message}"
                raise TargetRejected(msg)
            case _:
                return outcome

    async def _purge_everything(self, work: _Work) -> Applied:
        work.everything = True
        work.hard.clear()
        work.soft.clear()
        try:
            outcome = await self._exchange(self.purge_everything())
        except TargetError as error:
            error.remaining = work.remaining()
            raise
        if not isinstance(outcome, Done):
            msg = f"{self._label}: does not take the call that purges everything: check URL and settings"
            raise TargetRejected(msg, remaining=work.remaining())
        return Applied(cdn_tags=work.purged, removed=work.removed + outcome.removed, widened=max(1, len(work.refused)))

    async def _widen(self, work: _Work) -> Applied:
        hashes = [hashlib.sha256(_encoded(tag)).hexdigest()[:12] for tag in work.refused[:MAX_REFUSED_TAGS]]
        if self.consents_to_purge_all:
            # The delivery counts it; which tags these were, without their values, is known only here.
            structlog.get_logger("invalidator").warning("tags.refused", target=self.name, sha256=hashes)
            return await self._purge_everything(work)
        msg = (
            f"{self._label}: does not take {len(work.refused)} of the tags (sha256 {', '.join(hashes)}); a tag is "
            f"{self.tag_grammar.description}: filter the value in the rule, or consent with purge_all_on_gap: true"
        )
        raise TargetRejected(msg, remaining=work.remaining())

    async def _prove_alive(self) -> None:
        request = self.prove_alive()
        if request is None:
            return
        answer = await self._client.send(request)
        if answer.status >= 500:
            msg = f"{self._label}: answered {answer.status}"
            raise TargetUnavailable(msg, result="http_5xx")


def _encoded(tag: str) -> bytes:
    return tag.encode(errors="surrogateescape")


def _weight(error: TargetError) -> tuple[int, float]:
    match error:
        case TargetRejected():
            return 2, 0.0
        case TargetThrottled():
            return 1, error.retry_after_seconds
        case _:
            return 0, 0.0
