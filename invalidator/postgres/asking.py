"""One statement on an open connection; the driver's errors become ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from invalidator.postgres.failures import ours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


async def fetch(
    connection: psycopg.AsyncConnection[Any],
    statement: LiteralString,
    parameters: Sequence[object] | Mapping[str, object] = (),
    *,
    doing: str = "reading the catalog",
) -> list[tuple[Any, ...]]:
    """All rows of a statement.

    Raises:
        SourceError, ConfigError: it failed; the message says at what.
    """
    try:
        # Without parameters psycopg takes a lone '%' as it stands; with them it must be doubled.
        cursor = await connection.execute(statement, parameters or None)
        return await cursor.fetchall()
    except psycopg.Error as error:
        raise ours(error, doing=doing) from error
