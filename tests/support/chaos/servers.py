"""Faults of processes: daemon and servers are killed, frozen, replaced, and changed behind the daemon's back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import redis

from invalidator.demo.servers import KeyValueServer
from tests.support.chaos.world import FAILOVER_SLOTS, SLOT
from tests.support.daemon import write_whole
from tests.support.standby import Standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.chaos.lanes import Fault
    from tests.support.chaos.world import World

# -------------------------------------------------------------------- the daemon


async def kill_daemon(world: World, choice: random.Random) -> None:
    world.expect_daemon()
    world.daemon.kill()
    await asyncio.sleep(choice.uniform(0, 0.5))
    world.start_daemon()


async def stop_daemon(world: World, _: random.Random) -> None:
    world.expect_daemon()
    world.daemon.terminate()
    await asyncio.to_thread(world.daemon.wait)
    world.start_daemon()


async def freeze_daemon(world: World, choice: random.Random) -> None:
    await _freeze([world.daemon.pid], choice.uniform(0.1, 3))


async def hand_over(world: World, choice: random.Random) -> None:
    """A second daemon stands by; the first ends, in order or not."""
    world.expect_daemon()
    first = world.daemon
    world.start_daemon()
    await asyncio.sleep(choice.uniform(0, 3))
    if choice.random() < 0.5:
        first.kill()
    else:
        first.terminate()
        await asyncio.to_thread(first.wait)


async def something_while_the_daemon_is_away(world: World, choice: random.Random) -> None:
    """Another of these faults, between two lives of the daemon."""
    world.expect_daemon()
    world.daemon.kill()
    fault = choice.choice(possible(BEHIND_ITS_BACK, world.source))
    world.note(f"  {fault.__name__}")
    await fault(world, choice)
    world.start_daemon()


async def change_rules(world: World, _: random.Random) -> None:
    world.write_rules()


async def reload_rules(world: World, _: random.Random) -> None:
    world.write_rules()
    if world.daemon.events("daemon.started"):  # a Python that is just starting ends at a SIGHUP, whoever it will be
        _signal([world.daemon.pid], signal.SIGHUP)


async def break_rules(world: World, choice: random.Random) -> None:
    world.allow_refusal()
    write_whole(world.folder / "rules.yaml", "version: 1\nrules: [")
    await asyncio.sleep(choice.uniform(0.2, 1))
    world.write_rules()


# -------------------------------------------------------------------- Postgres


async def crash_postgres(world: World, _: random.Random) -> None:
    await asyncio.to_thread(world.postgres.kill)
    await asyncio.to_thread(world.postgres.start)


async def restart_postgres(world: World, _: random.Random) -> None:
    await asyncio.to_thread(world.postgres.restart, "fast")


async def freeze_postgres(world: World, choice: random.Random) -> None:
    await _freeze([world.postgres.pid, *_children(world.postgres.pid)], choice.uniform(0.1, 3))


async def fail_over_postgres(world: World, choice: random.Random) -> None:
    """A standby takes over, with or without a copy of the slot, and perhaps without the last commits."""
    has_slot = choice.random() < 0.6 and await asyncio.to_thread(_keeps_slots, world)
    standby = world.adopt(await asyncio.to_thread(_standby, world, has_slot=has_slot))
    if has_slot:
        has_slot = await asyncio.to_thread(standby.wait_for_slot, SLOT)
    world.note(f"  {'with' if has_slot else 'without'} the slot")
    if choice.random() < 0.7:
        await asyncio.to_thread(standby.promote)  # what is committed from here on never reaches it
        await asyncio.sleep(choice.uniform(0, 2))
    async with world.application.at_rest():
        await asyncio.to_thread(world.postgres.close)
        world.use_postgres(standby)
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_promote() WHERE pg_is_in_recovery()")


def _keeps_slots(world: World) -> bool:
    if world.source != "pgoutput":
        return False
    with psycopg.connect(world.postgres.dsn(), autocommit=True) as connection:
        if connection.info.server_version < FAILOVER_SLOTS:
            return False
        query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND failover AND wal_status <> 'lost'"
        return connection.execute(query, [SLOT]).fetchone() is not None


def _standby(world: World, *, has_slot: bool) -> Standby:
    with psycopg.connect(world.postgres.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active "
                           "AND slot_type = 'physical'")  # fmt: skip
    settings = {"wal_sender_timeout": "10s"}
    return Standby(world.postgres, physical_slot="standby" if has_slot else None, settings=settings)


async def drop_slot(world: World, _: random.Random) -> None:
    statement = f"SELECT pg_drop_replication_slot('{SLOT}')"
    await asyncio.to_thread(_sql, world, _END_WALSENDER, statement)


async def lose_slot(world: World, choice: random.Random) -> None:
    """The daemon is away until the server has removed the WAL that it needs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(world.daemon.pid, signal.SIGSTOP)
    write = "SELECT pg_logical_emit_message(true, 'chaos', 'much'), pg_switch_wal()"
    limit = "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'"
    reload = "SELECT pg_reload_conf()"
    await asyncio.to_thread(_sql, world, limit, reload, write, write, write, "CHECKPOINT")
    await asyncio.sleep(choice.uniform(0, 0.5))
    await asyncio.to_thread(_sql, world, "ALTER SYSTEM RESET max_slot_wal_keep_size", reload)
    with contextlib.suppress(ProcessLookupError):
        os.kill(world.daemon.pid, signal.SIGCONT)


