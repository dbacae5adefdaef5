"""Set-up for databases without logical replication: an outbox table, and triggers that write changes into it.

    outbox_facts      what is there
    outbox_plan       wanted minus there
    outbox_removal    what of it can be taken away again
    captures          what is written down of which table

Application roles need nothing for it: the functions run as their owner (SECURITY DEFINER) with a fixed search_path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from invalidator.postgres import catalog
from invalidator.postgres.catalog import KINDS, ORDINARY, PARTITIONED, Role, Server, Table
from invalidator.postgres.catalog.outbox import SCHEMA, TABLE, Outbox, outbox
from invalidator.postgres.provision.capture import (
    COMMENT,
    Capture,
    function_body,
    function_name,
    function_settings,
    statements,
    trigger_name,
    trigger_statements,
)
from invalidator.postgres.provision.grants import login_plan, lookup_plan
from invalidator.postgres.provision.missing import missing_tables, similar
from invalidator.postgres.provision.outbox_table import (
    COLUMNS,
    GUARD,
    PRIVILEGES,
    grants,
    refusal,
    table_plan,
    table_removal,
)
from invalidator.postgres.provision.run import reads
from invalidator.postgres.provision.words import (
    OPERATIONS,
    Facts,
    Finding,
    Mark,
    Need,
    Plan,
    Purpose,
    Request,
    Step,
)

OLDEST_SERVER = 140000
VIRTUAL = "v"
_ORDER = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, slots=True)
class OutboxRequest:
    """What is to stand in the end."""

    role: str | None
    """The daemon's role; None: whoever connects."""
    fires_always: bool = False
    """Also for what replication applies (``session_replication_role = replica``)."""
    wakes: bool = False
    """Each statement wakes the daemon by an empty notification."""


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """What is there."""

    server: Server
    role: Role | None
    tables: tuple[Table, ...]
    outbox: Outbox
    table_names: tuple[str, ...] = ()
    lookups: Plan = field(default_factory=lambda: Plan(()))
    """The grants that lookups need."""


async def outbox_facts(
    connection: psycopg.AsyncConnection[Any], needs: Sequence[Need], request: OutboxRequest
) -> OutboxFacts:
    """Read what a plan is made from.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    tables = await catalog.tables(connection, sorted({(need.schema, need.table) for need in needs}))
    tables = tuple(table for table in tables if table.schema != SCHEMA)
    is_missing = any(not any(need.wants(table) for table in tables) for need in needs)
    server = await catalog.server(connection)
    role = await catalog.role(connection, request.role) if request.role is not None else None
    lookups = Plan(())
    if request.role is not None:
        read = await reads(connection, needs, tables, request.role)
        lookups = lookup_plan(Facts(server, role, tables, {}, None, reads=read), Request("", "", request.role))
    return OutboxFacts(
        server,
        role,
        tables,
        await outbox(connection, request.role),
        await catalog.table_names(connection) if is_missing else (),
        lookups,
    )


def outbox_plan(needs: Sequence[Need], facts: OutboxFacts, request: OutboxRequest) -> Plan:
    """Work out the steps; what exists as wanted needs none, so a second run does nothing."""
    if facts.server.version < OLDEST_SERVER:
        return Plan((), (Finding(f"Postgres {facts.server.version // 10000} is too old: 14 or newer is needed"),))
    if facts.server.is_standby:
        return Plan((), (Finding("this server is a standby: run setup against the primary"),))
    if facts.outbox.stranger is not None:
        return Plan((), (refusal(facts.outbox.stranger),))
    wanted, findings = captures(needs, facts, request)
    table = table_plan(facts.outbox)
    parts = [table, _role(facts, request), facts.lookups]
    if not table.findings:
        parts += [_triggers(capture, facts, request) for capture in wanted]
    parts.append(_superfluous(wanted, facts))
    return Plan(
        tuple(step for part in parts for step in part.steps),
        (*findings, *(finding for part in parts for finding in part.findings)),
        tuple(mark for part in parts for mark in part.kept),
    )


def outbox_removal(facts: OutboxFacts) -> Plan:
    """Take away triggers and functions, then the table with what is still in it; nothing that is not ours."""
    outbox = facts.outbox
    if outbox.reader_pid is not None:
        text = f"the outbox is being read by server process {outbox.reader_pid}: a daemon is running"
        return Plan((), (Finding(text, "stop the daemon, then run this again"),))
    if outbox.columns and not (outbox.comment.startswith(COMMENT) or outbox.columns == COLUMNS):
        text = f"table {SCHEMA}.{TABLE} stays: it has other columns than ours, and its comment does not say who made it"
        drop = sql.SQL("DROP TABLE {};   -- if nobody else needs it").format(sql.Identifier(SCHEMA, TABLE))
        return Plan((), (Finding(text, drop.as_string(None)),))
    steps = list(_superfluous((), facts).steps)
    steps += table_removal(outbox)
    findings: tuple[Finding, ...] = ()
    if outbox.strangers:
        text = f"schema {SCHEMA} stays: {', '.join(outbox.strangers[:3])} in it is not ours"
        findings = (Finding(text, is_problem=False),)
    return Plan(tuple(steps), (*findings, *role_stays(facts.role)))


def role_stays(role: Role | None) -> tuple[Finding, ...]:
    """What removal says of the daemon's role."""
    if role is None:
        return ()
    text = f"role '{role.name}' stays: whether it is needed for more is not known"
    drop = sql.SQL("DROP ROLE {};   -- if it is not").format(sql.Identifier(role.name))
    return (Finding(text, drop.as_string(None), is_problem=False),)


