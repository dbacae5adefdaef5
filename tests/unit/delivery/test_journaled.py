"""CDN work waits in the journal: no outage holds the position, and nothing of it is forgotten."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from invalidator.delivery import Delivery, Settings
from invalidator.delivery.journal import SHUT_SECONDS, Journal
from invalidator.delivery.journal import Settings as StateSettings
from invalidator.delivery.journaled import JournaledTarget
from invalidator.errors import JournalUnusable, TargetError, TargetThrottled, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Layer, Lsn
from invalidator.ports import RetryOptions, TagGrammar, Target
from invalidator.telemetry.events import Events
from invalidator.telemetry.problems import problems
from invalidator.telemetry.state import JournalState, State, TargetState
from tests.support.clock import ManualClock, settle
from tests.support.processes import DEADLINE_SECONDS

Log = list[dict[str, Any]]


@dataclass(eq=False)
class Edge:
    """A CDN (or, by its layer, another target): remembers what it purged, fails as told, can be held in a call."""

    name: str = "edge"
    layer: Layer = Layer.L3
    tag_grammar: ClassVar = TagGrammar("Plain", re.compile(rb"[a-z0-9-]+"), 64, "lower case")
    repeat_after_seconds: tuple[float, ...] = ()
    consents_to_purge_all: bool = False
    is_down: bool = False
    errors: list[TargetError] = field(default_factory=list)
    purged: list[set[bytes]] = field(default_factory=list)
    calls: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    async def apply(self, batch: Batch) -> Applied:
        asked = batch.invalidation
        names = asked.cdn | ({b"*"} if asked.cdn_all else set()) if self.layer is Layer.L3 else asked.keys
        if not names and batch.heartbeat is None:
            return Applied()
        self.calls += 1
        await self.answers.wait()
        if self.is_down:
            raise TargetUnavailable("down", result="http_5xx")
        if self.errors:
            raise self.errors.pop(0)
        if names:
            self.purged.append(names)
        return Applied(cdn_tags=len(names))

    async def close(self) -> None:
        pass

    @property
    def everything_purged(self) -> set[bytes]:
        return set().union(*self.purged)


class Users:
    """The cover of one rule: ``users`` covers ``user-*``."""

    def everything(self) -> Invalidation:
        return Invalidation(cdn={b"users"})

    def shrink(self, tags: Collection[bytes], wanted: int) -> tuple[set[bytes], Invalidation]:
        assert len(tags) > wanted
        return {tag for tag in tags if tag.startswith(b"user-")}, Invalidation(cdn={b"users"})


@dataclass
class Bench:
    """A daemon's delivery; another one over the same file is a restart."""

    delivery: Delivery
    journal: Journal
    clock: ManualClock
    state: State
    finished: list[int] = field(default_factory=list)

    def submit(self, number: int, *tags: str, repeats: dict[tuple[float, ...], Invalidation] | None = None) -> Any:
        invalidation = Invalidation(cdn={tag.encode() for tag in tags}, keys={b"k%d" % number}, repeats=repeats or {})
        batch = Batch(invalidation, Lsn(number), oldest_commit_time=self.clock.time())
        return asyncio.ensure_future(self.delivery.deliver(batch, lambda: self.finished.append(number)))

    def of(self, target: str = "edge") -> JournalState:
        journal = self.state.targets[target].journal
        assert journal is not None
        return journal

    def codes(self) -> dict[str, str]:
        """The problems of targets, with their severity."""
        found = problems(self.state, self.clock.time())
        return {problem.code: problem.severity for problem in found if problem.subject in self.state.targets}

    async def rest(self) -> None:
        """Return when the journal's thread has nothing to do and nobody waits for it."""
        for _ in range(6):
            await asyncio.wrap_future(self.journal._thread.submit(lambda: None))
            await settle()

    async def advance(self, seconds: float, *, steps: int = 1) -> None:
        for _ in range(steps):
            await self.clock.advance(seconds / steps)
            await self.rest()

    async def advance_until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Turn the clock in small steps until the condition holds."""
        end = self.clock.time() + seconds
        while not condition():
            assert self.clock.time() < end, "it did not come"
            await self.advance(0.25)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    path: Path,
    *targets: Edge,
    clock: ManualClock | None = None,
    best_effort: tuple[str, ...] = (),
    limit: int = 100_000,
) -> AsyncIterator[Bench]:
    clock = clock or ManualClock()
    state = State(targets={each.name: TargetState(each.name, layer=each.layer.value) for each in targets})
    for name in best_effort:
        state.targets[name].required = False
    events = Events(state, clock.time)
    journal = Journal(StateSettings(path=str(path), max_journal_items=limit), Users, events, clock)
    retry = RetryOptions(deadline_seconds=60, max_delay_seconds=1)

    def applier(target: Edge) -> Target:
        if target.layer is not Layer.L3:
            return target
        return JournaledTarget(target, journal, required=target.name not in best_effort, retry=retry)

    appliers = [applier(each) for each in targets]
    delivery = Delivery(
        [(each, each.name not in best_effort, retry) for each in appliers],
        settings=Settings(max_pending_items=1000),
        events=events,
        states=state.targets,
        clock=clock,
    )
    await journal.open()
    work = [*delivery.tasks(), *(each.run for each in appliers if isinstance(each, JournaledTarget))]
    tasks = [asyncio.ensure_future(run()) for run in work]
    try:
        yield Bench(delivery, journal, clock, state)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture(autouse=True)
def log(quiet_logs: Log) -> Log:
    return quiet_logs


def damage(path: Path) -> None:
    path.write_bytes(b"\xff" * 8192)


def hide(path: Path) -> None:
    """Put a folder in the file's place, which no user can open as a file."""
    path.rename(path.with_name("away.db"))
    path.mkdir()