async def end_walsender(world: World, _: random.Random) -> None:
    await asyncio.to_thread(_sql, world, _END_WALSENDER)


async def unpublish(world: World, choice: random.Random) -> None:
    await asyncio.to_thread(_sql, world, f"ALTER PUBLICATION {SLOT} DROP TABLE item")
    await asyncio.sleep(choice.uniform(0.1, 2))
    await asyncio.to_thread(_sql, world, f"ALTER PUBLICATION {SLOT} ADD TABLE item")


async def publish_less(world: World, choice: random.Random) -> None:
    await asyncio.to_thread(_sql, world, f"ALTER PUBLICATION {SLOT} SET (publish = 'insert')")
    await asyncio.sleep(choice.uniform(0.1, 2))
    everything = "insert, update, delete, truncate"
    await asyncio.to_thread(_sql, world, f"ALTER PUBLICATION {SLOT} SET (publish = '{everything}')")


async def make_publication_anew(world: World, choice: random.Random) -> None:
    world.allow_refusal()
    await asyncio.to_thread(_sql, world, f"DROP PUBLICATION {SLOT}")
    await asyncio.sleep(choice.uniform(0.1, 1))
    await asyncio.to_thread(_sql, world, f"CREATE PUBLICATION {SLOT} FOR TABLE item")


async def empty_outbox(world: World, _: random.Random) -> None:
    """Somebody who thinks that nobody needs it."""
    await asyncio.to_thread(_sql, world, "DELETE FROM invalidator.outbox")


async def silence_triggers(world: World, choice: random.Random) -> None:
    await asyncio.to_thread(_sql, world, "ALTER TABLE item DISABLE TRIGGER USER")
    await asyncio.sleep(choice.uniform(0.1, 2))
    await asyncio.to_thread(_sql, world, "ALTER TABLE item ENABLE TRIGGER USER")


async def end_listener(world: World, _: random.Random) -> None:
    """Nobody listens until the daemon does again: what is notified meanwhile is lost."""
    await asyncio.to_thread(_sql, world, f"{_END_SESSION} '%/listen'")


async def end_side_connection(world: World, _: random.Random) -> None:
    await asyncio.to_thread(_sql, world, f"{_END_SESSION} '%/side'")


_END_SESSION: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE"
_END_WALSENDER: Final = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active"


def _sql(world: World, *statements: str) -> None:
    with (
        contextlib.suppress(psycopg.Error),
        psycopg.connect(world.postgres.dsn(), autocommit=True, connect_timeout=30) as connection,
    ):
        for statement in statements:
            with contextlib.suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                connection.execute(statement)


# -------------------------------------------------------------------- Redis


async def crash_redis(world: World, choice: random.Random) -> None:
    """It is away for a while; it comes back empty, or with the dump of a full synchronisation or a restore."""
    await asyncio.to_thread(world.redis.kill)
    await asyncio.sleep(choice.uniform(0, 2))
    await asyncio.to_thread(world.redis.start)


async def freeze_redis(world: World, choice: random.Random) -> None:
    await _freeze([world.redis.pid], choice.uniform(0.1, 3))


async def restart_redis_empty(world: World, _: random.Random) -> None:
    await asyncio.to_thread(_redis, world.redis.url, _forget_dump)
    await asyncio.to_thread(world.redis.kill)
    await asyncio.to_thread(world.redis.start)


async def restore_redis(world: World, choice: random.Random) -> None:
    """Back to what it was a moment ago."""
    await asyncio.to_thread(_redis, world.redis.url, lambda client: client.save())
    await asyncio.sleep(choice.uniform(0.1, 3))
    await asyncio.to_thread(world.redis.kill)
    await asyncio.to_thread(world.redis.start)


