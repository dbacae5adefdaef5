"""Server, slot and role: what the stream needs before there are any rules. Asked of a live server only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from psycopg import sql

from invalidator.postgres.provision.plan import KEEP_SIZE, OLDEST_SERVER
from invalidator.postgres.provision.words import FAILOVER_SLOTS
from invalidator.preflight.case import Case
from invalidator.preflight.finding import Finding, finding

_UNBOUNDED: Final = "-1"


def wrong_server(case: Case) -> Iterator[Finding]:
    """The server cannot decode changes."""
    server, at = case.facts.database.server, case.at_setting("dsn")
    subject = server.database
    if server.version < OLDEST_SERVER:
        message = f"Postgres {server.version // 10000} is too old: 14 or newer is needed"
        yield finding(subject, at, "server-too-old", message)
    if server.is_standby:
        message = "this server is a standby"
        help_text = "let source.dsn name the primary: a slot on a standby ends when the standby is promoted"
        yield finding(subject, at, "server-is-standby", message, help=help_text)
    if case.facts.needs_log and server.wal_level != "logical":
        message = f"wal_level is '{server.wal_level}': this server decodes no changes"
        fix = "ALTER SYSTEM SET wal_level = 'logical';   -- then restart Postgres"
        yield finding(subject, at, "wal-level", message, fix=fix)


def unbounded_wal(case: Case) -> Iterator[Finding]:
    """Nothing bounds what the server keeps for a daemon that is away."""
    server = case.facts.database.server
    if server.max_slot_wal_keep_size != _UNBOUNDED:
        return
    yield finding(
        server.database,
        case.at_setting("dsn"),
        "wal-keep-size",
        "max_slot_wal_keep_size is -1: the server keeps WAL for the slot without bound",
        severity="warning",
        why="a stopped daemon can fill the primary's disk; beyond a bound the slot is given up instead, and the caches"
        " are emptied by the coarse forms",
        fix=f"ALTER SYSTEM SET max_slot_wal_keep_size = '{KEEP_SIZE}';\nSELECT pg_reload_conf();",
    )


def wrong_slot(case: Case) -> Iterator[Finding]:
    """The slot is not there, or is none of ours."""
    if case.facts.database.server.is_standby:
        return  # it is the primary's business: what is here is a copy
    name, at = case.facts.request.slot, case.at_setting("slot")
    database, slot = case.facts.database.server.database, case.facts.database.slot
    literal = sql.Literal(name).as_string(None)
    more = ", failover => true" if case.facts.database.server.version >= FAILOVER_SLOTS else ""
    create = f"SELECT pg_create_logical_replication_slot({literal}, 'pgoutput'{more});"
    other = "choose another name: source.slot"
    if slot is None:
        message = f"there is no replication slot '{name}'"
        # What is older than the publication cannot be decoded with it: "publication does not exist".
        fix = create if case.facts.publication is not None else f"{create}   -- after the publication is there"
        yield finding(name, at, "slot-missing", message, why="the daemon does not start without it", fix=fix)
    elif slot.plugin != "pgoutput":
        what = f"uses the plugin '{slot.plugin}'" if slot.plugin else "is a physical slot"
        yield finding(name, at, "slot-wrong-plugin", f"slot '{name}' {what}, not pgoutput", help=other)
    elif slot.database != database:
        message = f"slot '{name}' belongs to database '{slot.database}', not '{database}'"
        yield finding(name, at, "slot-wrong-database", message, help=other)
    elif slot.wal_status == "lost":
        message = f"slot '{name}' lost its WAL: changes are missing"
        why = "caches may hold what those changes made stale"
        fix = f"SELECT pg_drop_replication_slot({literal});\n{create}   -- then empty what the rules name"
        yield finding(name, at, "slot-lost", message, why=why, fix=fix)


def barred_functions(case: Case) -> Iterator[Finding]:
    """Functions that PUBLIC may call by default, and that somebody has taken away from it."""
    by_role: dict[tuple[str, bool], list[str]] = {}
    for each in case.facts.barred:
        by_role.setdefault((each.role, each.is_trigger), []).append(each.function)
    for (role, is_trigger), functions in by_role.items():
        names = ", ".join(functions)
        why = "the daemon does not start: the lock tells which of several leads"
        if is_trigger:
            why = (
                "triggers of the outbox fail behind what they wrote down: each statement widens the rules of its table"
            )
        grant = sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {};").format(sql.SQL(names), sql.Identifier(role))
        fix = f"{grant.as_string(None)}   -- as a superuser"
        message = f"the role '{role}' may not call {names}"
        yield finding(role, case.at_setting("dsn"), "no-execute-privilege", message, why=why, fix=fix)


def unprivileged_role(case: Case) -> Iterator[Finding]:
    """The role may not read the replication stream."""
    role, server = case.facts.role, case.facts.database.server
    if role is None or role.can_replicate or role.is_superuser:
        return
    name = sql.Identifier(role.name).as_string(None)
    fix = f"GRANT rds_replication TO {name};" if server.has_rds_replication else f"ALTER ROLE {name} REPLICATION;"
    message = f"role '{role.name}' has no REPLICATION privilege"
    why = "Postgres refuses to stream to it"
    yield finding(role.name, case.at_setting("dsn"), "no-replication-privilege", message, why=why, fix=fix)