def captures(
    needs: Sequence[Need], facts: OutboxFacts, request: OutboxRequest
) -> tuple[tuple[Capture, ...], list[Finding]]:
    """What is to be written down of each table, and what of the rules that leaves open."""
    found: list[Capture] = []
    findings = missing_tables(needs, facts.tables, facts.table_names)
    for table in facts.tables:
        own = [need for need in needs if need.wants(table)]
        if not own:
            continue
        refusal = _why_not_capturable(table)
        if refusal is not None:
            findings += [Finding(f"rule '{need.rule}' ({need.place}): {refusal}") for need in own if need.is_exact]
            continue
        findings += _table_findings(own, table)
        found.append(_capture(own, table, facts, wakes=request.wakes))
    return tuple(found), findings


def problem_of(capture: Capture, member: Table, operation: str, facts: OutboxFacts, *, is_always: bool) -> str | None:
    """What is wrong with one trigger: ``missing``, ``disabled``, ``outdated``; None when it is as wanted."""
    name = function_name(capture.table, operation)
    function = facts.outbox.functions.get(name)
    trigger = facts.outbox.trigger(member.oid, trigger_name(operation))
    if function is None or trigger is None or trigger.function != name:
        return "missing"
    if trigger.firing not in ("O", "A"):
        return "disabled"
    is_as_wanted = function.source == function_body(capture, operation) and function.is_definer
    is_as_wanted = is_as_wanted and tuple(sorted(function.settings)) == function_settings(capture)
    return None if is_as_wanted and trigger.firing == ("A" if is_always else "O") else "outdated"


def _why_not_capturable(table: Table) -> str | None:
    """Why triggers cannot tell of a relation's rows; None when they can."""
    if table.root_oid is not None:
        return f"{table.full_name} is a partition: name the partitioned table, its rows come under that name"
    if table.kind not in {ORDINARY, PARTITIONED}:
        return f"{table.full_name} is a {KINDS.get(table.kind, 'relation')}: name the tables behind it"
    return None


def _capture(needs: Sequence[Need], table: Table, facts: OutboxFacts, *, wakes: bool) -> Capture:
    read = frozenset[str]().union(*(need.columns for need in needs))
    usable = [column for column in table.columns if column.generated != VIRTUAL]
    columns = tuple(column for column in usable if column.name in read) or tuple(usable[:1])
    operations = frozenset[str]().union(*(need.operations for need in needs)) & OPERATIONS
    updating = [need for need in needs if "update" in need.operations]
    parts = [part for part in facts.tables if part.root_oid == table.oid and part.kind in {ORDINARY, PARTITIONED}]
    return Capture(
        table,
        (table, *parts),
        columns,
        tuple(operation for operation in _ORDER if operation in operations),
        only_changed=all(need.changed is not None for need in updating),
        wakes=wakes,
    )


