"""The advisory lock by which one of several daemons leads where there is no slot that only one can have."""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg

from invalidator.errors import SlotInUse
from invalidator.postgres.asking import fetch
from invalidator.postgres.catalog.queries import system

_DOING: Final = "asking for the lock of the daemon that leads"
_KEEP_ALIVE: Final[LiteralString] = """
    SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '3', false),
           set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '15000', false)
"""
"""On the server's side: a daemon whose machine is gone must lose the lock."""
_TAKE: Final[LiteralString] = "SELECT pg_try_advisory_lock(%(key)s)"
_LEAVE: Final[LiteralString] = "SELECT pg_advisory_unlock(%(key)s)"
_HOLDER: Final[LiteralString] = """
    SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND (l.classid::bigint << 32) | l.objid::bigint = %(key)s
"""


async def lead(connection: psycopg.AsyncConnection[Any], key: int, *, what: str) -> None:
    """Take the lock; the session keeps it as long as it lives.

    Args:
        connection: the session.
        key: of the lock.
        what: of which only one may be, for the message.

    Raises:
        SlotInUse: another daemon has it.
        SourceDisconnected: the server does not answer any more.
    """
    await fetch(connection, _KEEP_ALIVE, doing=_DOING)
    if not (await fetch(connection, _TAKE, {"key": key}, doing=_DOING))[0][0]:
        raise await _taken(connection, await holder(connection, key), what)


async def refuse_if_led(connection: psycopg.AsyncConnection[Any], key: int, *, what: str) -> None:
    """Ask whether somebody has the lock, and leave it alone.

    Raises:
        SlotInUse: another daemon has it.
        SourceDisconnected: the server does not answer any more.
    """
    pid = await holder(connection, key)
    if pid is not None:
        raise await _taken(connection, pid, what)


async def leave(connection: psycopg.AsyncConnection[Any], key: int) -> None:
    """Free the lock before hanging up: the server ends a session when it gets to it, and the next one need not wait.

    Raises:
        SourceDisconnected: the server does not answer any more; then it frees the lock by itself.
    """
    await fetch(connection, _LEAVE, {"key": key}, doing=_DOING)


async def holder(connection: psycopg.AsyncConnection[Any], key: int) -> int | None:
    """Which server process has the lock; None: nobody.

    Raises:
        SourceDisconnected: the server does not answer any more.
    """
    rows = await fetch(connection, _HOLDER, {"key": key}, doing=_DOING)
    return rows[0][0] if rows else None


async def _taken(connection: psycopg.AsyncConnection[Any], pid: int | None, what: str) -> SlotInUse:
    msg = f"another daemon {what}: it holds the advisory lock"
    return SlotInUse(msg, holder_pid=pid, system=await system(connection, with_database=True))  # as the lock is