def bring_back(path: Path) -> None:
    path.rmdir()
    path.with_name("away.db").rename(path)


def events_of(log: Log, name: str) -> Log:
    return [entry for entry in log if entry["event"] == name]


async def test_who_watches_sees_purges_out_of_the_journal_and_their_repeats(path: Path) -> None:
    edge = Edge(repeat_after_seconds=(5,))
    async with running(path, edge) as bench:
        with bench.state.happenings.watched():
            await bench.submit(1, "home")
            await until(lambda: edge.purged)
            await bench.rest()
            await bench.advance(6, steps=6)
            await bench.rest()
            seen = [each for each in bench.state.happenings.after(0) if each["record"] == "applied"]
    assert [(each["target"], each["invalidation"], each["is_repeat"]) for each in seen] == [
        ("edge", {"cdn": ["home"]}, False),
        ("edge", {"cdn": ["home"]}, True),
    ]


async def test_an_outage_holds_no_position_and_afterwards_every_tag_is_purged(path: Path) -> None:
    edge, redis = Edge(is_down=True), Edge("redis", Layer.L2)
    async with running(path, redis, edge) as bench:
        for number in range(50):
            await asyncio.wait_for(bench.submit(number, f"user-{number}", "home"), DEADLINE_SECONDS)
        await until(lambda: len(bench.finished) == 50)
        await bench.rest()
        assert bench.of().items == 51
        assert bench.codes() == {}, "failing for less than ten seconds"

        await bench.advance(600, steps=60)
        assert bench.codes() == {"target-failing": "warning", "journal-late": "warning"}
        edge.is_down = False
        await bench.advance_until(lambda: not bench.of().items)

        assert edge.everything_purged == {*(b"user-%d" % i for i in range(50)), b"home"}
        assert sum(b"home" in names for names in edge.purged) == 1, "fifty requests for one tag are one purge"
        assert bench.codes() == {}
        assert bench.state.targets["edge"].delivered_items["cdn_tag"] == 51


async def test_the_journal_takes_a_batch_only_after_the_inner_layers_have_applied_it(path: Path) -> None:
    edge, redis = Edge(), Edge("redis", Layer.L2)
    redis.answers.clear()
    async with running(path, redis, edge) as bench:
        bench.submit(1, "a")
        await until(lambda: redis.calls == 1)
        await bench.rest()
        assert (bench.of().taken_items, edge.calls) == (0, 0)

        redis.answers.set()
        await until(lambda: edge.purged == [{b"a"}])


async def test_what_waits_survives_a_restart(path: Path) -> None:
    edge = Edge(is_down=True)
    async with running(path, edge) as bench:
        await bench.submit(1, "a", "b")
        await until(lambda: bench.finished == [1])
    edge.is_down = False

    async with running(path, edge) as bench:
        await bench.advance_until(lambda: edge.purged == [{b"a", b"b"}])


