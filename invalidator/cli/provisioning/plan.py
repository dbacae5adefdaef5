"""The plan for a database: looks at what is there, works out what is needed, and runs it if that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invalidator.cli.provisioning.outcome import Outcome, statements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg import AsyncConnection

    from invalidator.cli.provisioning.source import Source
    from invalidator.postgres.catalog import Server
    from invalidator.postgres.connection import Dsn
    from invalidator.postgres.provision import Need, Plan, Request, Step

    Look = Callable[[AsyncConnection[Any]], Awaitable[tuple[Server, Plan]]]


def look_at_slot(source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    """What reads the facts of a slot and makes the plan."""
    from invalidator.postgres import provision

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        if is_removed:
            found = await provision.removal_facts(connection, wanted, request)
            plan = provision.removal(wanted, found, request)
            return found.server, provision.without_hook(plan, await provision.hook_facts(connection))
        found = await provision.facts(connection, wanted, request)
        plan = provision.plan(wanted, found, request)
        if request.wants_hook:
            plan = provision.with_hook(plan, await provision.hook_facts(connection), request.provider)
        return found.server, plan

    return look


def look_at_outbox(source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    """The same for an outbox."""
    from invalidator.postgres import provision

    own = provision.OutboxRequest(request.role, fires_always=source.fires_always, wakes=source.wakes)

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        found = await provision.outbox_facts(connection, wanted, own)
        plan = provision.outbox_removal(found) if is_removed else provision.outbox_plan(wanted, found, own)
        return found.server, plan

    return look


def look_at_notifications(source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool) -> Look:
    """The same for notifications of the application."""
    from invalidator.postgres import provision

    async def look(connection: AsyncConnection[Any]) -> tuple[Server, Plan]:
        found = await provision.outbox_facts(connection, wanted, provision.OutboxRequest(request.role))
        if is_removed:
            return found.server, provision.notify_removal(found)
        return found.server, provision.notify_plan(wanted, found, request.role, source.channel)

    return look


def look_and_run(
    source: Source, wanted: tuple[Need, ...], request: Request, *, is_removed: bool, is_applied: bool
) -> Outcome:
    """Look at the database of a source of any kind, make the plan, and run it if that is asked for."""
    import asyncio

    kinds = {"outbox": look_at_outbox, "notify": look_at_notifications}
    look = kinds.get(source.kind, look_at_slot)(source, wanted, request, is_removed=is_removed)
    outcome = asyncio.run(online(source, look, is_applied=is_applied))
    outcome.removes_by = "setup --drop" if is_removed else None
    return outcome


async def online(source: Source, look: Look, *, is_applied: bool) -> Outcome:
    """Look, and run the plan if that is asked for."""
    from invalidator.errors import ConfigError, SourceDisconnected
    from invalidator.postgres import provision

    async with await connected(source.dsn, source.role) as connection:
        server, plan = await look(connection)
        if not is_applied:
            return Outcome(plan, server)
        applied: list[Step] = []
        try:
            await provision.apply(connection, plan, report=applied.append)
        except (ConfigError, SourceDisconnected) as error:
            msg = f"{error}{_so_far(applied)}"
            raise type(error)(msg) from error
        server, plan = await look(connection)
        return Outcome(plan, server, tuple(applied), is_applied=True)


def _so_far(applied: list[Step]) -> str:
    """What an apply that failed had done by then."""
    from invalidator.yamlfile.diagnostic import printable

    if not applied:
        return "\n   = note: nothing has been changed"
    done = [f"\n   = done: {printable(line)}" for step in applied for line in statements(step)]
    return "".join(done) + "\n   = note: this stands, and running it again goes on behind it"


async def connected(dsn: Dsn, role: str) -> AsyncConnection[Any]:
    """A connection; its errors say what else there is."""
    from invalidator.errors import ConfigError, SourceDisconnected
    from invalidator.postgres.connection import connect

    own = f"before the role '{role}' exists, connect as an owner of the tables: setup --dsn OWNER_DSN"
    password = (
        "check the password: PGPASSWORD, pgpass or the DSN. Postgres says the same of a role that does not exist:"
        f" while '{role}' does not, setup --dsn OWNER_DSN makes it"
    )
    try:
        return await connect(dsn, application_name="invalidator/setup")
    except SourceDisconnected as error:
        msg = f"{error}\n   = help: {own}\n   = help: setup --offline prints generic SQL without a connection"
        raise SourceDisconnected(msg) from error
    except ConfigError as error:
        asked = password if "password" in str(error) else own
        msg = f"{error}\n   = help: {asked}\n   = help: setup --offline prints generic SQL without a connection"
        raise ConfigError(msg) from error
