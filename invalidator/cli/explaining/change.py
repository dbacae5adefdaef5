"""The change that ``explain`` is asked about: from JSON on the command line, or a row read from the database."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invalidator.model import Operation, Relation
    from invalidator.postgres.catalog import Table
    from invalidator.postgres.connection import Dsn

EVENTS: Final = ("insert", "update", "delete", "truncate")
MAX_ROWS: Final = 20

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One row change."""

    relation: Relation
    operation: Operation
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    is_whole: bool = False
    """The relation is that of the database; otherwise it has just the columns that the row has."""
    note: str = ""
    """What the reader should know about where it comes from."""


def split(table: str) -> tuple[str, str]:
    """Schema and table of the argument.

    Raises:
        click.BadParameter: it is not of the form schema.table.
    """
    from invalidator.rules.table_names import split_table

    try:
        return split_table(table)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="TABLE") from None


def from_json(table: str, row: str | None, event: str | None, identity: str | None) -> Change:
    """The change that the command line describes.

    Raises:
        click.UsageError: it cannot be understood.
    """
    from invalidator.model import Operation
    from invalidator.rules.rows import relation_of

    schema, name = split(table)
    old, new = _images(row, event)
    operation = Operation(event or _event(old, new))
    rows = [image for image in (old, new) if image is not None]
    named = None if identity is None else [part.strip() for part in identity.split(",")]
    unknown = sorted(set(named or ()).difference(*rows)) if rows else []
    if unknown:
        msg = f"the row has no column {', '.join(unknown)}"
        raise click.BadParameter(msg, param_hint="--identity")
    note = "no old row given: it counts as not sent" if operation is Operation.UPDATE and old is None else ""
    return Change(relation_of(schema, name, rows, named), operation, old, new, note=note)


def _images(row: str | None, event: str | None) -> tuple[Row | None, Row | None]:
    """The old and the new image in the JSON."""
    if row is None:
        if event == "truncate":
            return None, None
        msg = "ROW is missing: the row as JSON, or - for standard input; or read it from the database with --where"
        raise click.UsageError(msg)
    data = json_object(row, "ROW")
    is_wrapped = set(data) <= {"old", "new"} and all(
        value is None or isinstance(value, dict) for value in data.values()
    )
    if is_wrapped:
        return data.get("old"), data.get("new")
    return (data, None) if event == "delete" else (None, data)


def json_object(text: str, hint: str) -> Row:
    """The JSON object in an argument; ``-`` is standard input."""
    try:
        data = json.loads(sys.stdin.read() if text == "-" else text)
        json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogateescape")  # names and values can be shown
    except UnicodeEncodeError as error:
        msg = (
            f"\\u{ord(error.object[error.start]):04x} is half of a surrogate pair: write the character, or both halves"
        )
        raise click.BadParameter(msg, param_hint=hint) from None
    except RecursionError:
        msg = "no JSON that is read: its lists and objects are nested too deeply"
        raise click.BadParameter(msg, param_hint=hint) from None
    except ValueError as error:
        msg = f"no JSON: {error}"
        raise click.BadParameter(msg, param_hint=hint) from None
    if not isinstance(data, dict) or not data:
        msg = 'a JSON object is needed, such as {"id": 1}'
        raise click.BadParameter(msg, param_hint=hint)
    return data


def _event(old: object, new: object) -> str:
    if old is not None and new is not None:
        return "update"
    return "delete" if new is None else "insert"


async def from_database(
    dsn: Dsn, table: str, where: str, changes: str | None, event: str | None, *, limit: int = MAX_ROWS
) -> list[Change]:
    """The changes of the rows that match, as they are in the database now, at most ``limit``.

    Args:
        dsn: of the database.
        table: schema.table.
        where: a condition in SQL: the operator's own, run read-only and with a timeout.
        changes: JSON object with the columns that an update would change.
        event: what is pretended; None: an update if there are changes, otherwise a delete.
        limit: how many rows at most.

    Raises:
        ConfigError: there is no such table or column, or the condition is wrong.
        SourceDisconnected: the database does not answer.
    """
    from invalidator.errors import ConfigError
    from invalidator.model import Operation
    from invalidator.postgres import catalog
    from invalidator.postgres.connection import connect
    from invalidator.postgres.sample import rows_where

    schema, name = split(table)
    after = None if changes is None else json_object(changes, "ROW")
    operation = Operation(event or ("delete" if after is None else "update"))
    async with await connect(dsn, application_name="invalidator explain") as connection:
        found = [each for each in await catalog.tables(connection, [(schema, name)]) if each.name == name]
        if not found:
            message = f"the database has no table {schema}.{name}"
            raise ConfigError(message, fix=_nearest(f"{schema}.{name}", await catalog.table_names(connection)))
        described = found[0]
        root = await catalog.partition_root(connection, described.oid)
        rows = await rows_where(connection, described, where, limit=limit + 1)
    relation = _relation(described, root)
    note = f"more than {limit} rows match: these are the first" if len(rows) > limit else ""
    return [_pretended(relation, operation, row, after, note) for row in rows[:limit]]


def _pretended(
    relation: Relation, operation: Operation, row: Mapping[str, Any], after: Row | None, note: str
) -> Change:
    from invalidator.model import Operation

    match operation:
        case Operation.UPDATE:
            return Change(relation, operation, row, {**row, **(after or {})}, is_whole=True, note=note)
        case Operation.DELETE:
            return Change(relation, operation, row, None, is_whole=True, note=note)
        case _:
            return Change(relation, operation, None, row, is_whole=True, note=note)


def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    import difflib

    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"write {near[0]}" if near else None


def _relation(table: Table, root: tuple[str, str] | None) -> Relation:
    """The table as the stream would announce it: rules match the partition root."""
    from invalidator.model import Column, Relation

    identity = table.identity or frozenset()
    columns = tuple(
        Column(column.name, column.type_oid, is_identity=column.name in identity, base_oid=column.base_oid)
        for column in table.columns
        if not column.generated
    )
    schema, name = root or (table.schema, table.name)
    return Relation(table.oid, schema, name, table.replica_identity, columns)
