"""What the catalog says of the outbox: its table, the functions that write into it, the triggers that call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg

from invalidator.postgres.asking import fetch
from invalidator.postgres.leader import holder

SCHEMA = "invalidator"
TABLE = "outbox"
CONFIRMED = "confirmed"
"""The table with the one row that says up to where everything was applied."""
READER_SETTING = "invalidator.reader"
"""``on`` in the daemon's session: only it may remove rows without the guard telling of it."""
LOCK_KEY: Final = int.from_bytes(b"invaldtr")
"""Of the advisory lock that the daemon holds which reads the outbox."""
SLEEP_KEY: Final = int.from_bytes(b"invalslp")
"""Of the advisory lock that it holds while it waits for a notification. A writer that shares it keeps the daemon from
waiting until its transaction has ended, and so need not notify."""

_OTHERS: Final[LiteralString] = """
    SELECT relname::text, coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class
     WHERE relnamespace = %(schema)s::oid AND relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT proname || '()', '' FROM pg_proc WHERE pronamespace = %(schema)s::oid AND prorettype <> 'trigger'::regtype
"""
_FUNCTIONS: Final[LiteralString] = """
    SELECT proname, prosrc, coalesce(proconfig, '{}'), prosecdef, coalesce(obj_description(oid, 'pg_proc'), '')
      FROM pg_proc WHERE pronamespace = %s::oid AND prorettype = 'trigger'::regtype
"""
_TRIGGERS: Final[LiteralString] = """
    SELECT t.tgrelid::bigint, n.nspname, c.relname, t.tgname, p.proname, t.tgenabled::text
      FROM pg_trigger t
      JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = %s::oid
      JOIN pg_class c ON c.oid = t.tgrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT t.tgisinternal
     ORDER BY 2, 3, 4
"""

_STRANGER: Final[LiteralString] = """
    WITH owned (owner) AS (
        SELECT nspowner FROM pg_namespace WHERE nspname = %(schema)s
        UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = %(schema)s
        UNION SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname = %(schema)s)
    SELECT owner.rolname::text
      FROM owned JOIN pg_roles owner ON owner.oid = owned.owner JOIN pg_roles me ON me.rolname = current_user
     WHERE owner.oid <> me.oid AND NOT owner.rolsuper AND (me.rolsuper OR NOT pg_has_role(me.oid, owner.oid, 'USAGE'))
     ORDER BY 1 LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Function:
    """A function in the outbox' schema."""

    source: str
    settings: tuple[str, ...]
    """``name=value``, those that it sets while it runs."""
    is_definer: bool
    comment: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that calls such a function."""

    relation_oid: int
    schema: str
    table: str
    name: str
    function: str
    firing: str
    """``O`` as usual, ``A`` always, ``R`` only while replicating, ``D`` disabled."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """All of it."""

    has_schema: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    """Name and type of each column of the table; empty: there is no table."""
    confirmed_columns: tuple[tuple[str, str], ...] = ()
    """The same of the table with the confirmed position."""
    comment: str = ""
    """Of the table."""
    strangers: tuple[str, ...] = ()
    """What else is in the schema: relations, and functions that are for no trigger."""
    reader_pid: int | None = None
    """The server process of the daemon that reads it, if one does."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    triggers: tuple[Trigger, ...] = ()
    """Those that write changes down."""
    guard: Trigger | None = None
    """The one on the outbox itself."""
    stranger: str | None = None
    """See :func:`stranger`."""
    privileges: frozenset[str] = frozenset()
    """What the role in question may do: ``USAGE`` of the schema; ``SELECT``, ``INSERT``, ``DELETE`` of the table;
    ``UPDATE`` (and SELECT) of the confirmed position."""

    def trigger(self, relation_oid: int, name: str) -> Trigger | None:
        """The trigger of that name on that relation."""
        wanted = relation_oid, name
        return next((each for each in self.triggers if (each.relation_oid, each.name) == wanted), None)


async def outbox(connection: psycopg.AsyncConnection[Any], role: str | None) -> Outbox:
    """Read it.

    Args:
        connection: an open connection.
        role: whose privileges are asked for; None: of whoever is connected.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    schemas = await fetch(connection, "SELECT oid::bigint FROM pg_namespace WHERE nspname = %s", [SCHEMA])
    if not schemas:
        return Outbox()
    [(oid,)] = schemas
    columns = await _columns(connection, oid, TABLE)
    confirmed_columns = await _columns(connection, oid, CONFIRMED)
    others = await fetch(connection, _OTHERS, {"schema": oid})
    functions = await fetch(connection, _FUNCTIONS, [oid])
    triggers = [Trigger(*row) for row in await fetch(connection, _TRIGGERS, [oid])]
    own = [trigger for trigger in triggers if (trigger.schema, trigger.table) == (SCHEMA, TABLE)]
    has_tables = bool(columns and confirmed_columns)
    return Outbox(
        has_schema=True,
        columns=columns,
        confirmed_columns=confirmed_columns,
        comment=next((comment for name, comment in others if name == TABLE), ""),
        strangers=tuple(name for name, _ in others if name not in {TABLE, CONFIRMED}),
        reader_pid=await holder(connection, LOCK_KEY),
        functions={name: Function(source, tuple(config), *rest) for name, source, config, *rest in functions},
        triggers=tuple(trigger for trigger in triggers if trigger not in own),
        guard=own[0] if own else None,
        stranger=await stranger(connection),
        privileges=await _privileges(connection, role, has_tables=has_tables),
    )


async def stranger(connection: psycopg.AsyncConnection[Any]) -> str | None:
    """Somebody who owns the schema or something in it, and may do less than whoever is connected; None: nobody.

    Our functions run as who made them, or as whoever runs DDL. An owner could give them another body, or the outbox a
    trigger, and so do whatever those may do.
    """
    rows = await fetch(connection, _STRANGER, {"schema": SCHEMA})
    return str(rows[0][0]) if rows else None


async def _columns(
    connection: psycopg.AsyncConnection[Any], schema_oid: int, table: str
) -> tuple[tuple[str, str], ...]:
    rows = await fetch(
        connection,
        """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod)
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = %s::oid AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum
        """,
        [schema_oid, table],
    )
    return tuple((name, type_name) for name, type_name in rows)


async def _privileges(
    connection: psycopg.AsyncConnection[Any], role: str | None, *, has_tables: bool
) -> frozenset[str]:
    rows = await fetch(
        connection,
        """
        SELECT 'USAGE' FROM pg_roles r
         WHERE r.rolname = coalesce(%(role)s, current_user) AND has_schema_privilege(r.oid, %(schema)s, 'USAGE')
        UNION ALL
        SELECT p.name FROM pg_roles r, unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS p (name)
         WHERE r.rolname = coalesce(%(role)s, current_user) AND %(has_tables)s
           AND has_table_privilege(r.oid, to_regclass(%(table)s), p.name)
        UNION ALL
        SELECT 'UPDATE' FROM pg_roles r
         WHERE r.rolname = coalesce(%(role)s, current_user) AND %(has_tables)s
           AND has_table_privilege(r.oid, to_regclass(%(confirmed)s), 'SELECT')
           AND has_table_privilege(r.oid, to_regclass(%(confirmed)s), 'UPDATE')
        """,
        {
            "role": role,
            "schema": SCHEMA,
            "table": f"{SCHEMA}.{TABLE}",
            "confirmed": f"{SCHEMA}.{CONFIRMED}",
            "has_tables": has_tables,
        },
    )
    return frozenset(name for (name,) in rows)