async def fail_over_redis(world: World, choice: random.Random) -> None:
    """A replica takes over that perhaps lacks the last writes; the old primary is dead, or becomes its replica."""
    replica = world.adopt(await asyncio.to_thread(KeyValueServer))
    await asyncio.to_thread(_redis, replica.url, lambda client: client.replicaof("127.0.0.1", world.redis.port))
    await _until_in_sync(replica)
    old = world.redis
    is_lossy = choice.random() < 0.7
    if is_lossy:
        await asyncio.to_thread(_redis, replica.url, _promote)  # what is written from here on never reaches it
        await asyncio.sleep(choice.uniform(0, 3))
    is_demoted = choice.random() < 0.5
    world.note(f"  {'lossy' if is_lossy else 'lossless'}, the old one is {'demoted' if is_demoted else 'dead'}")
    async with world.application.at_rest():
        await asyncio.to_thread(_redis, replica.url, _promote)
        if is_demoted:
            await asyncio.to_thread(_redis, old.url, lambda client: client.replicaof("127.0.0.1", replica.port))
        else:
            await asyncio.to_thread(old.close)
        world.use_redis(replica)


async def _until_in_sync(replica: KeyValueServer) -> None:
    with redis.Redis.from_url(replica.url) as client:
        for _ in range(200):
            if client.info("replication").get("master_link_status") == "up":
                return
            await asyncio.sleep(0.05)


def _promote(client: redis.Redis) -> None:
    client.replicaof("NO", "ONE")


async def flush_redis(world: World, _: random.Random) -> None:
    await asyncio.to_thread(_redis, world.redis.url, lambda client: client.flushall())


async def forbid_unlink(world: World, choice: random.Random) -> None:
    """An ACL that somebody got wrong, for a while: the same server refuses the same calls."""
    await asyncio.to_thread(_redis, world.redis.url, _acl("-unlink"))
    await asyncio.sleep(choice.uniform(0.3, 4))
    await asyncio.to_thread(_redis, world.redis.url, _acl("+unlink"))


async def fill_redis(world: World, choice: random.Random) -> None:
    """No memory left: everything that could need some is refused."""
    await asyncio.to_thread(_redis, world.redis.url, lambda client: client.config_set("maxmemory", "1"))
    await asyncio.sleep(choice.uniform(0.3, 2))
    await asyncio.to_thread(_redis, world.redis.url, lambda client: client.config_set("maxmemory", "0"))


async def kill_daemon_while_unlink_is_forbidden(world: World, choice: random.Random) -> None:
    world.expect_daemon()
    await asyncio.to_thread(_redis, world.redis.url, _acl("-unlink"))
    await asyncio.sleep(world.redo_window_seconds + choice.uniform(1, 2))
    world.daemon.kill()
    await asyncio.to_thread(_redis, world.redis.url, _acl("+unlink"))
    world.start_daemon()


def _redis(url: str, do: Callable[[redis.Redis], object]) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url, decode_responses=True) as client:
        do(client)


def _acl(change: str) -> Callable[[redis.Redis], object]:
    return lambda client: client.execute_command("ACL", "SETUSER", "default", change)  # type: ignore[no-untyped-call]


def _forget_dump(client: redis.Redis) -> None:
    Path(str(client.config_get("dir")["dir"]), "dump.rdb").unlink(missing_ok=True)


# -------------------------------------------------------------------- any of them


async def _freeze(pids: list[int], seconds: float) -> None:
    _signal(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(pid: int) -> list[int]:
    """Of a process, as Linux lists them; a postmaster's are its backends."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


BEHIND_ITS_BACK: Final[tuple[Fault, ...]] = (
    crash_postgres, fail_over_postgres, drop_slot, unpublish, publish_less, make_publication_anew, crash_redis,
    restart_redis_empty, restore_redis, fail_over_redis, flush_redis, change_rules, empty_outbox, silence_triggers,
)  # fmt: skip

SERVER_FAULTS: Final[tuple[Fault, ...]] = (
    kill_daemon, stop_daemon, freeze_daemon, hand_over, something_while_the_daemon_is_away, change_rules, reload_rules,
    break_rules, crash_postgres, restart_postgres, freeze_postgres, fail_over_postgres, drop_slot, lose_slot,
    end_walsender, unpublish, publish_less, make_publication_anew, crash_redis, freeze_redis, restart_redis_empty,
    restore_redis, fail_over_redis, flush_redis, forbid_unlink, fill_redis, kill_daemon_while_unlink_is_forbidden,
    empty_outbox, silence_triggers, end_listener, end_side_connection,
)  # fmt: skip

_ONLY_WITH: Final[dict[str, tuple[Fault, ...]]] = {
    "pgoutput": (drop_slot, lose_slot, end_walsender, unpublish, publish_less, make_publication_anew),
    "outbox": (empty_outbox, silence_triggers),
    "notify": (end_listener,),
}


def possible(faults: Iterable[Fault], source: str) -> list[Fault]:
    """Those that mean something to a daemon with this source."""
    others = {fault for name, only in _ONLY_WITH.items() if name != source for fault in only}
    return [fault for fault in faults if fault not in others]
