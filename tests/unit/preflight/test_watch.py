"""When targets are asked again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from invalidator.config import PreflightSettings
from invalidator.errors import TargetUnavailable
from invalidator.ports import Probe, ProbeFinding
from invalidator.preflight.watch import watch_targets
from invalidator.rules.rule import RuleSet
from invalidator.targets import blackhole
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from tests.support.clock import ManualClock


class Asked(blackhole.Blackhole):
    """A target that can be asked, and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__("hole", blackhole.Settings(type="blackhole"))
        self.times = 0
        self.error: TargetUnavailable | None = None
        self.findings: tuple[ProbeFinding, ...] = ()

    async def probe(self) -> Probe:
        self.times += 1
        if self.error is not None:
            raise self.error
        return Probe(("here",), self.findings)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@contextlib.asynccontextmanager
async def watching(target: Asked, events: Events, clock: ManualClock) -> AsyncIterator[None]:
    settings = PreflightSettings()
    task = asyncio.create_task(watch_targets(settings, [target], lambda: RuleSet((), ""), events, clock))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_target_that_refuses_is_asked_every_half_minute_until_it_is_well(clock: ManualClock) -> None:
    target, state = Asked(), State()
    target.error = TargetUnavailable("gone")
    async with watching(target, Events(state), clock):
        await clock.advance(0)
        assert [each.code for each in state.findings["targets"]] == ["target-unreachable"]
        await clock.advance(60)
        assert target.times == 3
        target.error = None
        await clock.advance(30)
        assert state.findings["targets"] == ()
        await clock.advance(570)
        assert target.times == 4
        await clock.advance(30)
        assert target.times == 5


async def test_a_warning_is_no_reason_to_ask_more_often(clock: ManualClock) -> None:
    target, state = Asked(), State()
    target.findings = (ProbeFinding("eviction-evicts-keys", "warning", "keys may go"),)
    async with watching(target, Events(state), clock):
        await clock.advance(599)
        assert target.times == 1
        assert [each.severity for each in state.findings["targets"]] == ["warning"]
