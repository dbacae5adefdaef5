"""The questions about privileges: what a query reads, and what a role may do and holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from invalidator.postgres.failures import ours


@dataclass(frozen=True, slots=True)
class Readable:
    """A relation that a query reads, and whether a role may."""

    schema: str
    name: str
    kind: str
    is_granted: bool
    """The role has SELECT on it, or on all the columns of it."""
    has_usage: bool
    """The role has USAGE on its schema."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Something that keeps a role from being dropped."""

    kind: str
    """``o`` owner, ``a`` privilege, ``r`` policy, ``i`` initial privilege, ``t`` tablespace."""
    object_class: str
    """The catalog it is in, as in ``pg_class``."""
    what: str
    """For people."""
    schema: str | None = None
    """Schema and name: of a relation in this database; a schema has its name here."""
    name: str | None = None
    privileges: tuple[str, ...] = ()
    """Of a relation, schema or database in reach: what the role itself was granted there."""


_READ: LiteralString = """
    WITH RECURSIVE seen (oid, is_direct) AS (
        SELECT %s::regclass::oid, false
         UNION
        SELECT d.refobjid, true
          FROM seen
          JOIN pg_class v ON v.oid = seen.oid
          JOIN pg_rewrite r ON r.ev_class = v.oid
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.deptype = 'n'
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
         WHERE NOT seen.is_direct  -- what lies beneath a view is read as its owner, ...
            OR coalesce('security_invoker=true' = ANY (v.reloptions) OR 'security_invoker=on' = ANY (v.reloptions),
                        false)     -- ... but not if it says otherwise
    )
    SELECT DISTINCT n.nspname, c.relname, c.relkind::text,
           coalesce((SELECT has_table_privilege(r.oid, c.oid, 'SELECT') FROM pg_roles r WHERE r.rolname = %s), false),
           coalesce((SELECT has_schema_privilege(r.oid, n.oid, 'USAGE') FROM pg_roles r WHERE r.rolname = %s), false)
      FROM seen
      JOIN pg_class c ON c.oid = seen.oid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE seen.is_direct AND n.nspname NOT IN ('pg_catalog', 'information_schema')
     ORDER BY 1, 2
"""


async def readables(connection: psycopg.AsyncConnection[Any], query: str, role: str) -> tuple[Readable, ...]:
    """The relations on which the role needs SELECT to run the query.

    Postgres itself says so: a temporary view over the query, rolled back, records what it depends on. EXPLAIN would
    show what is beneath a view instead of the view, and misses what the planner leaves out.

    Raises:
        ConfigError, SourceDisconnected: Postgres refuses the query.
    """
    view = sql.SQL("CREATE TEMPORARY VIEW pg_temp.invalidator_reads AS SELECT 1 AS one FROM ({}\n) AS query")
    try:
        async with connection.transaction(force_rollback=True):
            # A rule's own SQL. Prepared: one statement and no more, whatever the text makes of the parenthesis.
            # Nothing of a view is run when it is made, and it must not change data. READ ONLY would forbid the view.
            await connection.execute(view.format(sql.SQL(query)), prepare=True)
            cursor = await connection.execute(_READ, ["pg_temp.invalidator_reads", role, role])
            return tuple(Readable(*row) for row in await cursor.fetchall())
    except psycopg.Error as error:
        raise ours(error, doing="asking what a query reads") from error


@dataclass(frozen=True, slots=True)
class Barred:
    """A function of Postgres' own that a role may not call: PUBLIC may, until somebody takes that away."""

    role: str
    function: str
    """As GRANT names it."""
    is_trigger: bool
    """The role is that of triggers of ours, and not the daemon's."""


_LEADING: Final = ("pg_try_advisory_lock(bigint)", "pg_advisory_unlock(bigint)")
_WAKING: Final = ("pg_try_advisory_xact_lock_shared(bigint)", "pg_notify(text, text)")


