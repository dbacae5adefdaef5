"""Single rows as they are in a table now, with their values as the stream would send them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg import sql

from invalidator.errors import ConfigError
from invalidator.postgres.catalog.facts import Table
from invalidator.postgres.failures import ours

STATEMENT_TIMEOUT_SECONDS: Final = 10

Row = dict[str, str | None]


async def rows_where(connection: psycopg.AsyncConnection[Any], table: Table, where: str, *, limit: int) -> list[Row]:
    """The first rows that match, by column, in Postgres' own text form; columns that are never sent are left out.

    Args:
        connection: an open connection in autocommit mode.
        table: where to look.
        where: a condition in SQL, the operator's own text. It runs in a read-only transaction that is rolled back,
            as a single statement and with a timeout.
        limit: how many rows at most.

    Raises:
        ConfigError: the condition is wrong, or takes too long.
        SourceDisconnected: the server does not answer any more.
    """
    columns = [column.name for column in table.columns if not column.generated]
    query = sql.SQL("SELECT {columns} FROM {table} WHERE (\n{where}\n) LIMIT {limit}").format(
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        table=sql.Identifier(table.schema, table.name),
        where=sql.SQL(where),  # no literal, on purpose: see above
        limit=sql.Literal(limit),
    )
    with _explained(table):
        async with connection.transaction(force_rollback=True):
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'")
            result = (await connection.execute(query, prepare=True)).pgresult  # prepared: one statement, no more
    if result is None:
        return []
    return [
        {name: _text(result.get_value(row, at)) for at, name in enumerate(columns)} for row in range(result.ntuples)
    ]


@contextlib.contextmanager
def _explained(table: Table) -> Iterator[None]:
    """Turns what psycopg raises into our errors, which say what to do."""
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        message = f"finding rows of {table.full_name} takes longer than {STATEMENT_TIMEOUT_SECONDS} s"
        raise ConfigError(message, fix="write a condition that an index serves, such as the primary key") from error
    except psycopg.errors.InsufficientPrivilege as error:
        message = (
            f"finding rows of {table.full_name}: {error.diag.message_primary}\n"
            "   = help: the daemon's own role reads changes and may SELECT nothing but what lookups read"
        )
        raise ConfigError(message, fix="connect as a role with SELECT: add --dsn DSN") from error
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        told = error.diag.message_primary or str(error)  # without an excerpt of the statement around the condition
        message = f"finding rows of {table.full_name}: {' '.join(told.split())}"
        raise ConfigError(message, fix=error.diag.message_hint) from error
    except psycopg.Error as error:
        raise ours(error, doing=f"finding rows of {table.full_name}") from error


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")
