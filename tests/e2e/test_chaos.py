"""Nothing is lost whatever breaks, and the check that says so would notice.

The faults are the same in each run unless ``CHAOS_SEED`` is given; ``scripts/chaos`` looks longer, at others.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from invalidator.demo.servers import ServerMissing
from tests.support.chaos import FAULTS, RULES, Outcome, World, lanes
from tests.support.services import missing

SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
DEFECT_SECONDS = 3
"""What goes wrong before the last fault is mended by what is written later, however long it lasts."""
SEEDS = range(1, 11)
"""The first finds nearly every defect, and each is another chance on a machine that is slow or busy."""
OLD_FORGOTTEN = [RULES[0], {**RULES[1], "invalidate": {"keys": ["slug:{new.slug}"]}}]


async def play(world: World, seconds: float, faults: list[str]) -> Outcome:
    try:
        return await world.run(seconds, lanes(faults, world.source))
    except ServerMissing as error:
        missing(str(error))


@pytest.mark.parametrize("source", ["pgoutput", "outbox"])
async def test_after_any_faults_no_stale_entry_is_left(tmp_path: Path, source: str) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))

    world = World(tmp_path, seed, source=source)

    outcome = await play(world, SECONDS, list(FAULTS))

    assert outcome.is_clean, f"replay: scripts/chaos --source {source} --seed {seed}: {outcome}\n{world.log()}"
    assert outcome.faults
    assert outcome.fills
    assert outcome.heard
    assert outcome.purges


@pytest.mark.parametrize(
    ("defect", "faults"),
    [
        ("confirm_before_apply", ["kill_daemon_while_unlink_is_forbidden"]),
        ("reply_ignored", ["forbid_unlink"]),
        ("truncate_ignored", ["change_rules"]),
        ("old_key_forgotten", ["change_rules"]),
        ("position_remembered", ["kill_daemon"]),
        ("gap_ignored", ["drop_slot"]),
        ("failover_ignored", ["restore_redis"]),
        ("answer_assumed", ["upset_edge"]),
    ],
)
async def test_a_planted_defect_is_found(tmp_path: Path, defect: str, faults: list[str]) -> None:
    is_rule = defect == "old_key_forgotten"
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = World(
            folder,
            seed,
            defect=None if is_rule else defect,
            rules=OLD_FORGOTTEN if is_rule else RULES,
            patience_seconds=1,
            redo_window_seconds=0,  # it would make good for some of them
            truncates=0.02 if defect == "truncate_ignored" else 0,  # so would these
        )
        if (await play(world, DEFECT_SECONDS, faults)).stale:
            return
    pytest.fail(f"{defect} was not found with {len(SEEDS)} seeds")
