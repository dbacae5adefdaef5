"""Whether the slot survives a failover: what primary and standby have to agree on (Postgres 17 and newer).

https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS-SYNCHRONIZATION
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from psycopg import sql

from invalidator.postgres.provision.words import FAILOVER_SLOTS
from invalidator.preflight.case import Case
from invalidator.preflight.finding import Finding, finding, listed

_RELOAD: Final = "SELECT pg_reload_conf();"


def unready_for_failover(case: Case) -> Iterator[Finding]:
    """What would make a gap of a failover, or holds the stream up because of a standby."""
    server, slot = case.facts.database.server, case.facts.database.slot
    if server.version < FAILOVER_SLOTS:
        return
    if server.is_standby:
        yield from _copy(case)
    elif slot is not None and slot.is_failover:
        yield from _awaited(case)
        yield from _not_awaited(case)
    elif slot is not None and server.connected_standby_slots:
        yield _not_copied(case)


def _copy(case: Case) -> Iterator[Finding]:
    """What a standby holds of the slot."""
    server, slot, name = case.facts.database.server, case.facts.database.slot, case.facts.request.slot
    if slot is not None and slot.is_synced and not slot.is_temporary:
        return
    if slot is None:
        message = f"this standby has no copy of slot '{name}'"
    elif not slot.is_synced:
        message = f"slot '{name}' on this standby is no copy of the primary's"
    else:
        message = f"this standby's copy of slot '{name}' is not ready: it is still temporary"
    values = {"sync_replication_slots": "on", "hot_standby_feedback": "on", "primary_slot_name": "NAME"}
    unset = [name for name in values if name in server.unset_for_slot_sync]
    fix = "\n".join([*(f"ALTER SYSTEM SET {each} = '{values[each]}';" for each in unset), _RELOAD]) if unset else None
    yield finding(
        name,
        case.at_setting("slot"),
        "slot-not-synced",
        message,
        severity="warning",
        why="if it was promoted now, the slot would be missing: a gap, and the coarse form of every rule",
        help="primary_conninfo needs a dbname; the copy becomes ready when the daemon has confirmed a position that the"
        " standby's catalog reaches back to. A slot of the same name that is no copy has to be dropped",
        fix=fix,
    )


def _awaited(case: Case) -> Iterator[Finding]:
    """Standbys that the stream waits for, and that are not there."""
    server, name = case.facts.database.server, case.facts.request.slot
    away = server.awaited_standby_slots - server.connected_standby_slots
    if not away:
        return
    what = "is not there" if not away & server.standby_slots else "is not connected"
    yield finding(
        name,
        case.at_setting("slot"),
        "standby-away",
        f"synchronized_standby_slots names {listed(sorted(away))}, which {what}",
        why=f"slot '{name}' sends no change until that standby has it: everything goes stale meanwhile",
        help="start the standby, or take it out of the setting if it is gone for good",
        fix=_setting(server.awaited_standby_slots - away),
    )


def _not_awaited(case: Case) -> Iterator[Finding]:
    """Standbys that the daemon may be ahead of."""
    server, name = case.facts.database.server, case.facts.request.slot
    others = server.connected_standby_slots - server.awaited_standby_slots
    if not others:
        return
    yield finding(
        name,
        case.at_setting("slot"),
        "standby-not-awaited",
        f"synchronized_standby_slots does not name {listed(sorted(others))}",
        severity="warning",
        why=f"the daemon may apply changes that this standby never gets; if it is promoted, its copy of slot '{name}'"
        " may be behind or not ready",
        help="leave it out if that standby is never promoted. Commits then reach the daemon no sooner than the standby",
        fix=_setting(server.awaited_standby_slots | others),
    )


def _not_copied(case: Case) -> Finding:
    name, database = case.facts.request.slot, case.facts.database.server.database
    return finding(
        name,
        case.at_setting("slot"),
        "slot-not-failover",
        f"slot '{name}' is not copied to standbys, and there are some",
        severity="warning",
        why="after a failover it is missing: a gap, and the coarse form of every rule",
        fix=f'while the daemon is stopped: psql "dbname={database} replication=database" -c'
        f" 'ALTER_REPLICATION_SLOT {name} (FAILOVER true)'",
    )


def _setting(slots: Iterable[str]) -> str:
    value = sql.Literal(", ".join(sorted(slots))).as_string(None)
    return f"ALTER SYSTEM SET synchronized_standby_slots = {value};\n{_RELOAD}"