async def test_a_throttled_target_is_left_alone_for_as_long_as_it_asks_also_after_a_restart(
    path: Path, log: Log
) -> None:
    clock = ManualClock()
    edge = Edge(errors=[TargetThrottled("slow down", retry_after_seconds=30)])
    async with running(path, edge, clock=clock) as bench:
        await bench.submit(1, "a")
        await until(lambda: bench.state.targets["edge"].retries)
        await bench.advance(10)
        began = bench.state.targets["edge"].failing_since

    async with running(path, edge, clock=clock) as bench:
        await until(lambda: events_of(log, "delivery.resumed"))
        assert bench.state.targets["edge"].failing_since == began
        await bench.advance(19)
        assert edge.calls == 1

        await bench.advance_until(lambda: edge.purged == [{b"a"}], seconds=5)
        await bench.rest()
        assert bench.state.targets["edge"].failing_since is None

    async with running(path, edge, clock=clock) as bench:
        await bench.rest()
        assert len(events_of(log, "delivery.resumed")) == 1, "it works again: nothing to resume"


async def test_a_purge_is_repeated_after_it_succeeded_also_after_a_restart(path: Path) -> None:
    clock = ManualClock()
    edge = Edge(repeat_after_seconds=(2.0, 30.0), is_down=True)
    async with running(path, edge, clock=clock) as bench:
        await bench.submit(1, "a")
        await until(lambda: bench.finished == [1])  # repeats of the target hold no position
        await bench.advance(100, steps=10)
        edge.is_down = False
        await bench.advance_until(lambda: edge.purged == [{b"a"}])
        await until(lambda: bench.of().repeats == 2)

    async with running(path, edge, clock=clock) as bench:
        await bench.advance(1)
        assert len(edge.purged) == 1
        await bench.advance_until(lambda: len(edge.purged) == 2, seconds=3)
        await bench.advance_until(lambda: len(edge.purged) == 3, seconds=31)
        await bench.advance(100, steps=10)
        assert edge.purged == [{b"a"}] * 3, "a repeat is not repeated"


async def test_a_repeat_of_a_rule_is_purged_once_more_and_not_repeated_by_the_target(path: Path) -> None:
    edge = Edge(repeat_after_seconds=(100.0,))
    async with running(path, edge) as bench:
        await bench.submit(1, "a", repeats={(5.0,): Invalidation(cdn={b"a"})})
        await until(lambda: len(edge.purged) == 1)
        await bench.rest()
        assert bench.finished == [], "it holds the position: after a crash the batch comes again"

        await bench.advance_until(lambda: len(edge.purged) == 2, seconds=6)
        await until(lambda: bench.finished == [1])
        await until(lambda: (bench.of().items, bench.of().repeats) == (0, 1))


async def test_a_change_during_a_purge_is_purged_again(path: Path) -> None:
    edge = Edge()
    async with running(path, edge) as bench:
        edge.answers.clear()
        await bench.submit(1, "a")
        await until(lambda: edge.calls == 1)
        await bench.submit(2, "a")
        await until(lambda: bench.finished == [1, 2])

        edge.answers.set()
        await until(lambda: edge.purged == [{b"a"}, {b"a"}])


async def test_only_what_remains_is_purged_again(path: Path) -> None:
    edge = Edge(errors=[TargetUnavailable("half", remaining=Invalidation(cdn={b"left"}))])
    async with running(path, edge) as bench:
        await bench.submit(1, "Left", "done")  # some targets know tags in lower case only
        await bench.advance_until(lambda: edge.purged, seconds=5)

        assert edge.purged == [{b"Left"}]


async def test_a_target_that_wants_everything_instead_is_asked_for_everything(path: Path) -> None:
    edge = Edge(consents_to_purge_all=True, errors=[TargetUnavailable("half", remaining=Invalidation(cdn_all=True))])
    async with running(path, edge) as bench:
        await bench.submit(1, "a")
        await bench.advance_until(lambda: edge.purged, seconds=5)

        assert edge.purged == [{b"*"}]


async def test_one_dead_target_delays_no_other(path: Path) -> None:
    dead, alive, redis = Edge("dead", is_down=True), Edge("alive"), Edge("redis", Layer.L2)
    async with running(path, redis, dead, alive) as bench:
        for number in range(5):
            await asyncio.wait_for(bench.submit(number, f"user-{number}"), DEADLINE_SECONDS)
        await until(lambda: len(alive.everything_purged) == 5)
        await until(lambda: len(bench.finished) == 5)
        await until(lambda: (bench.of("dead").items, bench.of("alive").items) == (5, 0))


async def test_a_hanging_target_delays_no_other(path: Path) -> None:
    hanging, alive = Edge("hanging"), Edge("alive")
    hanging.answers.clear()
    async with running(path, hanging, alive) as bench:
        for number in range(5):
            await asyncio.wait_for(bench.submit(number, f"user-{number}"), DEADLINE_SECONDS)
        await until(lambda: len(alive.everything_purged) == 5)
        await until(lambda: len(bench.finished) == 5)


