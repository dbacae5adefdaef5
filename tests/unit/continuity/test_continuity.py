"""Records are written before anything is confirmed, and a Redis that is another one is noticed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from invalidator.checkpoint.record import Record
from invalidator.continuity import Continuity, Settings
from invalidator.errors import ConfigError, SlotLost, SourceDisconnected, TargetRejected, TargetUnavailable
from invalidator.model import Gap, GapReason, Lsn, StreamStart
from invalidator.ports import Kept
from invalidator.telemetry.events import Events
from invalidator.telemetry.problems import problems
from invalidator.telemetry.state import State, TargetState
from tests.support.clock import ManualClock, settle

pytestmark = pytest.mark.usefixtures("quiet_logs")

START = StreamStart("7", 1, Lsn(100))


class Cache:
    """A target that keeps a record in memory, as a Redis would."""

    def __init__(self, content: bytes | None = None, *, lies_apart: bool = False) -> None:
        self.content = content
        self.lies_apart = lies_apart
        self.incarnation = "one"
        self.failure: Exception | None = None
        self.owner = ""
        self.owned_until = 0.0
        self.claims = 0
        self.now: Callable[[], float] = lambda: 0.0

    @property
    def applied(self) -> Lsn | None:
        kept = Record.decode(self.content)
        return None if kept is None else kept.applied

    async def load_record(self, name: str) -> Kept:
        if self.failure is not None:
            raise self.failure
        return Kept(self.content, self.incarnation)

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        if self.failure is not None:
            raise self.failure
        self.claims += 1
        if self.now() >= self.owned_until:
            self.owner = ""
        if seconds and self.owner in ("", owner, before):
            self.owner, self.owned_until = owner, self.now() + seconds
        return self.owner

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        if self.failure is not None:
            raise self.failure
        if self.content == expected:
            self.content = content
        return Kept(self.content, self.incarnation)


class World:
    """A keeper between caches and somebody who repairs."""

    def __init__(self, settings: Settings | None = None, *, targets: Sequence[str] = (), **caches: Cache) -> None:
        self.clock = ManualClock()
        for cache in caches.values():
            cache.now = self.clock.time
        self.state = State(targets={name: TargetState(name) for name in (*targets, *caches)})
        self.caches = caches
        self.gaps: list[Gap] = []
        self.repairs_at_once = True
        self.repaired: list[Callable[[], None]] = []
        self.restarts: list[str] = []
        self.confirmed: list[Lsn] = []
        self.keeper = Continuity(
            [(name, cache, name != "optional") for name, cache in caches.items()],
            slot="shop",
            settings=settings or Settings(redo_window_seconds=0),
            events=Events(self.state, self.clock.time),
            clock=self.clock,
            targets=targets,
        )
        self.keeper.attach(self)

    def repair(self, gap: Gap, on_repaired: Callable[[], None]) -> None:
        self.gaps.append(gap)
        if self.repairs_at_once:
            on_repaired()
        else:
            self.repaired.append(on_repaired)

    def restart(self, why: str) -> None:
        self.restarts.append(why)

    def confirm(self, position: Lsn) -> None:
        self.confirmed.append(position)

    async def begin(self, start: StreamStart = START) -> None:
        self.keeper.begin(start)
        await self.keeper.tend()

    async def apply(self, position: int) -> None:
        self.keeper.applied(Lsn(position))
        await self.keeper.tend()

    @property
    def found(self) -> list[tuple[GapReason, str | None]]:
        return [(gap.reason, gap.target) for gap in self.gaps]


def record(applied: int, *, timeline: int = 1, new_slots: tuple[int, ...] = ()) -> bytes:
    return Record("shop", "7", timeline, Lsn(applied), "", new_slots).encode()


async def test_a_position_is_confirmed_only_after_every_required_cache_holds_it() -> None:
    world = World(a=Cache(), b=Cache())
    await world.begin()
    world.caches["b"].failure = TargetUnavailable("away")

    await world.apply(200)
    assert world.caches["a"].applied == Lsn(200)
    assert world.confirmed == []

    world.caches["b"].failure = None
    await world.keeper.tend()  # it has to be looked at first
    await world.keeper.tend()
    assert world.confirmed == [Lsn(200)]


async def test_an_optional_cache_holds_nothing_back() -> None:
    world = World(a=Cache(), optional=Cache())
    world.caches["optional"].failure = TargetUnavailable("away")
    await world.begin()

    await world.apply(200)

    assert world.confirmed == [Lsn(200)]


async def test_an_optional_cache_that_missed_something_is_repaired_alone_when_it_is_back() -> None:
    world = World(a=Cache(record(100)), optional=Cache(record(50)))
    world.caches["optional"].failure = TargetUnavailable("away")
    await world.begin()
    await world.apply(200)
    assert world.found == []

    world.caches["optional"].failure = None
    await world.keeper.tend()

    assert world.found == [(GapReason.TARGET_LOST_WRITES, "optional")]


async def test_what_answers_late_is_held_against_the_log_as_it_was_when_the_connection_began() -> None:
    world = World(a=Cache(record(100)), optional=Cache(record(50)))
    world.caches["optional"].failure = TargetUnavailable("away")
    await world.begin(replace(START, end=Lsn(150)))
    await world.apply(200)  # the log goes on

    world.caches["optional"].failure = None
    await world.keeper.tend()

    assert world.found == [(GapReason.TARGET_LOST_WRITES, "optional")]


async def test_a_cache_without_a_record_that_answers_late_is_no_gap() -> None:
    world = World(a=Cache(record(100)), optional=Cache())
    world.caches["optional"].failure = TargetUnavailable("away")
    await world.begin(replace(START, end=Lsn(150)))
    await world.apply(200)

    world.caches["optional"].failure = None
    await world.keeper.tend()

    assert world.found == []


async def test_without_a_required_cache_positions_pass_at_once() -> None:
    world = World(optional=Cache())
    await world.begin()

    world.keeper.applied(Lsn(5))

    assert world.confirmed == [Lsn(5)]


async def test_a_source_without_a_history_confirms_at_once() -> None:
    world = World(a=Cache())

    world.keeper.applied(Lsn(5))

    assert world.confirmed == [Lsn(5)]


async def test_positions_wait_for_the_redo_window() -> None:
    world = World(Settings(redo_window_seconds=5), a=Cache())
    await world.begin()
    await world.apply(200)
    assert world.caches["a"].applied == Lsn(200)
    assert world.confirmed == []

    await world.clock.advance(5)
    await world.keeper.tend()

    assert world.confirmed == [Lsn(200)]


async def test_what_was_applied_on_a_connection_that_is_gone_is_not_confirmed_on_the_next_one() -> None:
    world = World(Settings(redo_window_seconds=5), a=Cache())
    await world.begin()
    await world.apply(200)

    world.keeper.lost()
    await world.clock.advance(5)
    await world.keeper.tend()
    assert world.confirmed == []

    await world.begin()
    await world.clock.advance(5)
    await world.keeper.tend()
    assert world.confirmed == []
    await world.apply(201)
    await world.clock.advance(5)
    await world.keeper.tend()
    assert world.confirmed == [Lsn(201)]


async def test_a_first_start_is_told_and_drops_nothing(quiet_logs: list[MutableMapping[str, Any]]) -> None:
    world = World(a=Cache())
    await world.begin()

    assert world.found == []
    assert [entry["event"] for entry in quiet_logs] == ["stream.begun"]


async def test_a_first_start_drops_everything_if_it_is_told_to() -> None:
    world = World(Settings(on_first_start="widen"), a=Cache())
    await world.begin()
    await world.keeper.tend()

    assert world.found == [(GapReason.FIRST_START, None)]


async def test_a_record_is_judged_once_a_connection() -> None:
    world = World(a=Cache(record(50)))
    await world.begin()
    await world.keeper.tend()
    assert world.found == [(GapReason.POSITION_AHEAD, None)]

    await world.begin()
    assert len(world.gaps) == 2


async def test_a_record_behind_is_not_replaced_before_the_repair_is_applied() -> None:
    world = World(a=Cache(record(50)))
    await world.begin()
    await world.keeper.tend()

    assert world.caches["a"].content == record(50)


async def test_a_gap_that_the_source_knows_is_repaired_and_not_judged() -> None:
    world = World(a=Cache(record(50)))
    await world.begin(replace(START, gap=Gap(GapReason.WAL_REMOVED, "lost")))

    assert world.found == [(GapReason.WAL_REMOVED, None)]


async def test_another_server_with_our_record_is_read_to_again() -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)
    world.caches["a"].incarnation = "two"

    await world.apply(300)

    assert len(world.restarts) == 1
    assert world.found == []
    assert world.confirmed == [Lsn(200)]
    world.keeper.applied(Lsn(400))  # of the old connection
    await world.keeper.tend()
    assert world.confirmed == [Lsn(200)]


async def test_another_server_without_a_record_is_repaired_alone() -> None:
    world = World(a=Cache(), b=Cache())
    await world.begin()
    await world.apply(200)
    world.caches["a"].incarnation, world.caches["a"].content = "two", None

    await world.keeper.tend()

    assert world.found == [(GapReason.TARGET_LOST_WRITES, "a")]


async def test_a_server_that_changes_while_nobody_streams_is_noticed_too() -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)
    world.caches["a"].incarnation, world.caches["a"].content = "two", record(150)

    await world.begin(replace(START, position=Lsn(200)))
    assert len(world.restarts) == 1

    await world.begin(replace(START, position=Lsn(200)))
    assert world.found == [(GapReason.POSITION_AHEAD, None)]


async def test_a_record_that_is_gone_on_the_same_server_is_written_again(
    quiet_logs: list[MutableMapping[str, Any]],
) -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)
    world.caches["a"].content = None

    await world.apply(300)
    await world.apply(300)

    assert world.caches["a"].applied == Lsn(300)
    assert world.restarts == []
    assert world.found == []
    assert "record.forgotten" in [entry["event"] for entry in quiet_logs]


async def test_another_record_on_the_same_server_is_not_overwritten_but_read_to_again() -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)
    world.caches["a"].content = record(77)

    await world.apply(300)

    assert world.caches["a"].content == record(77)
    assert len(world.restarts) == 1


async def test_a_write_that_failed_after_it_was_carried_out_is_no_foreign_record() -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)
    cache = world.caches["a"]
    kept = Record.decode(cache.content)
    assert kept is not None
    cache.content = replace(kept, applied=Lsn(300)).encode()
    cache.failure = TargetUnavailable("no answer")
    await world.apply(300)
    cache.failure = None

    await world.keeper.tend()
    await world.keeper.tend()

    assert world.restarts == []
    assert world.confirmed == [Lsn(200), Lsn(300)]


async def test_with_stop_a_gap_ends_the_daemon() -> None:
    world = World(Settings(on_gap="stop"), a=Cache(record(50)))

    with pytest.raises(SlotLost, match=r"on_gap: stop.*ON_GAP=widen"):
        await world.begin()


# A slot that is missing or lost


LOST = Gap(GapReason.WAL_REMOVED, "the slot is lost")


async def test_a_slot_is_missed_if_any_cache_remembers_it() -> None:
    assert await World(a=Cache(), b=Cache(record(1))).keeper.has_record("7")
    assert not await World(a=Cache(), b=Cache()).keeper.has_record("7")


async def test_while_a_required_cache_is_silent_nobody_can_tell() -> None:
    world = World(a=Cache(), b=Cache())
    world.caches["b"].failure = TargetUnavailable("away")

    with pytest.raises(SourceDisconnected, match="cannot be told: away"):
        await world.keeper.has_record("7")


async def test_a_cache_that_does_not_let_us_look_is_for_the_operator() -> None:
    world = World(a=Cache())
    world.caches["a"].failure = refusal = TargetRejected("NOPERM")
    refusal.fix = "ACL SETUSER NAME ~invalidator:*"

    with pytest.raises(ConfigError, match="ACL SETUSER") as caught:
        await world.keeper.has_record("7")
    assert caught.value.fix == refusal.fix


async def test_a_slot_is_made_anew_only_so_often_over_restarts_too() -> None:
    cache = Cache()
    first = World(Settings(max_new_slots_per_hour=2, redo_window_seconds=0), a=cache)
    first.keeper.allow_new_slot(LOST)
    await first.begin(replace(START, gap=LOST))
    await first.apply(200)

    world = World(Settings(max_new_slots_per_hour=2, redo_window_seconds=0), a=cache)
    await world.keeper.has_record("7")
    world.keeper.allow_new_slot(LOST)
    with pytest.raises(SourceDisconnected, match="2 times within an hour"):
        world.keeper.allow_new_slot(LOST)

    await world.clock.advance(3601)
    world.keeper.allow_new_slot(LOST)


async def test_slots_that_a_wrong_clock_made_in_the_future_hold_up_nobody_after_it_was_set_right() -> None:
    ahead = 1_000_000 + 365 * 86_400
    world = World(Settings(max_new_slots_per_hour=1), a=Cache(record(100, new_slots=(ahead, ahead))))
    await world.keeper.has_record("7")

    world.keeper.allow_new_slot(LOST)
    with pytest.raises(SourceDisconnected, match="1 times within an hour"):
        world.keeper.allow_new_slot(LOST)


async def test_with_stop_no_slot_is_made_anew() -> None:
    with pytest.raises(SlotLost, match=r"changes are missing.*ON_GAP=widen"):
        World(Settings(on_gap="stop")).keeper.allow_new_slot(LOST)


async def test_it_works_by_itself_and_sooner_while_positions_move() -> None:
    world = World(a=Cache())
    task = asyncio.create_task(world.keeper.run())
    await world.clock.advance(1)
    world.keeper.begin(START)
    await world.clock.advance(1)
    world.keeper.applied(Lsn(200))
    await world.clock.advance(0.6)
    assert world.confirmed == [Lsn(200)]
    task.cancel()


async def test_nothing_is_recorded_between_a_gap_and_its_repair() -> None:
    """Batches that were on their way when the gap was found may finish before it is made good."""
    world = World(a=Cache(record(99)))
    world.repairs_at_once = False
    world.keeper.begin(START)
    world.keeper.applied(Lsn(150))  # before anybody could ask the cache
    await world.keeper.tend()
    assert world.found == [(GapReason.POSITION_AHEAD, None)]

    await world.apply(200)
    assert (world.caches["a"].applied, world.confirmed) == (Lsn(99), [])
    await world.begin()  # the connection is lost meanwhile, and the gap found again
    await world.apply(200)
    assert world.caches["a"].applied == Lsn(99)

    for on_repaired in world.repaired:
        on_repaired()
    await world.keeper.tend()
    assert (world.caches["a"].applied, world.confirmed) == (Lsn(200), [Lsn(200)])


async def test_a_record_apart_from_its_cache_that_cannot_be_kept_holds_nothing() -> None:
    world = World(a=Cache(), edge=Cache(lies_apart=True))
    world.caches["edge"].failure = TargetUnavailable("disk full")
    await world.begin()
    await world.apply(200)
    assert world.confirmed == [Lsn(200)]
    assert world.state.targets["edge"].record_failing_since is None

    world.caches["edge"].failure = None
    await world.apply(300)
    await world.keeper.tend()
    assert (world.caches["edge"].applied, world.confirmed) == (Lsn(300), [Lsn(200), Lsn(300)])


async def test_records_apart_from_their_caches_alone_hold_positions_while_they_can_be_kept() -> None:
    world = World(edge=Cache(lies_apart=True))
    await world.begin()
    await world.apply(200)
    assert (world.caches["edge"].applied, world.confirmed) == (Lsn(200), [Lsn(200)])

    world.caches["edge"].failure = TargetUnavailable("disk full")
    await world.apply(300)
    assert world.confirmed == [Lsn(200), Lsn(300)]


async def test_a_cache_that_outlives_its_record_is_repaired_alone_when_another_record_knows_of_it() -> None:
    world = World(a=Cache(), edge=Cache(lies_apart=True))
    await world.begin()
    await world.apply(200)
    await world.apply(300)
    kept = world.caches["a"].content

    again = World(a=Cache(kept), edge=Cache(lies_apart=True))
    await again.begin(StreamStart("7", 1, Lsn(300)))
    assert again.found == [(GapReason.TARGET_LOST_WRITES, "edge")]

    other = World(a=Cache(), edge=Cache(world.caches["edge"].content, lies_apart=True))
    await other.begin(StreamStart("7", 1, Lsn(300)))
    assert other.found == [], "a flushed Redis holds nothing that is stale"


async def test_a_file_that_comes_late_is_still_missed() -> None:
    world = World(a=Cache(), edge=Cache(lies_apart=True))
    await world.begin()
    await world.apply(200)
    await world.apply(300)
    again = World(a=Cache(world.caches["a"].content), edge=Cache(lies_apart=True))
    again.caches["edge"].failure = TargetUnavailable("locked")
    await again.begin(StreamStart("7", 1, Lsn(300)))
    await again.apply(400)
    assert (again.found, again.confirmed) == ([], [Lsn(400)])

    again.caches["edge"].failure = None
    await again.keeper.tend()

    assert again.found == [(GapReason.TARGET_LOST_WRITES, "edge")]


async def test_a_file_that_keeps_a_record_tells_of_a_gap_that_a_flushed_redis_has_forgotten() -> None:
    world = World(a=Cache(), edge=Cache(record(99), lies_apart=True))
    await world.begin()
    assert world.found == [(GapReason.POSITION_AHEAD, None)]


async def test_a_file_of_before_is_made_good_alone() -> None:
    world = World(a=Cache(record(100)), edge=Cache(record(50), lies_apart=True))
    await world.begin()
    assert world.found == [(GapReason.TARGET_LOST_WRITES, "edge")]


async def test_two_looks_at_once_do_not_take_each_others_record_for_a_strangers() -> None:
    """The daemon ends: the last look is beside the one that goes on for ever."""
    world = World(a=Slow())
    await world.begin()
    world.keeper.applied(Lsn(200))
    first = asyncio.create_task(world.keeper.tend())
    await asyncio.sleep(0)
    world.keeper.applied(Lsn(300))

    await asyncio.gather(first, world.keeper.tend())

    assert world.restarts == []
    assert world.confirmed == [Lsn(200), Lsn(300)]


async def test_a_record_of_another_cluster_says_that_two_daemons_share_a_name() -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)

    world.caches["a"].content = Record("shop", "8", 1, Lsn(300), "").encode()
    await world.apply(400)

    assert len(world.restarts) == 1
    assert "two daemons" in world.restarts[0]
    assert "system identifier 8" in world.restarts[0]


async def test_a_record_that_owes_before_anything_was_applied_begins_where_this_history_does() -> None:
    other = Record("shop", "6", 1, Lsn(900), "").encode()
    world = World(Settings(redo_window_seconds=0, wal="widen_and_skip"), targets=("a", "edge"), a=Cache(other))
    source = world.state.source
    source.slot_wal_status, source.slot_retained_wal_bytes, source.slot_safe_wal_bytes = "extended", 90, 10
    world.keeper.attach(world, _Stuck())

    await world.begin()
    for _ in range(2):
        await world.keeper.tend()

    kept = Record.decode(world.caches["a"].content)
    assert kept is not None
    assert (kept.system, kept.applied, kept.debts) == ("7", START.position, ("edge",))


async def together(first: World, second: World, seconds: float) -> None:
    """Let time pass for both."""
    for _ in range(int(seconds * 2)):
        for world in (first, second):
            await world.clock.advance(0.5)
            await world.keeper.tend()


OTHER = StreamStart("8/16384/1", 1, Lsn(900))


async def test_two_databases_under_one_name_do_not_fight_one_holds_its_positions_and_says_why() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)

    await second.begin(OTHER)
    second.keeper.applied(Lsn(1000))
    await together(first, second, 60)
    await first.apply(300)

    assert first.confirmed == [Lsn(200), Lsn(300)]
    assert (first.gaps, first.restarts) == ([], [])
    assert (second.confirmed, second.gaps, second.restarts) == ([], [], [])
    assert not second.keeper.owns_record("a")
    (problem,) = (each for each in problems(second.state, second.clock.time()) if each.subject == "a")
    assert (problem.code, problem.severity) == ("record-taken", "critical")
    assert "system identifier 7" in problem.text
    assert [each.code for each in problems(first.state, first.clock.time()) if each.subject == "a"] == []


async def test_a_name_that_its_database_uses_no_more_is_free_after_a_while_and_that_is_another_history() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)
    await second.begin(OTHER)

    for _ in range(40):  # the first one has ended
        await second.clock.advance(0.5)
        await second.keeper.tend()
    await second.apply(1000)

    assert second.found == [(GapReason.OTHER_HISTORY, None)]
    assert second.confirmed == [Lsn(1000)]
    await first.begin()  # it comes back, and so does what it had not confirmed
    await first.apply(300)
    assert (first.confirmed, first.gaps) == ([Lsn(200)], [])
    assert not first.keeper.owns_record("a")


async def test_a_standby_lets_the_one_that_streams_from_another_database_have_the_record() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)

    first.keeper.lost()  # both are led to another cluster, where the second one is faster
    await second.begin(OTHER)
    for _ in range(20):
        first.keeper.stand_by("8/16384/")
        await together(first, second, 1)
    await second.apply(1000)

    assert second.confirmed == [Lsn(1000)]
    assert second.keeper.owns_record("a")


@pytest.mark.parametrize("system", ["7", None])
async def test_a_standby_keeps_the_record_for_its_own_database_however_long(system: str | None) -> None:
    """What holds the slot may be a connection of its own that the server does not know to be gone."""
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)

    first.keeper.lost()
    await second.begin(OTHER)
    second.keeper.applied(Lsn(1000))
    for _ in range(150):
        first.keeper.stand_by(system)
        await together(first, second, 1)

    assert first.keeper.owns_record("a")
    assert second.confirmed == []


async def test_a_standby_does_not_take_the_record_from_the_one_that_took_over_from_it() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)
    first.keeper.lost()
    first.keeper.stand_by("8")  # it was led to another cluster, where nobody has used the record
    await second.begin()
    await together(first, second, 20)

    await first.begin(StreamStart("8", 1, Lsn(900)))  # nobody streams there any more
    await together(first, second, 20)
    await second.apply(300)

    assert second.keeper.owns_record("a")
    assert second.confirmed == [Lsn(300)]
    assert not first.keeper.owns_record("a")


async def test_the_record_of_the_database_before_is_not_that_of_the_one_that_we_stream_from_now() -> None:
    """What is kept beside it, of the tables, is about the one before too."""
    world = World(a=Cache())
    await world.begin()
    assert world.keeper.owns_record("a")

    world.keeper.begin(OTHER)
    assert not world.keeper.owns_record("a")
    await world.keeper.tend()
    assert world.keeper.owns_record("a")
    world.keeper.stand_by("7")
    assert not world.keeper.owns_record("a")


@pytest.mark.parametrize("system", ["8", "7/1/2"])
async def test_a_daemon_that_is_led_to_another_database_does_not_wait_for_itself(system: str) -> None:
    world = World(a=Cache())
    await world.begin(StreamStart("7/1/1", 1, Lsn(100)))
    await world.apply(200)

    await world.begin(StreamStart(system, 1, Lsn(100)))
    await world.apply(300)

    assert world.found == [(GapReason.OTHER_HISTORY, None)]
    assert world.confirmed == [Lsn(200), Lsn(300)]


async def test_a_cache_that_was_emptied_hears_at_once_whose_its_record_is() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)
    await together(first, second, 1)
    claims = cache.claims
    cache.content, cache.owner = None, ""

    await first.keeper.tend()
    await first.keeper.tend()
    await second.begin(OTHER)

    assert cache.claims > claims
    assert first.keeper.owns_record("a")
    assert not second.keeper.owns_record("a")


async def test_a_cache_that_hung_for_long_is_still_of_its_owner_whoever_asks_first() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)
    await second.begin(OTHER)
    cache.failure = TargetUnavailable("hung", result="timeout")
    await together(first, second, 30)

    cache.failure = None
    for _ in range(2):
        await second.keeper.tend()
    await together(first, second, 30)

    assert first.keeper.owns_record("a")
    assert (second.found, second.confirmed) == ([], [])


async def test_whose_a_record_is_costs_one_word_in_two_seconds() -> None:
    world = World(a=Cache())
    await world.begin()
    await world.apply(200)
    claims = world.caches["a"].claims

    for _ in range(20):
        await world.clock.advance(0.5)
        await world.keeper.tend()

    assert world.caches["a"].claims - claims == 5


async def test_a_missing_slot_is_no_first_start_while_the_record_is_of_another_database() -> None:
    cache = Cache()
    first, second = World(a=cache), World(a=cache)
    await first.begin()
    await first.apply(200)

    with pytest.raises(
        SourceDisconnected, match=r"cannot be told: a daemon of another database .*a record_prefix each"
    ) as failure:
        await second.keeper.has_record("8")
    assert failure.value.reason == "record_taken"
    assert await first.keeper.has_record("7")
    for _ in range(2):  # it is taken when it was found free twice
        await second.clock.advance(10)
        with contextlib.suppress(SourceDisconnected):
            await second.keeper.has_record("8")

    assert await second.keeper.has_record("8"), "it was led to another cluster, and the slot is missed"


class Hung(Cache):
    """Answers nothing, and is no error either, until it wakes up."""

    def __init__(self, content: bytes | None = None) -> None:
        super().__init__(content)
        self.awake = asyncio.Event()
        self.awake.set()

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        await self.awake.wait()
        return await super().claim_record(name, owner, before=before, seconds=seconds)

    async def load_record(self, name: str) -> Kept:
        await self.awake.wait()
        return await super().load_record(name)

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        kept = await super().keep_record(name, content, expected=expected)
        await self.awake.wait()
        return kept


async def test_a_cache_that_hangs_delays_no_word_and_no_repair_at_another_one() -> None:
    hung, cache = Hung(), Cache()
    world = World(hung=hung, a=cache)
    await world.begin()
    await world.apply(200)
    working = asyncio.create_task(world.keeper.run())
    hung.awake.clear()

    for _ in range(30):  # three times as long as a word counts
        await world.clock.advance(1)
        assert cache.owned_until > world.clock.time()
    cache.incarnation, cache.content = "two", None
    await world.clock.advance(2)
    assert world.found == [(GapReason.TARGET_LOST_WRITES, "a")]

    world.keeper.applied(Lsn(300))
    await world.clock.advance(5)
    assert world.confirmed == [Lsn(200)]
    hung.awake.set()
    await world.clock.advance(5)
    assert world.confirmed == [Lsn(200), Lsn(300)]
    assert world.restarts == []
    working.cancel()


async def test_a_record_that_was_written_while_nobody_waited_for_it_any_more_is_our_own() -> None:
    cache, other = Hung(), Cache()
    world = World(a=cache, b=other)
    await world.begin()
    working = asyncio.create_task(world.keeper.run())
    for position in range(200, 300, 10):
        cache.awake.clear()
        world.keeper.applied(Lsn(position))
        await world.clock.advance(3)
        assert other.applied == Lsn(position)
        cache.awake.set()
        await world.clock.advance(3)
        assert cache.applied == Lsn(position)

    assert world.restarts == []
    assert world.confirmed[-1] == Lsn(290)
    working.cancel()


async def test_who_ends_waits_for_a_cache_that_is_slow_and_confirms_what_it_holds() -> None:
    cache = Hung()
    world = World(a=cache)
    await world.begin()
    working = asyncio.create_task(world.keeper.run())
    cache.awake.clear()
    world.keeper.applied(Lsn(200))
    await world.clock.advance(5)
    world.keeper.applied(Lsn(300))
    ending = asyncio.create_task(world.keeper.tend())
    await world.clock.advance(5)
    assert not ending.done()

    cache.awake.set()
    await ending

    assert cache.applied == Lsn(300)
    assert world.confirmed[-1] == Lsn(300)
    working.cancel()


async def test_what_is_under_way_ends_with_the_daemon() -> None:
    cache = Hung()
    world = World(a=cache)
    await world.begin()
    before = asyncio.all_tasks()
    cache.awake.clear()
    working = asyncio.create_task(world.keeper.run())
    await world.clock.advance(5)
    assert len(asyncio.all_tasks() - before) > 1

    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await settle()

    assert asyncio.all_tasks() == before


class Slow(Cache):
    """Answers after somebody else had a turn."""

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().keep_record(name, content, expected=expected)


async def test_two_targets_that_keep_their_record_under_one_key_write_the_same() -> None:
    cache = Slow()
    world = World(a=cache, b=cache)
    await world.begin()
    for position in range(200, 300, 20):
        world.keeper.applied(Lsn(position))
        tending = asyncio.ensure_future(world.keeper.tend())
        while not tending.done():  # the stream goes on meanwhile
            await asyncio.sleep(0)
            world.keeper.applied(Lsn(position := position + 1))
        await tending

    assert world.restarts == []
    assert world.confirmed[-1] >= Lsn(280)


class _Stuck:
    """Deliveries of which one does not come through."""

    def stuck(self) -> list[str]:
        return ["edge"]

    def excuse(self, name: str) -> None:
        pass