async def barred(connection: psycopg.AsyncConnection[Any]) -> tuple[Barred, ...]:
    """What whoever is connected lacks to lead, and the owners of the outbox' triggers to wake the daemon."""
    statement: LiteralString = """
        SELECT DISTINCT r.rolname::text, 'pg_catalog.' || called.name, called.is_trigger
          FROM (SELECT current_user::text, unnest(%s::text[]), false
                 UNION ALL
                SELECT pg_get_userbyid(p.proowner)::text, unnest(%s::text[]), true
                  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                 WHERE n.nspname = 'invalidator' AND p.prorettype = 'trigger'::regtype AND p.prosecdef
                   AND strpos(p.prosrc, 'pg_try_advisory_xact_lock_shared') > 0) AS called (role, name, is_trigger)
          JOIN pg_roles r ON r.rolname = called.role
         WHERE NOT has_function_privilege(r.oid, 'pg_catalog.' || called.name, 'EXECUTE')
         ORDER BY 1, 2
    """
    try:
        cursor = await connection.execute(statement, [list(_LEADING), list(_WAKING)])
        return tuple(Barred(*row) for row in await cursor.fetchall())
    except psycopg.Error as error:
        raise ours(error, doing="asking which functions may be called") from error


async def holdings(connection: psycopg.AsyncConnection[Any], role: str) -> tuple[Holding, ...]:
    """What the role owns or may do anywhere on the server, as far as it keeps the role from being dropped."""
    statement: LiteralString = """
        SELECT d.deptype::text, d.classid::regclass::text,
               CASE WHEN d.dbid IN (0, here.oid) THEN pg_describe_object(d.classid, d.objid, d.objsubid)
                    ELSE 'something in database ' || coalesce((SELECT datname FROM pg_database WHERE oid = d.dbid), '?')
               END,
               cn.nspname, coalesce(c.relname, n.nspname),
               ARRAY(SELECT DISTINCT a.privilege_type
                       FROM aclexplode(coalesce(c.relacl, n.nspacl, b.datacl)) AS a WHERE a.grantee = r.oid)
          FROM pg_shdepend d
          JOIN pg_roles r ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid
          JOIN pg_database here ON here.datname = current_database()
          LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.dbid = here.oid AND c.oid = d.objid
                              AND d.objsubid = 0
          LEFT JOIN pg_namespace cn ON cn.oid = c.relnamespace
          LEFT JOIN pg_database b ON d.classid = 'pg_database'::regclass AND b.oid = d.objid
          LEFT JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND d.dbid = here.oid AND n.oid = d.objid
         WHERE r.rolname = %s
         ORDER BY 3
    """
    try:
        cursor = await connection.execute(statement, [role])
        return tuple(
            Holding(kind, catalog, what, schema, name, tuple(granted))
            for kind, catalog, what, schema, name, granted in await cursor.fetchall()
        )
    except psycopg.Error as error:
        raise ours(error, doing="asking what a role holds") from error


async def ties(connection: psycopg.AsyncConnection[Any], role: str) -> tuple[str, ...]:
    """What else makes a role somebody's: its attributes, sessions, members and memberships. For people."""
    statement: LiteralString = """
        SELECT words FROM pg_roles r
          CROSS JOIN LATERAL (
            SELECT 'it is a superuser' WHERE r.rolsuper
            UNION ALL SELECT 'it may create databases' WHERE r.rolcreatedb
            UNION ALL SELECT 'it may create roles' WHERE r.rolcreaterole
            UNION ALL SELECT 'this session runs as it' WHERE r.rolname = current_user
            UNION ALL SELECT 'role ' || g.rolname || ' is a member of it'
                        FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.member
                       WHERE m.roleid = r.oid AND m.member <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
            UNION ALL SELECT 'it is a member of ' || g.rolname
                        FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                       WHERE m.member = r.oid AND g.rolname <> 'rds_replication'
            UNION ALL SELECT 'a session is open as it (pid ' || a.pid || ')'
                        FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.pid <> pg_backend_pid()
          ) AS tie (words)
         WHERE r.rolname = %s
         ORDER BY 1
    """
    try:
        cursor = await connection.execute(statement, [role])
        return tuple(words for (words,) in await cursor.fetchall())
    except psycopg.Error as error:
        raise ours(error, doing="asking about a role") from error
