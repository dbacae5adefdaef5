"""Plays cases and measures: how long after its commit is each layer free of the stale value?

The clock starts when Postgres has answered the COMMIT. From before that on, every layer is looked at about once a
millisecond: Redis by GET, L1 by a look into the process's cache, the edge by a visit through HTTP (which is what a
visitor would see). A layer is fresh when it no longer gives the stale value of any page that changed. So the figures
are upper bounds: they contain the wait for the next look, and the look itself.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from psycopg import Rollback, sql

from invalidator.demo import pages
from invalidator.demo.scenario import Case, sentinel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from invalidator.demo.pages import Page, Rendered
    from invalidator.demo.stage import Stage
    from invalidator.demo.taps import Effects

LAYERS: Final = ("redis", "l1", "edge")
_LOOK_EVERY_SECONDS: Final = 0.001
_STALE_AFTER_SECONDS: Final = 10.0
"""A layer that still gives the stale value so long after the commit is called stale: a thousand times what it takes, so
that a busy machine is not called a broken one."""
_STALE_ON_PURPOSE_AFTER_SECONDS: Final = 2.0
"""The same when a layer was broken on purpose: everybody knows how that ends."""
_STALE_AGAIN_AFTER_SECONDS: Final = 0.25
"""The same once a layer was stale: the verdict stands, and the rest of the scenario is to be shown soon."""
_CHECK_EVERY_SECONDS: Final = 0.2
"""How often to see whether the daemon, for which everybody waits, still runs."""


@dataclass(slots=True)
class Result:
    """What came of one case."""

    case: Case
    effects: Effects
    fresh_after_ms: dict[str, float | None] = field(default_factory=dict)
    """By layer; None when the layer stayed stale. A layer that cannot hold any of the pages is not in here."""
    problems: list[str] = field(default_factory=list)
    """Everything that was not as it must be, in sentences."""

    @property
    def is_good(self) -> bool:
        """Whether every layer did what it must."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "case": self.case.name,
            "what": self.case.what,
            "sql": list(self.case.statements),
            "unlinked": list(self.effects.unlinked),
            "published": list(self.effects.published),
            "purged": list(self.effects.purged),
            "fresh_after_ms": self.fresh_after_ms,
            "ok": self.is_good,
            "problems": self.problems,
        }