async def test_a_best_effort_target_gives_up_what_has_waited_beyond_its_deadline(path: Path) -> None:
    edge = Edge(is_down=True)
    async with running(path, edge, best_effort=("edge",)) as bench:
        await bench.submit(1, "old")
        await bench.advance(58, steps=58)
        assert bench.of().items == 1
        await bench.submit(2, "new")
        await bench.advance_until(lambda: bench.state.targets["edge"].abandoned_items, seconds=10)
        edge.is_down = False
        await bench.advance_until(lambda: edge.purged)

        assert edge.purged == [{b"new"}]
        assert bench.finished == [1, 2]
        assert bench.state.targets["edge"].abandoned_items == 1


async def test_a_journal_that_cannot_be_used_means_that_the_position_waits_again(path: Path) -> None:
    path = path.parent / "missing" / "state.db"
    edge, effort = Edge(is_down=True), Edge("effort", is_down=True)
    async with running(path, edge, effort, best_effort=("effort",)) as bench:
        await bench.submit(1, "a")
        await bench.rest()
        assert bench.finished == []
        assert bench.codes() == {"journal-unusable": "warning"}

        edge.is_down = False
        await bench.advance_until(lambda: bench.finished == [1])
        assert edge.purged == [{b"a"}], "the journal is no reason not to purge"
        assert effort.purged == [], "a best-effort target holds nothing without a journal either"

        path.parent.mkdir()
        effort.is_down = False
        await bench.advance(SHUT_SECONDS)
        await bench.submit(2, "b")
        await bench.advance_until(lambda: edge.purged == [{b"a"}, {b"b"}])
        await bench.advance_until(lambda: bench.codes() == {})
        assert bench.of().taken_items == 1


async def test_a_target_without_a_usable_journal_is_repeated_by_its_lane(path: Path) -> None:
    path = path.parent / "missing" / "state.db"
    edge = Edge(repeat_after_seconds=(2.0,))
    async with running(path, edge) as bench:
        await bench.submit(1, "a")
        await until(lambda: len(edge.purged) == 1)
        await bench.rest()
        assert bench.finished == []

        await bench.advance_until(lambda: len(edge.purged) == 2, seconds=5)
        await until(lambda: bench.finished == [1])


async def test_a_full_journal_holds_the_position_and_goes_on_when_there_is_room(path: Path, log: Log) -> None:
    edge = Edge(is_down=True)
    async with running(path, edge, limit=100) as bench:
        await bench.submit(1, *(f"other-{i}" for i in range(100)))
        await until(lambda: bench.finished == [1])
        bench.submit(2, "one-more")
        await until(lambda: bench.of().unusable)
        await bench.advance(5, steps=5)
        assert bench.finished == [1]
        assert bench.of().unusable_reason == "full"
        assert "journal-unusable" in bench.codes()
        assert not events_of(log, "journal.recovered"), "the worker's own calls are no sign of room"

        edge.is_down = False
        await bench.advance_until(lambda: bench.finished == [1, 2])
        await bench.advance_until(lambda: len(edge.everything_purged) == 101)
        await bench.submit(3, "later")
        await bench.advance_until(lambda: not bench.codes())


@pytest.mark.parametrize("consents", [False, True])
async def test_beyond_the_bound_it_becomes_coarse_then_everything_and_is_told(
    path: Path, log: Log, consents: bool
) -> None:
    edge = Edge(is_down=True, consents_to_purge_all=consents)
    async with running(path, edge, limit=100) as bench:
        await bench.submit(1, *(f"user-{i}" for i in range(90)), *(f"other-{i}" for i in range(9)))
        await bench.submit(2, "user-100", "user-101")
        await until(lambda: bench.finished == [1, 2])
        await until(lambda: bench.of().items == 10)
        await bench.submit(3, *(f"more-{i}" for i in range(91 if consents else 90)))
        await until(lambda: bench.finished == [1, 2, 3])
        await until(lambda: bench.of().items == (1 if consents else 100))

        told = [step for entry in events_of(log, "journal.escalated") for step in entry["steps"]]
        assert told[0] == "coarse"
        assert ("everything" in told) is consents
        assert dict(bench.of().escalations) == {step: told.count(step) for step in told}
        assert bench.codes()["journal-escalated"] == "warning"
        edge.is_down = False
        await bench.advance_until(lambda: not bench.of().items)
        assert (b"*" if consents else b"users") in edge.everything_purged


