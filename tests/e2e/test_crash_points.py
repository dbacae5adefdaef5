"""Wherever the daemon is killed, the next one makes every layer fresh. The places are marked in the code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from invalidator.demo.servers import ServerMissing
from tests.support.crash_world import SLOT, CrashWorld
from tests.support.crashing import points
from tests.support.services import missing

Scenario = Callable[[CrashWorld], None]

END_WALSENDER = "SELECT pg_terminate_backend(active_pid, 30000) FROM pg_replication_slots WHERE active"
DROP_SLOT = f"SELECT pg_drop_replication_slot('{SLOT}')"


def change(world: CrashWorld) -> None:
    """A transaction comes through the stream."""
    world.change()


def drop_slot(world: CrashWorld) -> None:
    """Changes go missing with the slot."""
    with world.frozen():
        world.connection.execute(END_WALSENDER)
        world.connection.execute(DROP_SLOT)
        world.change()


def lose_slot(world: CrashWorld) -> None:
    """Changes go missing with the WAL that the slot needs."""

    def is_lost() -> bool:
        """A checkpoint removes WAL beyond the bound, as soon as the checkpointer has heard of it."""
        for _ in range(3):
            world.connection.execute("SELECT pg_logical_emit_message(true, 'test', 'much'), pg_switch_wal()")
        world.connection.execute("CHECKPOINT")
        status = world.connection.execute("SELECT wal_status FROM pg_replication_slots").fetchall()
        return status == [("lost",)]

    with world.frozen():
        world.connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        world.connection.execute("SELECT pg_reload_conf()")
        world.until(is_lost, lambda: "the slot is not lost")
        world.change()
        world.connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        world.connection.execute("SELECT pg_reload_conf()")


def unpublish(world: CrashWorld) -> None:
    """What is changed while the table is not published never comes."""
    world.connection.execute(f"ALTER PUBLICATION {SLOT} DROP TABLE item")
    world.change()
    world.connection.execute(f"ALTER PUBLICATION {SLOT} ADD TABLE item")


def reload(world: CrashWorld) -> None:
    """New rules come into force while something changes."""
    world.write_rules()
    world.change()


def stop(world: CrashWorld) -> None:
    """SIGTERM right after a change."""
    world.change()
    world.daemon.terminate()


def start_for_the_first_time(world: CrashWorld) -> None:
    """Neither publication nor slot is there, and nobody remembers one."""
    world.daemon.kill()
    world.forget_state()
    world.connection.execute(END_WALSENDER)  # it may not have noticed yet that nobody listens any more
    world.connection.execute(DROP_SLOT)
    world.connection.execute(f"DROP PUBLICATION {SLOT}")
    world.store.delete(f"invalidator:{SLOT}", f"invalidator:{SLOT}:catalog")
    world.change()
    world.start()


def owe(world: CrashWorld) -> None:
    """WAL runs out while Redis refuses to unlink: positions go on without it."""
    with world.refusing_redis():
        world.change()
        world.daemon.wait()


def damage_journal(world: CrashWorld) -> None:
    """Purges that wait for the edge are in a file that nobody can read any more."""
    world.let_edge_fail(failing=True)
    world.change()
    world.until_confirmed()
    world.daemon.kill()
    world.journal.write_bytes(b"\xff" * 8192)
    world.journal.with_name(world.journal.name + "-wal").write_bytes(b"\xff" * 8192)
    world.let_edge_fail(failing=False)
    world.start()


STREAMED: dict[str, Scenario] = {
    "batch-read": change,
    "looked-up": change,
    "keys-unlinked": change,
    "tag-sets-expanded": change,
    "published": change,
    "applied-not-noted": change,
    "repeat-scheduled": change,
    "record-kept": change,
    "recorded-not-confirmed": change,
    "status-sent": change,
    "journal-not-committed": change,
    "journal-has-taken": change,
    "purged-not-settled": change,
    "damaged-journal-half-moved": damage_journal,
    "lost-journal-made-good": damage_journal,
    "lost-slot-dropped": lose_slot,
    "slot-made-anew": drop_slot,
    "coarse-form-delivered": drop_slot,
    "catalog-change-found": unpublish,
    "catalog-kept": unpublish,
    "rules-swapped": reload,
    "debt-written-down": owe,
    "drained": stop,
    "source-closed": stop,
    "set-up-step-done": start_for_the_first_time,
}
FROM_OUTBOX: dict[str, Scenario] = {
    "outbox-read": change,
    "confirmed-not-deleted": change,
    "deleted-from-outbox": change,
}


@pytest.fixture(scope="module", params=["pgoutput"])
def streaming(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashWorld]:
    """One world for all kills of a daemon that streams."""
    yield from made(tmp_path_factory.mktemp("streaming"), request.param)


@pytest.fixture(scope="module", params=["outbox"])
def polling(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashWorld]:
    """One world for all kills of a daemon that reads an outbox."""
    yield from made(tmp_path_factory.mktemp("polling"), request.param)


def made(folder: Path, source: str) -> Iterator[CrashWorld]:
    try:
        world = CrashWorld(folder, source)
    except ServerMissing as error:
        missing(str(error))
    yield world
    world.close()


def test_every_crash_point_of_the_package_is_reached_by_one_of_these_tests() -> None:
    assert points() == dict.fromkeys([*STREAMED, *FROM_OUTBOX], 1)


@pytest.mark.parametrize("point", STREAMED)
def test_a_daemon_that_is_killed_while_it_streams_has_lost_nothing(streaming: CrashWorld, point: str) -> None:
    kill_at(streaming, point, STREAMED[point])


@pytest.mark.parametrize("point", FROM_OUTBOX)
def test_a_daemon_that_is_killed_while_it_reads_an_outbox_has_lost_nothing(polling: CrashWorld, point: str) -> None:
    kill_at(polling, point, FROM_OUTBOX[point])


def kill_at(world: CrashWorld, point: str, scenario: Scenario) -> None:
    world.until_streaming()
    world.until_confirmed()  # so that it dies with what comes now, not with what comes again
    world.fill()
    world.arm(point)

    scenario(world)
    world.until_killed()
    world.start()

    world.until_fresh()