class Player:
    """Plays cases on a stage, one after the other."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sentinels = 0
        is_whole = stage.options.broken is None
        self._patience_seconds = _STALE_AFTER_SECONDS if is_whole else _STALE_ON_PURPOSE_AFTER_SECONDS
        self._look: dict[str, Callable[[Page], Awaitable[tuple[int, str] | None]]] = {
            "redis": self._look_into_redis,
            "l1": self._look_into_l1,
            "edge": self._visit_edge,
        }

    async def play(self, case: Case) -> Result:
        """Warm every layer, commit, wait until nothing stale is left, and check what is.

        Raises:
            ServerFailed: the daemon has ended; the message holds its log.
        """
        self._stage.daemon.check()
        try:
            stale = await self._warm(case)
        except NotWarm as error:
            return Result(case, self._stage.taps.take(), problems=[str(error)])
        self._stage.taps.take()
        fresh_after = await self._commit_and_watch(case, stale)
        problems = [] if case.drops else await self._wait_for_everything_before()
        await self._settle(case)
        result = Result(case, self._stage.taps.take(), fresh_after, problems)
        if not case.drops:
            _forget_sentinel(result.effects)
        result.problems += self._stale_layers(fresh_after)
        await self._check_drops(case, stale, result)
        await self._check_keeps(case, stale, result)
        if not case.drops and result.effects:
            result.problems.append("something was dropped, although no page changed")
        return result

    async def _warm(self, case: Case) -> dict[Page, Rendered]:
        """Bring the pages into every layer; returns what they are before the change."""
        before: dict[Page, Rendered] = {}
        for page in (*case.drops, *case.keeps):
            before[page] = await pages.render(self._stage.reader, page)
            deadline = time.perf_counter() + self._patience_seconds
            while not await self._is_warm(page, before[page]):
                # An edge that was purged softly gives the old page once more while it fetches the new one.
                if time.perf_counter() > deadline:
                    msg = f"before the commit, a layer holds {page.path} other than it is: nothing can be learned"
                    raise NotWarm(msg)
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return before

    async def _is_warm(self, page: Page, truth: Rendered) -> bool:
        await self._visit_edge(page)
        await self._stage.origin.page(page)  # a hit at the edge leaves the inner layers as they are
        held = [await self._look[layer](page) for layer in _layers_of(page)]
        return all(one == _seen(truth) for one in held)

    async def _commit_and_watch(self, case: Case, stale: dict[Page, Rendered]) -> dict[str, float | None]:
        watched = {layer: [page for page in case.drops if layer in _layers_of(page)] for layer in LAYERS}
        # An event and no cancellation: before Python 3.12 asyncio.wait_for(), by which redis-py sends, may swallow one.
        give_up = asyncio.Event()
        watches = {
            layer: asyncio.create_task(self._when_fresh(layer, {page: _seen(stale[page]) for page in held}, give_up))
            for layer, held in watched.items()
            if held
        }
        try:
            await self._commit(case)
            committed = time.perf_counter()
            await self._until_fresh(watches.values())
        finally:
            give_up.set()
            moments = await asyncio.gather(*watches.values())
        return {layer: _milliseconds(moment, committed) for layer, moment in zip(watches, moments, strict=True)}

    async def _until_fresh(self, watches: Iterable[asyncio.Task[float | None]]) -> None:
        """Return when all of them are done, one has failed, or it takes too long.

        Raises:
            ServerFailed: the daemon has ended; the message holds its log.
        """
        deadline = time.perf_counter() + self._patience_seconds
        waiting, done = set(watches), set[asyncio.Task[float | None]]()
        while waiting and not any(each.exception() for each in done) and (left := deadline - time.perf_counter()) > 0:
            self._stage.daemon.check()
            done, waiting = await asyncio.wait(
                waiting, timeout=min(left, _CHECK_EVERY_SECONDS), return_when=asyncio.FIRST_EXCEPTION
            )

    async def _when_fresh(self, layer: str, stale: dict[Page, tuple[int, str]], give_up: asyncio.Event) -> float | None:
        """The moment at which the last of the pages is no longer given as it was.

        One page after the other, because each look costs time that the shop and the daemon could use.
        """
        look = self._look[layer]
        for page, old in stale.items():
            while await look(page) == old:
                if give_up.is_set():
                    return None
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return time.perf_counter()

    async def _commit(self, case: Case) -> None:
        async with self._stage.writer.transaction():
            for statement in case.statements:
                await self._stage.writer.execute(sql.SQL(statement))
            if case.is_rolled_back:
                raise Rollback

    async def _wait_for_everything_before(self) -> list[str]:
        """Commit one thing more and wait for it in every layer; returns what is wrong.

        Positions are applied in commit order: what a later commit drops everywhere proves the earlier ones done.
        """
        self._sentinels += 1
        later = sentinel(self._sentinels)
        try:
            fresh_after = await self._commit_and_watch(later, await self._warm(later))
        except NotWarm as error:
            return [str(error)]
        return self._stale_layers(fresh_after)

    def _stale_layers(self, fresh_after: dict[str, float | None]) -> list[str]:
        stale = [layer for layer, after in fresh_after.items() if after is None]
        waited = self._patience_seconds
        if stale:
            self._patience_seconds = _STALE_AGAIN_AFTER_SECONDS
        return [f"{layer} still gave the stale value {waited:g} s after the commit" for layer in stale]

    async def _settle(self, case: Case) -> None:
        """The logs of Redis and the edge may be a moment behind what the daemon has done."""
        await self._stage.taps.settle()
        if not case.drops or any("edge" in _layers_of(page) for page in case.drops):
            await self._stage.taps.purges_seen(self._patience_seconds)

    async def _check_drops(self, case: Case, stale: dict[Page, Rendered], result: Result) -> None:
        """A last look at everything, now that all layers had time to be filled again."""
        for page in case.drops:
            truth = await pages.render(self._stage.reader, page)
            if truth == stale[page]:
                result.problems.append(f"{page.path} did not change at all: this case proves nothing")
            visitor = await self._visit_edge(page)
            for layer in _layers_of(page):
                held = visitor if layer == "edge" else await self._look[layer](page)
                if held is not None and held != _seen(truth) and result.fresh_after_ms.get(layer) is not None:
                    result.problems.append(f"{layer} holds an old {page.path} again")

    async def _check_keeps(self, case: Case, before: dict[Page, Rendered], result: Result) -> None:
        for page in case.keeps:
            for layer in _layers_of(page):
                if layer == "edge":
                    is_kept = await self._is_hit(page)
                else:
                    is_kept = await self._look[layer](page) == _seen(before[page])
                if not is_kept:
                    result.problems.append(f"{layer} dropped {page.path}, which did not change")

    async def _look_into_redis(self, page: Page) -> tuple[int, str] | None:
        stored = await self._stage.redis.get(page.key)
        return None if stored is None else _seen(pages.Rendered.decode(stored))

    async def _look_into_l1(self, page: Page) -> tuple[int, str] | None:
        held = self._stage.l1.get(page.key)
        return None if held is None else _seen(held)

    async def _visit_edge(self, page: Page) -> tuple[int, str]:
        async with self._stage.http.get(self._stage.edge_url + page.path) as answer:
            return answer.status, await answer.text()

    async def _is_hit(self, page: Page) -> bool:
        async with self._stage.http.get(self._stage.edge_url + page.path) as answer:
            return answer.headers.get("X-Cache") == "HIT"


class NotWarm(Exception):  # noqa: N818
    """A page is not cached as it is, so nothing could be learned from changing it: the layer is stale already."""


def _layers_of(page: Page) -> tuple[str, ...]:
    return ("redis", "l1") if page.is_private else LAYERS


def _seen(rendered: Rendered) -> tuple[int, str]:
    return rendered.status, rendered.body


def _milliseconds(moment: float | None, committed: float) -> float | None:
    # The daemon may be done before our own COMMIT is answered.
    return None if moment is None else round(max(0.0, moment - committed) * 1000, 2)


def _forget_sentinel(effects: Effects) -> None:
    """Only what the case itself has dropped counts."""
    for names in (effects.unlinked, effects.published, effects.purged):
        for name in [name for name in names if name in _SENTINEL_NAMES]:
            del names[name]


_SENTINEL_NAMES: Final = frozenset(
    {
        "product:stapler-596", "product-stapler-596", "category:3:products", "category:3:*", "list-3",
    }
)  # fmt: skip
