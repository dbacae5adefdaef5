"""Reading the facts from a database, and running the steps of a plan there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from invalidator.errors import ConfigError, InvalidatorError
from invalidator.postgres import catalog
from invalidator.postgres.catalog import Table, privileges
from invalidator.postgres.failures import ours
from invalidator.postgres.provision.words import Facts, LookupReads, Need, Plan, Purpose, Request, Step

LOCK_TIMEOUT = "5s"
"""ALTER TABLE waits no longer for the application, because everybody else would queue up behind it."""
STATEMENT_TIMEOUT = "60s"
"""A slot is made only when all transactions that were open at that moment have ended."""


async def facts(connection: psycopg.AsyncConnection[Any], needs: Sequence[Need], request: Request) -> Facts:
    """Read what a plan is made from.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    patterns = sorted({(need.schema, need.table) for need in needs})
    tables = await catalog.tables(connection, patterns)
    is_missing = any(not any(need.wants(table) for table in tables) for need in needs)
    return Facts(
        await catalog.server(connection),
        await catalog.role(connection, request.role) if request.role is not None else None,
        tables,
        await catalog.publications(connection),
        await catalog.slot(connection, request.slot),
        table_names=await catalog.table_names(connection) if is_missing else (),
        reads=await reads(connection, needs, tables, request.role) if request.role is not None else (),
    )


async def with_others(connection: psycopg.AsyncConnection[Any], found: Facts, publication: str) -> Facts:
    """Add the tables of the publication that no rule is about, as far as it may make an UPDATE of them fail.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    ours = found.publications.get(publication)
    if ours is None:
        return found
    bound = {table.oid for table in ours.tables if table.columns is not None or table.has_row_filter}
    wanted = bound.union(await catalog.without_identity(connection, publication))
    oids = sorted(wanted - {table.oid for table in found.tables})
    return replace(found, others=await catalog.tables(connection, (), oids=oids)) if oids else found


async def removal_facts(connection: psycopg.AsyncConnection[Any], needs: Sequence[Need], request: Request) -> Facts:
    """Read what ``removal`` is made from: the same, and what the role is needed for elsewhere.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    found = await facts(connection, needs, request)
    if found.slot is not None and found.slot.active_pid is not None:
        found = replace(found, slot_holder=await catalog.session(connection, found.slot.active_pid))
    if request.role is None:
        return found
    holdings = await privileges.holdings(connection, request.role)
    return replace(found, holdings=holdings, ties=await privileges.ties(connection, request.role))


async def reads(
    connection: psycopg.AsyncConnection[Any], needs: Sequence[Need], tables: Sequence[Table], role: str
) -> tuple[LookupReads, ...]:
    """What the rules' lookups read, and whether the role may."""
    found: list[LookupReads] = []
    for need in needs:
        wanted = next((table for table in tables if need.wants(table)), None)
        types = {column.name: column.type_name for column in wanted.columns} if wanted is not None else {}
        for lookup in need.lookups if wanted is not None else ():
            try:
                readables = await privileges.readables(connection, lookup.query(types), role)
                found.append(LookupReads(need.rule, need.place, lookup.name, readables))
            except ConfigError as error:
                found.append(LookupReads(need.rule, need.place, lookup.name, (), str(error)))
    return tuple(found)


async def apply(
    connection: psycopg.AsyncConnection[Any],
    plan: Plan,
    *,
    only: frozenset[Purpose] | None = None,
    report: Callable[[Step], None] | None = None,
) -> None:
    """Run the plan's steps in order, each in a transaction of its own.

    Args:
        connection: in autocommit mode, as a role that owns the tables and may create roles and slots.
        plan: what to run; advice is passed over.
        only: steps of these purposes; None: all.
        report: called after each step.

    Raises:
        ConfigError: the server refused a statement; those before it are done, and running again goes on there.
        SourceDisconnected: the connection broke.
    """
    try:
        await connection.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        await connection.execute("SELECT set_config('statement_timeout', %s, false)", [STATEMENT_TIMEOUT])
    except psycopg.Error as error:
        raise ours(error, doing="preparing the session") from error
    try:
        for step in plan.to_run:
            if only is None or step.purpose in only:
                await _run(connection, step)
                # crash point: set-up-step-done
                if report is not None:
                    report(step)
    finally:
        if not connection.broken:  # the session goes on, and its other statements have their own patience
            await _reset(connection)


async def _reset(connection: psycopg.AsyncConnection[Any]) -> None:
    try:
        await connection.execute("RESET lock_timeout")
        await connection.execute("RESET statement_timeout")
    except psycopg.Error as error:
        raise ours(error, doing="giving the session its own patience back") from error


async def _run(connection: psycopg.AsyncConnection[Any], step: Step) -> None:
    statement = step.statements[0]
    try:
        if len(step.statements) == 1:
            # pg_create_logical_replication_slot refuses a transaction that has written something.
            await connection.execute(statement)
            return
        async with connection.transaction():
            for statement in step.statements:
                await connection.execute(statement)
    except psycopg.Error as error:
        raise _refused(error, statement.as_string(None), connection.info) from error


def _refused(error: psycopg.Error, statement: str, session: psycopg.ConnectionInfo) -> InvalidatorError:
    first = statement.splitlines()[0]
    match error:
        case pg.LockNotAvailable():
            msg = f"{first}: the table was in use for longer than {LOCK_TIMEOUT}; nothing waits any more"
            return ConfigError(msg, fix="run setup --apply again at a quieter moment")
        case pg.QueryCanceled():
            msg = f"{first}: not done within {STATEMENT_TIMEOUT}; a slot waits for all open transactions to end"
            return ConfigError(
                msg, fix="SELECT pid, xact_start, query FROM pg_stat_activity WHERE xact_start IS NOT NULL;"
            )
        case pg.InsufficientPrivilege():
            msg = f"{first}: {error.diag.message_primary}"
            return ConfigError(msg, fix=_privilege(error.diag.message_primary or "", session))
        case _:
            return ours(error, doing=first)


def _privilege(message: str, session: psycopg.ConnectionInfo) -> str:
    """What whoever is connected lacks, as the statement that gives it where there is one."""
    user = sql.Identifier(session.user).as_string(None)
    if "for database" in message:
        database = sql.Identifier(session.dbname).as_string(None)
        return f"GRANT CREATE ON DATABASE {database} TO {user};   -- as the owner of the database"
    if "replication" in message:
        return f"ALTER ROLE {user} REPLICATION;   -- as a superuser; on Amazon RDS: GRANT rds_replication TO {user};"
    if "create role" in message:
        return f"ALTER ROLE {user} CREATEROLE;   -- as a superuser; or let somebody else run the CREATE ROLE"
    return "connect as the owner of the tables, with CREATEROLE and REPLICATION (or superuser): setup --dsn …"
