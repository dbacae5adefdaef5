"""The event triggers that tell the stream of DDL, in the order of the commits: ``setup --ddl-hook``.

They never fail the application's DDL: whatever goes wrong inside is told as unknown, and the rules of all tables widen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from invalidator.postgres.asking import fetch
from invalidator.postgres.catalog import Server, server
from invalidator.postgres.catalog.outbox import SCHEMA, stranger
from invalidator.postgres.catalog.told import EVENTS, PREFIX
from invalidator.postgres.provision.outbox_table import refusal
from invalidator.postgres.provision.providers import Provider, detect
from invalidator.postgres.provision.words import Finding, Mark, Plan, Purpose, Step

FUNCTION: Final = "tell_ddl"
_TAGS: Final = "'ALTER TABLE', 'CREATE TABLE', 'ALTER SCHEMA'"
_MOVED: Final = 1 | 4
"""Reasons of a rewrite after which values or logging are others; new columns and access methods change no value."""

_TABLES: Final = """
        SELECT top.oid::bigint, n.nspname, top.relname, {what} AS what, top.relkind
          FROM {commands}
          JOIN pg_class top ON top.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END
          JOIN pg_namespace n ON n.oid = top.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'"""
_COMMANDS: Final = """pg_event_trigger_ddl_commands() AS d
          JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
           AND (d.command_tag <> 'CREATE TABLE' OR c.relispartition)
            OR d.classid = 'pg_namespace'::regclass AND c.relnamespace = d.objid AND d.command_tag = 'ALTER SCHEMA'"""
_BODY: Final = f"""
DECLARE
  told jsonb;
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    SELECT jsonb_agg(jsonb_build_object('oid', objid::bigint, 'schema', address_names[1], 'table', address_names[2],
                                        'what', CASE object_type WHEN 'table' THEN 'dropped' ELSE 'altered' END))
      INTO told FROM pg_event_trigger_dropped_objects()
     WHERE object_type IN ('table', 'table column') AND NOT is_temporary;
  ELSIF TG_EVENT = 'table_rewrite' THEN
    SELECT jsonb_agg(jsonb_build_object('oid', t.oid, 'schema', t.nspname, 'table', t.relname, 'what', t.what))
      INTO told FROM (
        {_TABLES.format(what="'altered'", commands="pg_class c").strip()}
           AND c.oid = pg_event_trigger_table_rewrite_oid() AND pg_event_trigger_table_rewrite_reason() & {_MOVED} <> 0
      ) AS t;
  ELSE
    SELECT jsonb_agg(jsonb_build_object('oid', t.oid, 'schema', t.nspname, 'table', t.relname, 'what', t.what) ||
                     CASE WHEN t.relkind = 'p' AND t.what = 'there' THEN jsonb_build_object('partitions', (
                       SELECT coalesce(jsonb_object_agg(m.oid, pg_relation_size(m.oid) > 0), '{{}}')
                         FROM pg_partition_tree(t.oid::oid::regclass) AS tree
                         JOIN pg_class m ON m.oid = tree.relid AND m.relkind = 'r'
                     )) ELSE '{{}}' END)
      INTO told FROM (
        {_TABLES.format(what="CASE WHEN d.objsubid = 0 THEN 'there' ELSE 'altered' END", commands=_COMMANDS).strip()}
         GROUP BY 1, 2, 3, 4, 5
      ) AS t;
  END IF;
  IF told IS NOT NULL THEN
    PERFORM pg_logical_emit_message(true, '{PREFIX}', told::text);
  END IF;
EXCEPTION WHEN OTHERS THEN
  BEGIN
    PERFORM pg_logical_emit_message(true, '{PREFIX}', '[{{"what": "unknown"}}]'::text);
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'invalidator: % was not told: SQLSTATE %', TG_TAG, SQLSTATE;
  END;
END
"""  # noqa: S608  (constants)
"""One function for all three events."""


@dataclass(frozen=True, slots=True)
class HookFacts:
    """What is there."""

    server: Server
    has_schema: bool
    is_schema_empty: bool
    """But for the hook."""
    source: str | None
    """Of the function; None: there is none."""
    stranger: str | None
    """See ``catalog.outbox.stranger``."""
    firing: dict[str, str]
    """Event trigger of ours → ``A`` always, ``O`` as usual, ``R`` while replicating only, ``D`` disabled."""