def _role(facts: OutboxFacts, request: OutboxRequest) -> Plan:
    """A role that may connect, and read and empty the outbox. It needs no REPLICATION, and nothing of your tables."""
    if request.role is None or (facts.role is not None and facts.role.is_superuser):
        return Plan(())
    login = login_plan(request.role, facts.role, facts.server.database)
    steps, kept = list(login.steps), list(login.kept)
    title = f"{', '.join(PRIVILEGES)} in schema {SCHEMA} for {request.role}"
    if facts.outbox.privileges >= set(PRIVILEGES):
        kept.append(Mark("=", title))
    else:
        why = "the daemon reads and empties the outbox, and sends heartbeats through it"
        steps.append(Step(Purpose.GRANT, grants(request.role), why, marks=(Mark("+", title),)))
    return Plan(tuple(steps), (), tuple(kept))


def _triggers(capture: Capture, facts: OutboxFacts, request: OutboxRequest) -> Plan:
    """All of one table in one transaction: either every change is written down in the new way, or in the old one."""
    made: list[sql.Composed] = []
    marks: list[Mark] = []
    kept: list[Mark] = []
    for operation in capture.operations:
        problems = {
            member.oid: problem_of(capture, member, operation, facts, is_always=request.fires_always)
            for member in capture.members
        }
        if any(problems.values()):
            made += statements(capture, operation)
        for member in capture.members:
            title, problem = f"{operation} trigger on {member.full_name}", problems[member.oid]
            if problem is None:
                kept.append(Mark("=", title))
                continue
            marks.append(Mark("+", title) if problem == "missing" else Mark("~", title, problem))
            there = facts.outbox.trigger(member.oid, trigger_name(operation))
            was = None if there is None else there.firing
            made += trigger_statements(capture, member, operation, is_always=request.fires_always, was=was)
    why = f"writes changes of {capture.table.full_name} down: {', '.join(column.name for column in capture.columns)}"
    steps = (Step(Purpose.TRIGGER, tuple(made), why, marks=tuple(marks)),) if made else ()
    return Plan(steps, (), tuple(kept))


def _superfluous(wanted: Sequence[Capture], facts: OutboxFacts) -> Plan:
    """Triggers and functions of ours that no rule needs (any more)."""
    needed = {
        (member.oid, trigger_name(operation)): function_name(capture.table, operation)
        for capture in wanted
        for member in capture.members
        for operation in capture.operations
    }
    drops: list[sql.Composed] = []
    marks: list[Mark] = []
    ours = {
        name
        for name, function in facts.outbox.functions.items()
        if function.comment.startswith(COMMENT) and name != GUARD
    }
    for trigger in facts.outbox.triggers:
        is_replaced = (trigger.relation_oid, trigger.name) in needed  # CREATE OR REPLACE gives it another function
        if trigger.function in ours and not is_replaced:
            drop = sql.SQL("DROP TRIGGER {} ON {}")
            drops.append(drop.format(sql.Identifier(trigger.name), sql.Identifier(trigger.schema, trigger.table)))
            marks.append(Mark("-", f"trigger {trigger.name} on {trigger.schema}.{trigger.table}"))
    for name in sorted(ours - set(needed.values())):
        drops.append(sql.SQL("DROP FUNCTION {}()").format(sql.Identifier(SCHEMA, name)))
        marks.append(Mark("-", f"function {SCHEMA}.{name}"))
    why = "nothing needs what they would write down"
    return Plan((Step(Purpose.TRIGGER, tuple(drops), why, marks=tuple(marks)),) if drops else ())


def _table_findings(needs: Sequence[Need], table: Table) -> Iterator[Finding]:
    known = {column.name: column for column in table.columns}
    for need in needs:
        where = f"rule '{need.rule}' ({need.place})"
        for name in sorted(need.columns):
            if name not in known:
                yield Finding(f"{where}: {table.full_name} has no column '{name}'", similar(name, known))
            elif known[name].generated == VIRTUAL:
                text = (
                    f"{where}: '{name}' of {table.full_name} is a virtual generated column, which triggers do not see"
                )
                yield Finding(text, "use the columns that it is made of")
    if table.has_children:
        text = f"other tables inherit from {table.full_name}: a statement that names one of them is not seen here"
        yield Finding(text, "name those tables in rules of their own", is_problem=False)
