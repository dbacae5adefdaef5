"""The SQL of the triggers that write row changes into the outbox. Pure text.

One function per table and operation, called once per statement: it writes all rows of the statement at once, and of
them only the columns that rules read. Each value is the text that the type's output function makes, under fixed
settings, because that is what logical replication would send and keys must not depend on who writes.

What goes wrong inside never reaches the application: then a row without values is written, for which the daemon
applies the coarse form of every rule of the table.
"""
# ruff: noqa: S608  (it makes SQL; every name and value in it goes through psycopg.sql)

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from invalidator.model import ENUM_OID
from invalidator.postgres.catalog import Column, Table
from invalidator.postgres.catalog.outbox import SCHEMA, SLEEP_KEY, TABLE
from invalidator.postgres.provision.words import identifier

CHANNEL: Final = "invalidator_outbox"
"""Where the empty notification comes with ``wake: notify``."""
COMMENT: Final = "invalidator setup: "
"""What the comment of each function of ours begins with."""
COARSE: Final = "C"
"""The operation of a row that says only that something changed."""

_LETTERS: Final = {"insert": "I", "update": "U", "delete": "D", "truncate": "T"}
_CHUNK: Final = 500
"""Changed rows in one row of the outbox: bounds what the daemon must hold at once."""
_CAST: Final = frozenset(
    {17, 20, 21, 23, 25, 26, 114, 700, 701, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950, 3802}
)
"""Types whose cast to text is their output function. It is not for bool, inet, char(n) and others."""
_SEARCH_PATH: Final = ("search_path", "pg_catalog, pg_temp")
_TEXT_FORMS: Final[Mapping[tuple[str, str], frozenset[int]]] = {
    ("DateStyle", "ISO, MDY"): frozenset({1082, 1083, 1114, 1184, 1266}),
    ("IntervalStyle", "postgres"): frozenset({1186}),
    ("TimeZone", "UTC"): frozenset({1184}),
    ("bytea_output", "hex"): frozenset({17}),
    ("extra_float_digits", "1"): frozenset({700, 701}),
}
"""Settings, and the types whose text depends on them; that of a type which is nowhere here may depend on all."""
_SETTLED: Final = frozenset(
    {16, 18, 19, 20, 21, 23, 25, 26, 114, 650, 829, 869, 1042, 1043, 1700, 2950, 3802, ENUM_OID}
)
"""Types whose text depends on no setting."""
_KNOWN: Final = _SETTLED.union(*_TEXT_FORMS.values())


@dataclass(frozen=True, slots=True)
class Capture:
    """What is written down of one table."""

    table: Table
    """An ordinary table, or the topmost of a partitioned one."""
    members: tuple[Table, ...]
    """What gets the triggers: the table, and all partitions, because a statement may name any of them."""
    columns: tuple[Column, ...]
    operations: tuple[str, ...]
    only_changed: bool
    """An UPDATE that changes none of the columns is nothing to any rule."""
    wakes: bool

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What the functions set while they run: no more than needed, because each costs every call a microsecond."""
        types = {_type(column) for column in self.columns}
        forms = (form for form, dependent in _TEXT_FORMS.items() if dependent & types or not types <= _KNOWN)
        return (_SEARCH_PATH, *forms)


def trigger_name(operation: str) -> str:
    """The trigger's name, the same on every table."""
    return f"invalidator_{operation}"


def function_name(table: Table, operation: str) -> str:
    """The function's name: readable where the table's is plain, and never that of another table."""
    digest = hashlib.sha256(f"{table.schema}\0{table.name}".encode()).hexdigest()[:8]
    readable = re.sub(r"\W", "_", f"{table.schema}_{table.name}", flags=re.ASCII).lower()[:40]
    return f"{readable}_{operation}_{digest}"


def function_settings(capture: Capture) -> tuple[str, ...]:
    """The settings as ``pg_proc.proconfig`` holds them, sorted."""
    return tuple(sorted(f"{name}={value}" for name, value in capture.settings))


