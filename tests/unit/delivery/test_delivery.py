"""Batches reach every target in the order of the layers, and no required target loses one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from invalidator.delivery import Delivery, Settings
from invalidator.errors import TargetThrottled, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Layer, Lsn
from invalidator.ports import RetryOptions
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State, TargetState
from tests.support.clock import ManualClock, settle
from tests.support.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("quiet_logs")


@dataclass(eq=False)
class Recorder:
    """A target that writes down what it applies, fails as told, and can be held."""

    layer: Layer
    name: str
    journal: list[tuple[str, set[bytes]]]
    errors: list[Exception] = field(default_factory=list)
    repeat_after_seconds: tuple[float, ...] = ()
    open_gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open_gate.set()

    async def apply(self, batch: Batch) -> Applied:
        await self.open_gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        names = batch.invalidation.keys | batch.invalidation.cdn
        if names:
            self.journal.append((self.name, names))
        return Applied(keys=len(batch.invalidation.keys))

    async def close(self) -> None:
        pass

    @property
    def applied(self) -> list[set[bytes]]:
        return [names for name, names in self.journal if name == self.name]


@dataclass
class Bench:
    delivery: Delivery
    clock: ManualClock
    state: State
    journal: list[tuple[str, set[bytes]]]
    finished: list[int] = field(default_factory=list)

    def submit(self, number: int, *, items: int = 1, cdn: bool = False) -> asyncio.Task[None]:
        names = {b"%d" % (number * 1000 + i) for i in range(items)}
        invalidation = Invalidation(cdn=names) if cdn else Invalidation(keys=names)
        return self.deliver(number, invalidation)

    def deliver(self, number: int, invalidation: Invalidation) -> asyncio.Task[None]:
        batch = Batch(invalidation, Lsn(number), oldest_commit_time=self.clock.time())
        return asyncio.ensure_future(self.delivery.deliver(batch, lambda: self.finished.append(number)))


@asynccontextmanager
async def running(*targets: Recorder, best_effort: tuple[str, ...] = (), limit: int = 100_000) -> AsyncIterator[Bench]:
    state = State(targets={target.name: TargetState(target.name) for target in targets})
    clock = ManualClock()
    delivery = Delivery(
        [(target, target.name not in best_effort, RetryOptions(deadline_seconds=60)) for target in targets],
        settings=Settings(max_pending_items=limit),
        events=Events(state),
        states=state.targets,
        clock=clock,
    )
    tasks = [asyncio.ensure_future(run()) for run in delivery.tasks()]
    try:
        yield Bench(delivery, clock, state, targets[0].journal)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_batch_reaches_redis_then_the_processes_then_the_edge() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    edge, bus, redis = (
        Recorder(layer, name, journal) for layer, name in ((Layer.L3, "edge"), (Layer.L1, "bus"), (Layer.L2, "redis"))
    )
    async with running(edge, bus, redis) as bench:
        await bench.submit(1)
        await settle()

        assert [name for name, _ in journal] == ["redis", "bus", "edge"]
        assert bench.finished == [1]


async def test_an_outer_layer_waits_while_a_required_inner_one_fails() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("down")])
    edge = Recorder(Layer.L3, "edge", journal)
    async with running(redis, edge) as bench:
        bench.submit(1)
        await settle()
        assert journal == []

        await bench.clock.advance(1)

        assert [name for name, _ in journal] == ["redis", "edge"]
        assert bench.finished == [1]


async def test_a_dead_target_delays_no_other_target_of_its_layer_and_holds_the_position() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    dead = Recorder(Layer.L2, "dead", journal, errors=[TargetUnavailable("down")] * 1000)
    alive = Recorder(Layer.L2, "alive", journal)
    async with running(dead, alive) as bench:
        for number in (1, 2, 3):
            await asyncio.wait_for(bench.submit(number), DEADLINE_SECONDS)
            await settle()

        assert alive.applied == [{b"1000"}, {b"2000"}, {b"3000"}]
        assert bench.finished == []


async def test_what_piled_up_behind_a_failing_target_is_applied_in_one_go_when_it_recovers() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("down")] * 3)
    async with running(redis) as bench:
        for number in (1, 2, 3):
            bench.submit(number)
            await settle()
        await bench.clock.advance(10)

        assert redis.applied == [{b"1000"}, {b"2000", b"3000"}]
        assert bench.finished == [1, 2, 3]
        assert bench.state.targets["redis"].retries == 3


async def test_only_what_remains_is_applied_again() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    remaining = Invalidation(keys={b"left"})
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("half", remaining=remaining)])
    async with running(redis) as bench:
        bench.submit(1, items=5)
        await bench.clock.advance(1)

        assert redis.applied == [{b"left"}]


async def test_a_throttled_target_is_left_alone_for_as_long_as_it_asks() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    edge = Recorder(Layer.L3, "edge", journal, errors=[TargetThrottled("slow down", retry_after_seconds=30)])
    async with running(edge) as bench:
        bench.submit(1, cdn=True)
        await bench.clock.advance(29.9)
        assert edge.applied == []

        await bench.clock.advance(1)
        assert edge.applied == [{b"1000"}]


async def test_a_best_effort_target_holds_nothing_and_gives_up_at_its_deadline() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal)
    edge = Recorder(Layer.L3, "edge", journal, errors=[TargetUnavailable("down")] * 1000)
    async with running(redis, edge, best_effort=("edge",)) as bench:
        await bench.submit(1)
        await settle()
        assert bench.finished == [1]

        await bench.clock.advance(200)
        edge.errors.clear()
        await bench.submit(2)
        await bench.clock.advance(60)

        assert bench.state.targets["edge"].abandoned_items == 1
        assert edge.applied == [{b"2000"}]


async def test_a_best_effort_target_gives_up_its_oldest_batches_when_too_much_waits() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal)
    edge = Recorder(Layer.L3, "edge", journal, errors=[TargetUnavailable("down")] * 1000)
    async with running(redis, edge, best_effort=("edge",), limit=1000) as bench:
        for number in range(5):
            await asyncio.wait_for(bench.submit(number, items=600), DEADLINE_SECONDS)
            await settle()

        assert bench.finished == [0, 1, 2, 3, 4]
        assert bench.state.targets["edge"].abandoned_items >= 1200
        assert bench.state.targets["edge"].pending_items <= 1800


async def test_reading_pauses_while_a_healthy_target_is_busy_and_goes_on_when_it_is_done() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal)
    redis.open_gate.clear()
    async with running(redis) as bench:
        waiting = bench.submit(1)
        await settle()
        assert not waiting.done()

        redis.open_gate.set()
        await asyncio.wait_for(waiting, DEADLINE_SECONDS)


async def test_reading_pauses_at_the_bound_of_pending_names_and_nothing_is_dropped() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("down")] * 2)
    async with running(redis, limit=1000) as bench:
        first = bench.submit(1, items=600)
        await settle()
        second = bench.submit(2, items=600)
        await settle()
        assert first.done()
        assert not second.done()

        await bench.clock.advance(10)

        assert second.done()
        assert sum(len(names) for names in redis.applied) == 1200


async def test_a_repeat_is_applied_again_after_its_delay_and_holds_the_position_until_then() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis, bus = Recorder(Layer.L2, "redis", journal), Recorder(Layer.L1, "bus", journal)
    async with running(redis, bus) as bench:
        invalidation = Invalidation(keys={b"once", b"twice"})
        invalidation.repeated((0.5, 5.0)).keys.add(b"twice")
        await bench.deliver(1, invalidation)
        await settle()
        assert bench.finished == []

        await bench.clock.advance(0.6)
        assert redis.applied == [{b"once", b"twice"}, {b"twice"}]
        assert bench.finished == []

        await bench.clock.advance(5)
        assert redis.applied == bus.applied == [{b"once", b"twice"}, {b"twice"}, {b"twice"}]
        assert bench.finished == [1]


async def test_too_many_repeats_are_applied_before_their_time_instead_of_stopping_the_stream() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal)
    async with running(redis, limit=1000) as bench:
        for number in range(3):
            invalidation = Invalidation(keys={b"%d" % (number * 1000 + i) for i in range(400)})
            invalidation.repeated((3600.0,)).keys.update(invalidation.keys)
            await asyncio.wait_for(bench.deliver(number, invalidation), DEADLINE_SECONDS)
            await settle()

        assert len(redis.applied) == 5, "three batches, and two repeats of them an hour early"
        assert bench.finished == [0, 1]


async def test_an_edge_is_purged_a_second_time_for_responses_that_were_being_rendered() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal)
    edge = Recorder(Layer.L3, "edge", journal, repeat_after_seconds=(2.0,))
    async with running(redis, edge) as bench:
        await bench.submit(1, cdn=True)
        await settle()
        assert edge.applied == [{b"1000"}]

        await bench.clock.advance(2)
        assert edge.applied == [{b"1000"}, {b"1000"}]
        assert bench.finished == [1]

        await bench.clock.advance(10)
        assert len(edge.applied) == 2, "a repeat is not repeated"


async def test_a_repeat_that_meets_a_fresh_purge_is_not_repeated_with_it() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    edge = Recorder(Layer.L3, "edge", journal, repeat_after_seconds=(1.0,))
    async with running(edge) as bench:
        bench.submit(1, cdn=True)
        await settle()
        edge.open_gate.clear()
        bench.submit(2, cdn=True)
        await settle()  # held in the middle of the second one, while the repeat of the first becomes due
        await bench.clock.advance(1)
        bench.submit(3, cdn=True)
        await settle()
        edge.open_gate.set()
        await bench.clock.advance(30)

        assert sum(b"1000" in names for names in edge.applied) == 2
        assert sum(b"2000" in names for names in edge.applied) == 2
        assert sum(b"3000" in names for names in edge.applied) == 2
        assert bench.finished == [1, 2, 3]


async def test_every_position_that_a_repeat_covers_is_held_by_it() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    edge = Recorder(Layer.L3, "edge", journal, repeat_after_seconds=(1.0,), errors=[TargetUnavailable("down")])
    async with running(edge) as bench:
        bench.delivery.greet()
        for number in (1, 2, 3):
            bench.submit(number, cdn=True)
            await settle()
        await bench.clock.advance(0.5)
        assert len(set().union(*edge.applied)) == 3
        assert bench.finished == [], "applied once, and the repeat is still to come"

        await bench.clock.advance(5)
        assert bench.finished == [1, 2, 3]


async def test_an_empty_batch_behind_a_failing_target_finishes_with_what_is_before_it() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("down")] * 3)
    async with running(redis) as bench:
        bench.submit(1)
        await settle()
        for number in (2, 3):
            bench.deliver(number, Invalidation())
            await settle()
        assert bench.finished == []

        await bench.clock.advance(10)
        assert bench.finished == [1, 2, 3]


async def test_draining_waits_for_what_was_accepted_but_not_for_repeats() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal)
    redis.open_gate.clear()
    async with running(redis) as bench:
        invalidation = Invalidation(keys={b"a"})
        invalidation.repeated((60.0,)).keys.add(b"a")
        bench.deliver(1, invalidation)
        draining = asyncio.ensure_future(bench.delivery.drain())
        await settle()
        assert not draining.done()

        redis.open_gate.set()
        await asyncio.wait_for(draining, DEADLINE_SECONDS)


async def test_staleness_counts_from_the_oldest_commit_that_a_required_target_has_not_applied() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("down")])
    async with running(redis) as bench:
        began = bench.clock.time()
        bench.submit(1)
        await settle()
        assert bench.state.oldest_unfinished_commit == began

        await bench.clock.advance(1)
        assert bench.state.oldest_unfinished_commit is None


@dataclass(eq=False)
class Listener(Recorder):
    """Writes down every batch that asks or tells something, as a bus would."""

    async def apply(self, batch: Batch) -> Applied:
        if batch.heartbeat is not None or not batch.is_repeat:
            self.journal.append((self.name, set()))
        return Applied()


async def test_a_greeting_is_answered_by_l2_and_heard_by_nobody_else() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    targets = [Listener(layer, layer.value, journal) for layer in Layer]
    async with running(*targets) as bench:
        bench.delivery.greet()
        await settle()

        assert journal == [("L2", set())]
        assert {name: target.answered for name, target in bench.state.targets.items()} == {
            "L2": True, "L1": False, "L3": False,
        }  # fmt: skip


async def test_a_batch_that_asks_a_target_for_nothing_is_no_answer_of_it() -> None:
    redis = Recorder(Layer.L2, "redis", [])
    async with running(redis) as bench:
        await bench.delivery.deliver(Batch(Invalidation(), Lsn(5)), lambda: None)
        await settle()

        assert bench.state.targets["redis"].answered is False
        assert bench.state.targets["redis"].deliveries["ok"] == 0


async def test_positions_go_on_without_an_excused_target_until_it_works_again() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    redis = Recorder(Layer.L2, "redis", journal, errors=[TargetUnavailable("down")] * 1000)
    edge = Recorder(Layer.L3, "edge", journal)
    returned: list[str] = []
    async with running(redis, edge) as bench:
        bench.delivery.on_return = returned.append
        bench.submit(1)
        await bench.clock.advance(2)
        assert bench.delivery.stuck() == [], "that may be a hiccup"
        await bench.clock.advance(2)
        assert bench.delivery.stuck() == ["redis"]
        assert (bench.finished, edge.applied) == ([], [])

        bench.delivery.excuse("redis")
        for number in (2, 3, 4):
            await asyncio.wait_for(bench.submit(number), DEADLINE_SECONDS)
        await settle()

        assert bench.finished == [1, 2, 3, 4]
        assert set().union(*edge.applied) == {b"1000", b"2000", b"3000", b"4000"}
        assert bench.delivery.stuck() == []
        assert bench.state.targets["redis"].pending_items <= 2, "nothing piles up at it"
        assert bench.state.targets["redis"].abandoned_items == 0

        redis.errors.clear()
        await bench.clock.advance(60)

        assert returned == ["redis"]
        assert redis.applied[0] == {b"1000"}
        redis.open_gate.clear()
        bench.submit(5)
        await settle()
        assert bench.finished == [1, 2, 3, 4], "positions wait for it again"
        redis.open_gate.set()
        await settle()
        assert bench.finished == [1, 2, 3, 4, 5]


async def test_repeats_of_an_excused_target_finish_nothing_twice() -> None:
    journal: list[tuple[str, set[bytes]]] = []
    edge = Recorder(Layer.L3, "edge", journal, errors=[TargetUnavailable("down")], repeat_after_seconds=(5,))
    async with running(edge) as bench:
        bench.submit(1, cdn=True)
        await settle()
        bench.delivery.excuse("edge")
        assert bench.finished == [1]

        await bench.clock.advance(1)
        await bench.clock.advance(10)

        assert edge.applied == [{b"1000"}, {b"1000"}]
        assert bench.finished == [1]


async def test_what_a_target_has_lost_is_dropped_there_and_then_in_the_outer_layers() -> None:
    """They may have been filled from what was stale in it; others of its own layer were not."""
    journal: list[tuple[str, set[bytes]]] = []
    names = {"edge": Layer.L3, "bus": Layer.L1, "other": Layer.L2, "redis": Layer.L2}
    targets = {name: Recorder(layer, name, journal) for name, layer in names.items()}
    async with running(*targets.values()) as bench:
        batch = Batch(Invalidation(keys={b"k"}, cdn={b"k"}))
        await bench.delivery.deliver(batch, lambda: bench.finished.append(1), only="redis")
        await settle()
        assert [name for name, _ in journal] == ["redis", "bus", "edge"]
        assert bench.finished == [1]

        journal.clear()
        await bench.delivery.deliver(batch, lambda: bench.finished.append(2), only="edge")
        await settle()
        assert [name for name, _ in journal] == ["edge"]
