"""Positions go on without a target when WAL runs out: only after that was written down, and until it is made good."""

from __future__ import annotations

import pytest

from invalidator.checkpoint.record import Record
from invalidator.continuity import Settings
from invalidator.errors import TargetUnavailable
from invalidator.model import GapReason, Lsn
from tests.unit.continuity.test_continuity import Cache, World, record

pytestmark = pytest.mark.usefixtures("quiet_logs")

SKIP = Settings(redo_window_seconds=0, wal="widen_and_skip")
MEGABYTE = 1_000_000


class Lanes:
    """Deliveries that are told what is stuck."""

    def __init__(self, world: World, *stuck: str) -> None:
        self.names = list(stuck)
        self.excused: list[str] = []
        world.keeper.attach(world, self)
        source = world.state.source
        source.slot_wal_status, source.slot_retained_wal_bytes, source.slot_safe_wal_bytes = "extended", 90, 10

    def stuck(self) -> list[str]:
        return [name for name in self.names if name not in self.excused]

    def excuse(self, name: str) -> None:
        self.excused.append(name)


def world_of(settings: Settings = SKIP, **caches: Cache) -> World:
    return World(settings, targets=("redis", "second", "edge"), **caches)


def debts(cache: Cache) -> tuple[str, ...]:
    kept = Record.decode(cache.content)
    assert kept is not None
    return kept.debts


async def test_a_target_is_excused_only_when_another_record_says_so() -> None:
    world = world_of(redis=Cache())
    lanes = Lanes(world, "edge")
    await world.begin()
    world.caches["redis"].failure = TargetUnavailable("away too")
    await world.keeper.tend()
    assert lanes.excused == []

    world.caches["redis"].failure = None
    for _ in range(2):
        await world.keeper.tend()

    assert debts(world.caches["redis"]) == ("edge",)
    assert lanes.excused == ["edge"]
    assert world.state.targets["edge"].debt_since is not None
    await world.apply(300)
    assert world.confirmed == [Lsn(300)]


async def test_what_is_owed_is_made_good_when_the_target_works_again_and_only_then_forgotten() -> None:
    world = world_of(redis=Cache())
    lanes = Lanes(world, "edge")
    await world.begin()
    await world.keeper.tend()
    assert lanes.excused == ["edge"]
    world.repairs_at_once = False

    world.keeper.returned("edge")

    assert world.found == [(GapReason.WAL_SKIPPED, "edge")]
    await world.apply(300)
    assert debts(world.caches["redis"]) == ("edge",)
    world.repaired.pop()()
    await world.apply(400)
    assert debts(world.caches["redis"]) == ()
    assert world.state.targets["edge"].debt_since is None


async def test_a_target_that_fails_again_during_its_repair_still_owes() -> None:
    world = world_of(redis=Cache())
    lanes = Lanes(world, "edge")
    await world.begin()
    await world.keeper.tend()
    world.repairs_at_once = False
    world.keeper.returned("edge")
    lanes.excused.clear()  # it holds positions again, and fails
    await world.keeper.tend()
    assert lanes.excused == ["edge"]

    world.repaired.pop()()  # its lane was excused in the middle: that pays nothing

    assert world.state.targets["edge"].debt_since is not None
    world.keeper.returned("edge")
    world.repaired.pop()()
    assert world.state.targets["edge"].debt_since is None


async def test_a_debt_of_another_life_is_made_good_at_the_start() -> None:
    kept = Record.decode(record(100))
    assert kept is not None
    owing = Record(kept.slot, kept.system, kept.timeline, kept.applied, "", debts=("edge",))
    world = world_of(redis=Cache(owing.encode()))
    Lanes(world)
    world.repairs_at_once = False

    await world.begin()

    assert world.found == [(GapReason.WAL_SKIPPED, "edge")]
    await world.apply(200)
    assert world.confirmed == []
    world.repaired.pop()()
    await world.keeper.tend()
    assert (debts(world.caches["redis"]), world.confirmed) == ((), [Lsn(200)])


async def test_a_debt_of_a_target_that_is_not_configured_now_is_remembered_until_it_is() -> None:
    kept = Record.decode(record(100))
    assert kept is not None
    owing = Record(kept.slot, kept.system, kept.timeline, kept.applied, "", debts=("removed",))
    world = world_of(redis=Cache(owing.encode()))
    Lanes(world)

    await world.begin()
    await world.apply(200)

    assert world.found == []
    assert (debts(world.caches["redis"]), world.confirmed) == (("removed",), [Lsn(200)])


async def test_the_only_redis_is_excused_by_its_own_record_which_stays_behind() -> None:
    world = world_of(redis=Cache())
    lanes = Lanes(world)
    await world.begin()
    await world.apply(200)
    lanes.names.append("redis")
    world.caches["redis"].failure = TargetUnavailable("away")
    await world.apply(300)
    assert lanes.excused == ["redis"]
    await world.apply(400)
    assert world.confirmed == [Lsn(200), Lsn(300), Lsn(400)]

    world.caches["redis"].failure = None
    await world.keeper.tend()
    assert world.caches["redis"].applied == Lsn(200), "a daemon that starts now finds it behind"
    world.keeper.returned("redis")
    assert world.found == [(GapReason.WAL_SKIPPED, "redis")]
    await world.apply(500)
    assert world.caches["redis"].applied == Lsn(500)


async def test_a_redis_that_nobody_knows_the_record_of_is_not_excused() -> None:
    """After a crash nothing would tell that anything is missing there."""
    world = world_of(redis=Cache())
    world.caches["redis"].failure = TargetUnavailable("away since before the start")
    lanes = Lanes(world, "redis")
    await world.begin()
    await world.apply(200)
    assert (lanes.excused, world.confirmed) == ([], [])


async def test_after_a_restart_a_redis_that_is_away_is_excused_by_the_record_of_another() -> None:
    world = world_of(redis=Cache(record(100)), second=Cache(record(100)))
    world.caches["second"].failure = TargetUnavailable("away")
    lanes = Lanes(world, "second")
    await world.begin()
    for _ in range(3):
        await world.keeper.tend()
    assert lanes.excused == ["second"]
    assert debts(world.caches["redis"]) == ("second",)


@pytest.mark.parametrize(
    ("settings", "status", "retained", "safe", "is_short"),
    [
        ({}, "extended", 81, 19, True),
        ({}, "extended", 79, 21, False),
        ({}, "unreserved", None, None, True),
        ({}, "reserved", 10**12, None, False),
        ({"wal_bytes": MEGABYTE}, "reserved", MEGABYTE + 1, None, True),
        ({"wal_bytes": MEGABYTE}, "reserved", MEGABYTE, None, False),
        ({"wal_share": 0.5}, "reserved", 51, 49, True),
        ({}, None, None, None, False),
        ({"wal": "stall"}, "unreserved", 99, 1, False),
    ],
)
async def test_when_wal_runs_out(
    settings: dict[str, object], status: str | None, retained: int | None, safe: int | None, is_short: bool
) -> None:
    world = world_of(Settings.model_validate({"redo_window_seconds": 0, "wal": "widen_and_skip"} | settings), a=Cache())
    world.state.targets["edge"] = world.state.targets["a"]
    lanes = Lanes(world, "edge")
    source = world.state.source
    source.slot_wal_status, source.slot_retained_wal_bytes, source.slot_safe_wal_bytes = status, retained, safe
    await world.begin()
    await world.apply(200)
    assert lanes.excused == (["edge"] if is_short else [])