def function_body(capture: Capture, operation: str) -> str:
    """The function's source, as ``pg_proc.prosrc`` holds it."""
    recording = "\n".join(f"  {line}" for line in _recording(capture, operation))
    wake = "".join(f"\n    {line}" for line in _harmless(_wake(capture)))
    table = _literal(f"{capture.table.schema}.{capture.table.name}")
    return f"""
#variable_conflict use_column
BEGIN
{recording}
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  BEGIN
    INSERT INTO {SCHEMA}.{TABLE} (relation, schema_name, table_name, operation)
    VALUES (TG_RELID, {_names(capture)}, '{COARSE}');{wake}
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING USING
      MESSAGE = 'invalidator: a change of ' || {table} || ' was not written down: SQLSTATE ' || SQLSTATE,
      HINT = 'What caches hold of this table may be stale: invalidator setup, then purge it.';
  END;
  RETURN NULL;
END
"""


def statements(capture: Capture, operation: str) -> Iterator[sql.Composed]:
    """CREATE FUNCTION with what belongs to it."""
    name = sql.Identifier(SCHEMA, function_name(capture.table, operation))
    body = function_body(capture, operation)
    quoted = sql.Literal(body) if "$outbox$" in body else sql.SQL("$outbox${}$outbox$").format(sql.SQL(body))
    sets = [
        sql.SQL("\n  SET {} = {}").format(sql.SQL(key), sql.SQL(", ").join(_values(value)))
        for key, value in capture.settings
    ]
    create = sql.SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger\n  LANGUAGE plpgsql SECURITY DEFINER{}\nAS {}")
    yield create.format(name, sql.Composed(sets), quoted)
    yield sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(name)
    comment = sql.Literal(f"{COMMENT}{operation} of {capture.table.full_name}")
    yield sql.SQL("COMMENT ON FUNCTION {}() IS {}").format(name, comment)


def trigger_statements(
    capture: Capture, member: Table, operation: str, *, is_always: bool, was: str | None
) -> Iterator[sql.Composed]:
    """CREATE TRIGGER, and how it fires.

    Args:
        capture: of which table.
        member: the table itself or one of its partitions.
        operation: which.
        is_always: also for what replication applies.
        was: how the trigger that is there fires; None: there is none.
    """
    tables = {"insert": "NEW TABLE AS new_rows", "delete": "OLD TABLE AS old_rows"}
    tables["update"] = f"{tables['delete']} {tables['insert']}"
    referencing = f" REFERENCING {tables[operation]}" if operation in tables else ""
    template = f"CREATE OR REPLACE TRIGGER {{}} AFTER {operation.upper()} ON {{}}{referencing}"
    yield sql.SQL(template + " FOR EACH STATEMENT EXECUTE FUNCTION {}()").format(
        sql.Identifier(trigger_name(operation)),
        identifier(member),
        sql.Identifier(SCHEMA, function_name(capture.table, operation)),
    )
    if is_always or was not in (None, "O"):
        how = sql.SQL("ENABLE ALWAYS TRIGGER" if is_always else "ENABLE TRIGGER")
        trigger = sql.Identifier(trigger_name(operation))
        yield sql.SQL("ALTER TABLE {} {} {}").format(identifier(member), how, trigger)


