"""Row-level security: a role may read a table and still not see all of its rows, and no error says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<word>\w+)')
_HIDING: Final[LiteralString] = """
    SELECT n.nspname, c.relname
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN LATERAL (
           SELECT bool_or(p.polpermissive AND pg_get_expr(p.polqual, c.oid) = 'true') AS show_all,
                  bool_or(NOT p.polpermissive AND pg_get_expr(p.polqual, c.oid) IS DISTINCT FROM 'true') AS hide_some
             FROM pg_policy p
            WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*')
              AND EXISTS (SELECT FROM unnest(p.polroles) AS role WHERE role = 0 OR pg_has_role(role, 'USAGE'))
           ) AS policies ON true
     WHERE c.relname = ANY (%s::text[]) AND c.relkind IN ('r', 'p') AND row_security_active(c.oid)
       AND (policies.show_all IS NOT TRUE OR policies.hide_some)
     ORDER BY 1, 2
"""
"""Role 0 is PUBLIC. Owners, superusers and roles with BYPASSRLS see everything: for them it is not active."""


async def hiding(
    connection: psycopg.AsyncConnection[Any], statement: str, parameters: Sequence[object], query: str
) -> list[sql.Identifier]:
    """The tables of which policies may hide rows from whoever is connected.

    With ``row_security = off`` Postgres refuses a statement that a policy applies to, also one for which all rows are
    shown. Which tables those are it does not say: they are looked for among the names in the query.

    Args:
        connection: in a transaction, in which the statement was accepted.
        statement: explains the query.
        parameters: of the statement.
        query: what names the tables.
    """
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute("SET LOCAL row_security = off")
            await psycopg.AsyncRawCursor(connection).execute(statement.encode(), parameters, prepare=False)
    except pg.InsufficientPrivilege:
        cursor = await connection.execute(_HIDING, [list(_names(query))])
        return [sql.Identifier(*row) for row in await cursor.fetchall()]
    return []


def _names(query: str) -> Iterator[str]:
    for match in _NAME.finditer(query):
        yield match["quoted"].replace('""', '"') if match["word"] is None else match["word"].lower()
