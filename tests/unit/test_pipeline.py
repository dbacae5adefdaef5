"""The loop confirms what was applied, connects again, stands by, and stops at what only an operator can mend."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection, MutableMapping, Sequence
from typing import Any

import pytest

from invalidator.continuity import Continuity, Settings
from invalidator.errors import ConfigError, SlotInUse, SourceDisconnected
from invalidator.model import (
    Batch,
    Gap,
    GapReason,
    Invalidation,
    Lsn,
    Relation,
    StreamStart,
    Transaction,
    WidenReason,
)
from invalidator.pipeline import Pipeline
from invalidator.ports import Kept, Recording, RowFunction, Rules
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import Role, State, TargetState
from tests.support.clock import ManualClock, settle
from tests.support.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("quiet_logs")


class NoRules:
    def bind(self, relation: Relation) -> RowFunction | None:
        return None

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        pass

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        pass

    def coarse(self, tables: Collection[str] | None = None) -> list[tuple[str, Invalidation]]:
        return [("a", Invalidation(tags={b"a"})), ("b", Invalidation(tags={b"b"}))]


class ScriptedSource:
    """Plays one script per connection: batches, then an error or silence."""

    def __init__(self, *connections: list[Batch | Exception]) -> None:
        self._connections = list(connections)
        self.confirmed: list[Lsn] = []
        self.rules: list[Rules] = []

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        self.rules.append(rules)
        script = self._connections.pop(0) if self._connections else []
        for step in script:
            if isinstance(step, Exception):
                raise step
            yield step
        self.lose = asyncio.get_running_loop().create_future()
        await self.lose
        msg = "lost"
        raise SourceDisconnected(msg)

    def swap(self, rules: Rules) -> None:
        self.rules.append(rules)

    def restart(self, why: str) -> None:
        self.lose.set_result(None)

    def confirm(self, position: Lsn) -> None:
        self.confirmed.append(position)

    async def close(self) -> None:
        pass


class HeldDelivery:
    """Accepts every batch; the test finishes them."""

    def __init__(self) -> None:
        self.greetings = 0
        self.finish: list[Callable[[], None]] = []
        self.batches: list[tuple[Batch, str | None]] = []

    def greet(self) -> None:
        self.greetings += 1

    async def deliver(self, batch: Batch, on_finished: Callable[[], None], *, only: str | None = None) -> None:
        self.batches.append((batch, only))
        self.finish.append(on_finished)


def batch(end: int | None, heartbeat: float | None = None) -> Batch:
    return Batch(Invalidation(keys={b"k"}), None if end is None else Lsn(end), heartbeat=heartbeat)


def repeated(times: int, *script: Batch | Exception) -> list[list[Batch | Exception]]:
    """The same script for so many connections."""
    return [list(script) for _ in range(times)]


class Running:
    def __init__(self, source: ScriptedSource, recorders: Sequence[tuple[str, Recording, bool]] = ()) -> None:
        self.source = source
        self.delivery = HeldDelivery()
        self.clock = ManualClock()
        self.state = State()
        events = Events(self.state, self.clock.time)
        self.rules = NoRules()
        self.pipeline = Pipeline(
            source,
            self.rules,
            self.delivery,  # type: ignore[arg-type]  # the one method that the loop calls
            events=events,
            clock=self.clock,
            continuity=Continuity(
                recorders, slot="s", settings=Settings(pause_seconds=1), events=events, clock=self.clock
            ),
        )
        self.task = asyncio.ensure_future(self.pipeline.run())
        self.beside = [asyncio.ensure_future(each()) for each in self.pipeline.tasks()]

    async def stop(self) -> None:
        tasks = [self.task, *self.beside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_position_is_confirmed_only_when_everything_before_it_is_applied() -> None:
    running = Running(ScriptedSource([batch(10), batch(None), batch(20)]))
    await settle()

    running.delivery.finish[2]()
    assert running.source.confirmed == []
    running.delivery.finish[0]()
    running.delivery.finish[1]()

    assert running.source.confirmed == [Lsn(10), Lsn(20)]
    await running.stop()


async def test_what_an_earlier_connection_held_confirms_nothing_on_the_next_one() -> None:
    running = Running(ScriptedSource([batch(10), SourceDisconnected("cut")], [batch(10)]))
    await settle()
    await running.clock.advance(60)
    assert len(running.delivery.finish) == 2

    running.delivery.finish[0]()
    assert running.source.confirmed == []

    running.delivery.finish[1]()
    assert running.source.confirmed == [Lsn(10)]
    await running.stop()


async def test_rules_that_are_swapped_reach_the_connection_there_is_and_every_later_one() -> None:
    running = Running(ScriptedSource([batch(10)], [batch(10)]))
    await settle()
    others = NoRules()

    running.pipeline.swap(others)
    running.source.lose.set_result(None)
    await settle()
    await running.clock.advance(60)

    assert [id(rules) for rules in running.source.rules] == [id(running.rules), id(others), id(others)]
    await running.stop()


GAP = Gap(GapReason.SLOT_MISSING, "gone")
START = Batch(start=StreamStart("7", 1, Lsn(5), GAP))


async def test_after_a_gap_every_rule_is_widened_in_turn_and_nothing_is_confirmed_before() -> None:
    running = Running(ScriptedSource([START, batch(10)]))
    await settle()
    applied = running.delivery.batches
    assert [each.invalidation.tags for each, _ in applied if each.invalidation.tags] == [{b"a"}]
    await running.clock.advance(1)
    assert [each.invalidation.tags for each, _ in applied if each.invalidation.tags] == [{b"a"}, {b"b"}]

    *others, last = running.delivery.finish
    for finish in others:
        finish()
    assert running.source.confirmed == []
    last()

    assert running.source.confirmed == [Lsn(10)]
    assert running.state.source.gaps == {"slot_missing": 1}
    assert running.state.source.repairs_pending == 0
    await running.stop()


async def test_what_waits_to_be_widened_holds_the_position_of_the_next_connection_too() -> None:
    running = Running(ScriptedSource([START, batch(10)], [batch(10)]))
    await settle()
    running.source.lose.set_result(None)
    await settle()
    await running.clock.advance(0.5)
    for finish in list(running.delivery.finish):
        finish()
    assert running.source.confirmed == []

    await running.clock.advance(60)
    running.delivery.finish[-1]()

    assert running.source.confirmed == [Lsn(10)]
    await running.stop()


class Remembering:
    """A cache that keeps our record."""

    lies_apart = False

    def __init__(self) -> None:
        self.content: bytes | None = None

    async def load_record(self, name: str) -> Kept:
        return Kept(self.content, "one")

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        return owner

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        self.content = content
        return Kept(content, "one")


async def test_the_redo_window_of_a_lost_connection_does_not_end_on_the_next_one() -> None:
    cache = Remembering()
    running = Running(ScriptedSource([Batch(start=StreamStart("7", 1, Lsn(0))), batch(10)], []), [("a", cache, True)])
    running.state.targets["a"] = TargetState("a")
    await settle()
    running.delivery.finish[0]()
    for _ in range(8):
        await running.clock.advance(0.5)
    assert cache.content is not None
    running.source.lose.set_result(None)

    await running.clock.advance(60)

    assert running.source.confirmed == []
    await running.stop()


async def test_a_second_gap_takes_the_place_of_what_waits_and_keeps_what_it_holds() -> None:
    running = Running(ScriptedSource([START, batch(10)]))
    await settle()
    running.pipeline.repair(GAP)
    await running.clock.advance(60)

    tags = [each.invalidation.tags for each, _ in running.delivery.batches if each.invalidation.tags]
    assert tags == [{b"a"}, {b"a"}, {b"b"}]
    *others, last = running.delivery.finish
    for finish in others:
        finish()
    assert running.source.confirmed == []
    last()
    assert running.source.confirmed == [Lsn(10)]
    await running.stop()


async def test_a_gap_at_one_target_is_widened_there_alone() -> None:
    running = Running(ScriptedSource([batch(10)]))
    await settle()
    running.pipeline.repair(Gap(GapReason.TARGET_LOST_WRITES, "older", "redis"))
    await running.clock.advance(60)

    assert [only for each, only in running.delivery.batches if each.invalidation.tags] == ["redis", "redis"]
    await running.stop()


async def test_a_lost_stream_is_counted_by_its_reason_and_opened_again(
    quiet_logs: list[MutableMapping[str, Any]],
) -> None:
    running = Running(ScriptedSource([SourceDisconnected("gone", reason="silence")], [batch(10)]))
    await settle()
    assert running.state.source.role is Role.RECONNECTING
    await running.clock.advance(60)

    assert running.state.source.reconnects == {"silence": 1}
    assert len(running.delivery.finish) == 1
    assert "stream.lost" in [entry["event"] for entry in quiet_logs]
    await running.stop()


@pytest.mark.parametrize(
    ("reason", "least", "most"), [("connection", 25, 10_000), ("server_shutdown", 25, 10_000), ("configuration", 1, 24)]
)
async def test_a_server_that_is_away_is_asked_often_and_an_operator_is_given_time(
    reason: str, least: int, most: int
) -> None:
    source = ScriptedSource(*repeated(1000, SourceDisconnected("gone", reason=reason)))
    running = Running(source)
    await running.clock.advance(60)
    before = len(source.rules)

    await running.clock.advance(60)

    assert least <= len(source.rules) - before <= most
    await running.stop()


async def test_connections_that_end_before_anything_came_become_rarer() -> None:
    begun = Batch(start=StreamStart("1", 1, Lsn(5)))
    source = ScriptedSource(*repeated(1000, begun, SourceDisconnected("cannot decode")))
    running = Running(source)

    await running.clock.advance(60)

    assert len(source.rules) < 150, "0.1 s on average would be 600 of them"
    await running.stop()


async def test_standbys_look_at_random_moments_and_at_least_once_a_second() -> None:
    source = ScriptedSource(*repeated(200, SlotInUse("busy")))
    running = Running(source)
    looks = []
    for _ in range(1000):
        before = len(source.rules)
        await running.clock.advance(0.05)
        looks += [running.clock.monotonic()] * (len(source.rules) - before)

    gaps = [round(later - earlier, 2) for earlier, later in itertools.pairwise(looks)]
    assert max(gaps) <= 1.05
    assert min(gaps) >= 0.45
    assert len(set(gaps)) > 5
    await running.stop()


async def test_a_slot_in_use_is_no_failure_but_standby() -> None:
    running = Running(ScriptedSource([SlotInUse("busy", holder_pid=7)], [SlotInUse("busy")], [batch(10)]))
    await settle()
    assert running.state.source.role is Role.STANDBY
    await running.clock.advance(1.1)
    await running.clock.advance(1.1)

    assert len(running.delivery.finish) == 1
    await running.stop()


async def test_a_standby_asks_its_targets_once_so_that_it_can_say_that_it_is_ready() -> None:
    running = Running(ScriptedSource([SlotInUse("busy")], [SlotInUse("busy")], [SlotInUse("busy")]))
    await settle()
    await running.clock.advance(1.1)
    await running.clock.advance(1.1)

    assert running.delivery.greetings == 1
    await running.stop()


async def test_a_daemon_that_waits_for_the_record_asks_its_targets_once_too() -> None:
    taken = SourceDisconnected("another database's daemon has it", reason="record_taken")
    running = Running(ScriptedSource(*repeated(5, taken)))
    await settle()
    await running.clock.advance(2.1)
    await running.clock.advance(2.1)

    assert running.delivery.greetings == 1
    await running.stop()


async def test_a_configuration_error_ends_the_run() -> None:
    running = Running(ScriptedSource([ConfigError("there is no publication")]))

    with pytest.raises(ConfigError, match="publication"):
        await asyncio.wait_for(running.task, DEADLINE_SECONDS)


async def test_a_heartbeat_counts_as_delivered_when_its_batch_is_applied() -> None:
    running = Running(ScriptedSource([batch(10, heartbeat=123.0)]))
    await settle()
    assert running.state.source.heartbeat_delivered == 0

    running.delivery.finish[0]()

    assert running.state.source.heartbeat_delivered == 123.0
    await running.stop()