@pytest.mark.parametrize("consents", [False, True])
async def test_a_damaged_journal_becomes_coarse_purges_and_is_told_loudly(path: Path, log: Log, consents: bool) -> None:
    damage(path)
    edge = Edge(consents_to_purge_all=consents)
    async with running(path, edge) as bench:
        await bench.advance_until(lambda: edge.purged)

        assert edge.purged == [{b"*"} if consents else {b"users"}]
        (lost,) = events_of(log, "journal.lost")
        assert (lost["log_level"], lost["target"]) == ("error", "edge")
        assert (path.parent / lost["set_aside"]).read_bytes() == b"\xff" * 8192
        assert bench.codes()["journal-lost"] == "critical"


async def test_a_heartbeat_passes_a_target_that_is_down_and_asks_it_all_the_same(path: Path) -> None:
    edge = Edge(is_down=True)
    async with running(path, edge) as bench:
        heartbeat = Batch(Invalidation(), Lsn(1), heartbeat=bench.clock.time())
        await bench.delivery.deliver(heartbeat, lambda: bench.finished.append(1))
        await until(lambda: bench.finished == [1])
        await until(lambda: bench.state.targets["edge"].failing_since is not None)

        edge.is_down = False
        await bench.delivery.deliver(replace(heartbeat, end=Lsn(2)), lambda: bench.finished.append(2))
        await bench.advance_until(lambda: bench.state.targets["edge"].failing_since is None)


async def test_draining_waits_for_a_target_that_works_and_not_for_one_that_fails(path: Path) -> None:
    edge, dead = Edge(), Edge("dead", is_down=True)
    edge.answers.clear()
    async with running(path, edge, dead) as bench:
        await bench.submit(1, "a")
        await until(lambda: edge.calls and bench.state.targets["dead"].retries)
        draining = asyncio.ensure_future(bench.journal.drain())
        await bench.rest()
        assert not draining.done()

        edge.answers.set()
        await asyncio.wait_for(draining, DEADLINE_SECONDS)
        assert bench.of("dead").items == 1


async def test_a_batch_that_names_nothing_at_the_cdn_needs_no_journal(path: Path) -> None:
    edge = Edge(is_down=True)
    async with running(path.parent / "missing" / "state.db", edge) as bench:
        await bench.delivery.deliver(Batch(Invalidation(keys={b"k"}), Lsn(1)), lambda: bench.finished.append(1))
        await until(lambda: bench.finished == [1])
        assert edge.calls == 0


async def test_tags_of_targets_that_are_no_more_are_told(path: Path, log: Log) -> None:
    async with running(path, Edge("removed", is_down=True)) as bench:
        await bench.submit(1, "a")
        await until(lambda: bench.finished == [1])

    async with running(path, Edge()):
        (orphaned,) = events_of(log, "journal.orphaned")
        assert orphaned["items"] == {"removed": 1}


async def test_damage_that_a_look_at_the_record_finds_is_made_good_at_once(path: Path) -> None:
    edge = Edge()
    async with running(path, edge) as bench:
        await bench.submit(1, "a")
        await until(lambda: edge.purged == [{b"a"}])
        await bench.rest()
        await bench.journal._in_executor(bench.journal._file.close)
        damage(path)

        await bench.journal.load_record("edge", "shop")
        await bench.rest()

        assert edge.purged == [{b"a"}, {b"users"}], "without a batch, a heartbeat or a second"
        assert bench.codes()["journal-lost"] == "critical"


async def test_a_file_that_cannot_be_opened_is_left_alone_for_two_seconds_and_its_work_goes_on_when_it_can(
    path: Path, log: Log
) -> None:
    edge = Edge(is_down=True)
    async with running(path, edge) as bench:
        await bench.submit(1, "a")
        await bench.rest()
    hide(path)
    edge = Edge()
    async with running(path, edge) as bench:
        await bench.submit(2, "b")
        await until(lambda: edge.purged == [{b"b"}])
        assert bench.codes() == {"journal-unusable": "warning"}
        bring_back(path)

        await bench.advance(1.5, steps=3)
        with pytest.raises(JournalUnusable):
            await bench.journal.load_record("edge", "shop")
        await bench.advance(0.5)
        assert await bench.journal.load_record("edge", "shop") is None
        await bench.rest()

        assert bench.codes() == {}
        assert edge.purged == [{b"b"}, {b"a"}]