def _recording(capture: Capture, operation: str) -> list[str]:
    """The statements that write the rows down."""
    if operation == "truncate":
        return [
            f"INSERT INTO {SCHEMA}.{TABLE} (relation, schema_name, table_name, operation)",
            f"VALUES (TG_RELID, {_names(capture)}, 'T');",
            *_wake(capture),
        ]
    images = {"insert": ("new",), "update": ("old", "new"), "delete": ("old",)}[operation]
    first, stored = f"{images[0]}_rows", ", ".join(f"{image}_rows" for image in images)
    names = ", ".join(_literal(column.name) for column in capture.columns)
    insert = [
        f"INSERT INTO {SCHEMA}.{TABLE} (relation, schema_name, table_name, operation, columns, {stored})",
        f"SELECT TG_RELID, {_names(capture)}, '{_LETTERS[operation]}', ARRAY[{names}]::text[], {stored}",
    ]
    is_picky = operation == "update" and capture.only_changed
    changed = "old_rows IS DISTINCT FROM new_rows" if is_picky else "true"
    # Nearly all statements are of few rows, and what stands in here costs them 5 µs a statement or more: they need one.
    return [
        *insert,
        f"FROM {_few(capture, images)}",
        f"WHERE array_length({first}, 1) <= {_CHUNK} AND {changed};",
        "IF NOT FOUND THEN",
        f"  IF NOT EXISTS (SELECT FROM {first} OFFSET {_CHUNK}) THEN",
        "    RETURN NULL;",
        "  END IF;",
        *(f"  {line}" for line in insert),
        f"  FROM {_many(capture, images)}",
        f"  WHERE {changed};",
        "END IF;",
        *_wake(capture),
    ]


def _few(capture: Capture, images: Sequence[str]) -> str:
    """All rows of the statement, or one more than a row of the outbox may hold.

    ARRAY() is made in half the time of array_agg(). OFFSET 0 keeps the planner from copying it to each place where its
    result is used, each of which would make it again.
    """
    made = (f"ARRAY(SELECT {_image(capture)} FROM {image}_rows AS r LIMIT {_CHUNK + 1})" for image in images)
    listed = (f"{array} AS {image}_rows" for image, array in zip(images, made, strict=True))
    return f"(SELECT {', '.join(listed)} OFFSET 0) AS few"


def _many(capture: Capture, images: Sequence[str]) -> str:
    """The same in parts; the n-th old row and the n-th new one are of the same row."""
    return " FULL JOIN ".join(_chunked(capture, image) for image in images) + " USING (chunk)" * (len(images) - 1)


def _chunked(capture: Capture, image: str) -> str:
    """The order must survive the grouping."""
    numbered = f"SELECT {_image(capture)} AS image, row_number() OVER () - 1 AS place FROM {image}_rows AS r"
    made = f"array_agg(image ORDER BY place) AS {image}_rows"
    return f"(SELECT place / {_CHUNK} AS chunk, {made} FROM ({numbered}) AS numbered GROUP BY 1) AS {image}"


def _image(capture: Capture) -> str:
    return images(capture, "r")


def images(capture: Capture, row: str) -> str:
    """The row's columns as an array of the texts that logical replication would send."""
    return f"ARRAY[{', '.join(_text(column, row) for column in capture.columns)}]"


def _text(column: Column, row: str) -> str:
    value = f"{row}.{sql.Identifier(column.name).as_string(None)}"
    if _type(column) in _CAST:
        return f"{value}::text"
    # concat() uses the output function; num_nulls() takes a composite value for what it is, IS NULL does not.
    return f"CASE WHEN num_nulls({value}) = 0 THEN concat({value}) END"


def _type(column: Column) -> int:
    return column.type_oid if column.base_oid is None else column.base_oid


def _names(capture: Capture) -> str:
    return f"{_literal(capture.table.schema)}, {_literal(capture.table.name)}"


def _wake(capture: Capture) -> list[str]:
    """NOTIFY makes commits wait for each other: only when nothing else wakes the daemon."""
    if not capture.wakes:
        return []
    return [
        f"IF FOUND AND NOT pg_try_advisory_xact_lock_shared({SLEEP_KEY}) THEN",
        f"  PERFORM pg_notify('{CHANNEL}', '');",
        "END IF;",
    ]


def _harmless(lines: list[str]) -> list[str]:
    """The same in a block of its own: a wake-up that fails must not take back the note, after which nothing comes.

    Nor is it notified then: that the daemon looks by itself is enough, and a COMMIT could fail of it.
    """
    return ["BEGIN", *(f"  {line}" for line in lines), "EXCEPTION WHEN OTHERS THEN NULL;", "END;"] if lines else []


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None)


def _values(value: str) -> list[sql.Composable]:
    return [sql.Literal(part) for part in value.split(", ")]
