"""What a database needs for ``source: {type: notify}``: a role, and an application that notifies. Pure.

What is sent is the application's: nothing here makes a trigger. Where the application does not notify yet, a function
and its triggers are shown for each table of the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from invalidator.postgres.catalog import Table
from invalidator.postgres.provision.capture import Capture, images
from invalidator.postgres.provision.grants import login_plan
from invalidator.postgres.provision.outbox import OLDEST_SERVER, OutboxFacts, OutboxRequest, captures, role_stays
from invalidator.postgres.provision.words import Finding, Mark, Need, Plan, Purpose, Step, identifier

MAX_PAYLOAD_BYTES: Final = 7999
"""``pg_notify()`` raises an error for a longer payload, in the application's transaction."""


def notify_plan(needs: Sequence[Need], facts: OutboxFacts, role: str | None, channel: str) -> Plan:
    """The role, what lookups read, and how triggers would notify."""
    if facts.server.version < OLDEST_SERVER:
        return Plan((), (Finding(f"Postgres {facts.server.version // 10000} is too old: 14 or newer is needed"),))
    if facts.server.is_standby:
        return Plan((), (Finding("this server is a standby: run setup against the primary"),))
    wanted, findings = captures(needs, facts, OutboxRequest(role))
    steps: list[Step] = []
    kept: tuple[Mark, ...] = ()
    if role is not None and not (facts.role is not None and facts.role.is_superuser):
        login = login_plan(role, facts.role, facts.server.database)
        steps, kept = [*login.steps, *facts.lookups.steps], (*login.kept, *facts.lookups.kept)
    steps += [_example(capture, channel) for capture in wanted]
    text = (
        f"what is sent to channel '{channel}' is your application's: setup makes no trigger, and cannot tell whether "
        "there is one. Where nothing notifies yet, run what is recommended above as an owner of the tables"
    )
    return Plan(tuple(steps), (*findings, *facts.lookups.findings, Finding(text, is_problem=False)), kept)


def notify_removal(facts: OutboxFacts) -> Plan:
    """Nothing but the role was made."""
    text = "setup made no trigger for this source: what notifies is your application's, and stays"
    return Plan((), (Finding(text, is_problem=False), *role_stays(facts.role)))


def _example(capture: Capture, channel: str) -> Step:
    table = capture.table
    function = sql.Identifier(table.schema, _name(table))
    sets = [
        sql.SQL("\n  SET {} = {}").format(sql.SQL(name), sql.SQL(", ").join(map(sql.Literal, value.split(", "))))
        for name, value in capture.settings
    ]
    body = _body(capture, channel)
    quoted = sql.Literal(body) if "$notify$" in body else sql.SQL("$notify${}$notify$").format(sql.SQL(body))
    create = sql.SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger\n  LANGUAGE plpgsql{}\nAS {}")
    statements = [create.format(function, sql.Composed(sets), quoted)]
    rows = [operation.upper() for operation in capture.operations if operation != "truncate"]
    if rows:
        trigger = f"CREATE OR REPLACE TRIGGER {{}} AFTER {' OR '.join(rows)} ON {{}} FOR EACH ROW"
        statements.append(_trigger(trigger, _name(table), table, function))
    if "truncate" in capture.operations:
        trigger = "CREATE OR REPLACE TRIGGER {} AFTER TRUNCATE ON {} FOR EACH STATEMENT"
        statements.append(_trigger(trigger, f"{_name(table)[:54]}_truncate", table, function))
    why = f"notifies of changes of {table.full_name}: {', '.join(column.name for column in capture.columns)}"
    return Step(Purpose.TRIGGER, tuple(statements), why, is_advice=True)


def _trigger(template: str, name: str, table: Table, function: sql.Identifier) -> sql.Composed:
    return sql.SQL(template + " EXECUTE FUNCTION {}()").format(sql.Identifier(name), identifier(table), function)


def _body(capture: Capture, channel: str) -> str:
    """It never fails the application: what cannot be sent is told without rows, for which the rules widen."""
    schema, table = (sql.Literal(name).as_string(None) for name in (capture.table.schema, capture.table.name))
    columns = f"ARRAY[{', '.join(sql.Literal(column.name).as_string(None) for column in capture.columns)}]"
    head = f"'schema', {schema}, 'table', {table}, 'op', lower(TG_OP)"
    notify = f"PERFORM pg_notify({sql.Literal(channel).as_string(None)}, "
    return f"""
DECLARE
  payload text;
BEGIN
  payload := json_build_object({head},
    'old', CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN json_object({columns}, {images(capture, "OLD")}) END,
    'new', CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN json_object({columns}, {images(capture, "NEW")}) END);
  IF octet_length(payload) > {MAX_PAYLOAD_BYTES} THEN
    payload := json_build_object({head});
  END IF;
  {notify}payload);
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  BEGIN
    {notify}json_build_object({head})::text);
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'a change of % was not notified: SQLSTATE %', {table}, SQLSTATE;
  END;
  RETURN NULL;
END
"""


def _name(table: Table) -> str:
    return f"notify_{table.name}".encode()[:63].decode("utf-8", "ignore")