async def hook_facts(connection: psycopg.AsyncConnection[Any]) -> HookFacts:
    """Read what a plan is made from.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    rows = await fetch(
        connection,
        """
        SELECT n.oid IS NOT NULL,
               NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid)
               AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname <> %(function)s),
               (SELECT p.prosrc FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = %(function)s),
               (SELECT coalesce(jsonb_object_agg(e.evtname, e.evtenabled), '{}') FROM pg_event_trigger e
                  JOIN pg_proc p ON p.oid = e.evtfoid AND p.pronamespace = n.oid AND p.proname = %(function)s
                 WHERE e.evtname = ANY (%(names)s::text[]))
          FROM (VALUES (%(schema)s::text)) AS wanted (name) LEFT JOIN pg_namespace n ON n.nspname = wanted.name
        """,
        {"schema": SCHEMA, "function": FUNCTION, "names": [_name(event) for event in EVENTS]},
    )
    has_schema, is_empty, source, firing = rows[0]
    return HookFacts(await server(connection), has_schema, is_empty, source, await stranger(connection), firing)


def with_hook(plan: Plan, facts: HookFacts, provider: Provider | None) -> Plan:
    """The plan, and behind it what the hook needs."""
    if facts.stranger is not None:
        return Plan(plan.steps, (*plan.findings, refusal(facts.stranger)), plan.kept)
    made = _making(facts)
    steps, findings = made.steps, made.findings
    if steps and not facts.server.is_superuser:
        found = provider or detect(facts.server)
        if found is Provider.SELF:
            text = "the DDL hook is left out: only a superuser can make event triggers"
            fix = "run setup --ddl-hook as one; without it the daemon looks every continuity.catalog_seconds"
            steps, findings = (), (Finding(text, fix),)
        else:
            findings = (Finding(_ON_MANAGED.get(found, _ELSEWHERE), is_problem=False),)
    return Plan((*plan.steps, *steps), (*plan.findings, *findings), (*plan.kept, *made.kept))


def without_hook(plan: Plan, facts: HookFacts) -> Plan:
    """The plan, and before it what takes the hook away."""
    drops: list[sql.Composed] = []
    marks: list[Mark] = []
    for name in sorted(facts.firing):
        drops.append(sql.SQL("DROP EVENT TRIGGER {}").format(sql.Identifier(name)))
        marks.append(Mark("-", f"event trigger {name}"))
    if facts.source is not None:
        drops.append(sql.SQL("DROP FUNCTION {}()").format(sql.Identifier(SCHEMA, FUNCTION)))
        marks.append(Mark("-", f"function {SCHEMA}.{FUNCTION}"))
        if facts.is_schema_empty:
            drops.append(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(SCHEMA)))
            marks.append(Mark("-", f"schema {SCHEMA}"))
    why = "DDL is not told any more; the daemon looks for it"
    steps = (Step(Purpose.HOOK, tuple(drops), why, marks=tuple(marks)),) if drops else ()
    return Plan((*steps, *plan.steps), plan.findings, plan.kept)


_ON_MANAGED: Final = {
    Provider.SUPABASE: "Supabase lets the user 'postgres' make event triggers, and passes over them for DDL of its own"
    " superusers: what those do is found by looking, every continuity.catalog_seconds",
}
_ELSEWHERE: Final = (
    "event triggers are for superusers; on managed Postgres the administrator's role may make them too, or not. If it"
    " is refused, leave the hook out: the daemon looks every continuity.catalog_seconds"
)


def _making(facts: HookFacts) -> Plan:
    function = sql.Identifier(SCHEMA, FUNCTION)
    made: list[sql.Composed] = []
    marks: list[Mark] = []
    kept: list[Mark] = []
    if not facts.has_schema:
        made.append(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    if facts.source != _BODY:
        create = "CREATE OR REPLACE FUNCTION {}() RETURNS event_trigger\n  LANGUAGE plpgsql"
        create += "\n  SET search_path = pg_catalog, pg_temp\nAS $hook${}$hook$"
        made.append(sql.SQL(create).format(function, sql.SQL(_BODY)))
        marks.append(Mark("+" if facts.source is None else "~", f"function {SCHEMA}.{FUNCTION}"))
    for event in EVENTS:
        title = f"event trigger {_name(event)}"
        firing = facts.firing.get(_name(event))
        if firing == "A":
            kept.append(Mark("=", title))
            continue
        if firing is None:
            made.append(_creation(event, function))
        made.append(sql.SQL("ALTER EVENT TRIGGER {} ENABLE ALWAYS").format(sql.Identifier(_name(event))))
        marks.append(Mark("+", title) if firing is None else Mark("~", title, "does not always fire"))
    if not marks:
        return Plan((), (), tuple(kept))
    why = "tells the stream of DROP, RENAME, ATTACH, DETACH and rewrites, in the transaction that does it"
    note = "it never fails the DDL; setup --drop takes it away"
    return Plan((Step(Purpose.HOOK, tuple(made), why, note=note, marks=tuple(marks)),), (), tuple(kept))


def _creation(event: str, function: sql.Identifier) -> sql.Composed:
    tags = f" WHEN TAG IN ({_TAGS})" if event == "ddl_command_end" else ""
    create = f"CREATE EVENT TRIGGER {{}} ON {event}{tags} EXECUTE FUNCTION {{}}()"
    return sql.SQL(create).format(sql.Identifier(_name(event)), function)


def _name(event: str) -> str:
    return f"invalidator_{event}"
