"""Records beside real servers: one that hangs makes nobody else wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis

from invalidator.checkpoint.record import Record
from invalidator.continuity import Continuity, Settings
from invalidator.demo.servers import KeyValueServer
from invalidator.model import Gap, Lsn, StreamStart
from invalidator.net.clock import SystemClock
from invalidator.targets import redis_keys
from invalidator.targets.redis_keys import RedisKeys
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State, TargetState
from tests.support.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("quiet_logs")

PATIENT = {"timeout_seconds": 3600, "connect_timeout_seconds": 3600}


class Repairing:
    """Makes everything good at once, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.gaps: list[Gap] = []
        self.restarts: list[str] = []
        self.confirmed: list[Lsn] = []

    def repair(self, gap: Gap, on_repaired: Callable[[], None]) -> None:
        self.gaps.append(gap)
        on_repaired()

    def restart(self, why: str) -> None:
        self.restarts.append(why)

    def confirm(self, position: Lsn) -> None:
        self.confirmed.append(position)


@asynccontextmanager
async def keeping(**urls: str) -> AsyncIterator[tuple[Continuity, Repairing]]:
    """One that keeps its records at these servers, and waits for an answer for an hour."""
    targets: list[RedisKeys] = [
        redis_keys.build(name, redis_keys.Settings.model_validate({"type": "redis_keys", "url": url, **PATIENT}))
        for name, url in urls.items()
    ]
    state = State(targets={name: TargetState(name) for name in urls})
    clock = SystemClock()
    keeper = Continuity(
        [(each.name, each, True) for each in targets],
        slot="shop",
        settings=Settings(redo_window_seconds=0),
        events=Events(state, clock.time),
        clock=clock,
    )
    repairing = Repairing()
    keeper.attach(repairing)
    keeper.begin(StreamStart("7", 1, Lsn(100)))
    working = asyncio.create_task(keeper.run())
    try:
        yield keeper, repairing
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        for each in targets:
            await each.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110  (the servers' state has no event)
            await asyncio.sleep(0.01)


def applied(store: redis.Redis) -> Lsn | None:
    content = store.get("invalidator:shop")
    record = Record.decode(content if isinstance(content, bytes) else None)
    return None if record is None else record.applied


async def test_a_redis_that_hangs_delays_neither_our_word_nor_our_record_at_another_one(
    own_redis: KeyValueServer, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as well, redis.Redis.from_url(own_redis.url) as hung:
        async with keeping(hung=own_redis.url, well=redis_url) as (keeper, repairing):
            keeper.applied(Lsn(200))
            await until(lambda: repairing.confirmed == [Lsn(200)])
            os.kill(own_redis.pid, signal.SIGSTOP)
            try:
                for position in (Lsn(300), Lsn(400)):
                    well.flushdb()  # it has forgotten both
                    keeper.applied(position)
                    await until(lambda wanted=position: applied(well) == wanted)  # type: ignore[misc]
                    await until(lambda: well.get("invalidator:shop:owner") == b"7")
                assert repairing.confirmed == [Lsn(200)]
            finally:
                os.kill(own_redis.pid, signal.SIGCONT)
            await until(lambda: repairing.confirmed[-1] == Lsn(400))

        assert applied(hung) == Lsn(400)
        assert (repairing.gaps, repairing.restarts) == ([], [])
