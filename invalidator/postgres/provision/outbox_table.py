"""The outbox' own objects: its table, the row that says what was confirmed, and the guard that tells of losses.

The guard is a trigger on the outbox itself: rows that anybody but the daemon removes were perhaps never read, and
nothing else would tell.
"""
# ruff: noqa: S608  (it makes SQL; every name in it is a constant)

from __future__ import annotations

from typing import TYPE_CHECKING, Final, LiteralString

from psycopg import sql

from invalidator.postgres.catalog.outbox import CONFIRMED, READER_SETTING, SCHEMA, TABLE
from invalidator.postgres.provision.capture import COMMENT, trigger_name
from invalidator.postgres.provision.words import Finding, Mark, Plan, Purpose, Step

if TYPE_CHECKING:
    from invalidator.postgres.catalog.outbox import Outbox

LOST: Final = "L"
"""The operation of a row that says only that somebody removed or changed rows of the outbox."""
GUARD: Final = "outbox_guard"
_GUARD_TRIGGER: Final = trigger_name("guard")
_GUARD_BODY: Final[LiteralString] = f"""
BEGIN
  IF current_setting('{READER_SETTING}', true) IS DISTINCT FROM 'on' THEN
    INSERT INTO {SCHEMA}.{TABLE} (relation, schema_name, table_name, operation)
    VALUES (0, '{SCHEMA}', TG_OP, '{LOST}');
  END IF;
  RETURN NULL;
END
"""
_COLUMNS: Final[tuple[tuple[LiteralString, LiteralString, LiteralString], ...]] = (
    ("xid", "xid8", "NOT NULL DEFAULT pg_current_xact_id()"),
    ("id", "bigint", "GENERATED ALWAYS AS IDENTITY"),
    ("at", "timestamp with time zone", "NOT NULL DEFAULT clock_timestamp()"),
    ("relation", "oid", "NOT NULL"),
    ("schema_name", "text", "NOT NULL"),
    ("table_name", "text", "NOT NULL"),
    ("operation", '"char"', "NOT NULL"),
    ("columns", "text[]", ""),
    ("old_rows", "text[]", ""),
    ("new_rows", "text[]", ""),
)
_CONFIRMED_COLUMNS: Final[tuple[tuple[LiteralString, LiteralString, LiteralString], ...]] = (
    ("is_only_row", "boolean", "PRIMARY KEY DEFAULT true CHECK (is_only_row)"),
    ("outbox", "text", ""),  # which one this is: a restored dump brings the row along into another one
    ("position", "pg_lsn", "NOT NULL DEFAULT '0/0'"),
)
COLUMNS: Final = tuple((name, type_name) for name, type_name, _ in _COLUMNS)
CONFIRMED_COLUMNS: Final = tuple((name, type_name) for name, type_name, _ in _CONFIRMED_COLUMNS)
PRIVILEGES: Final = ("USAGE", "SELECT", "INSERT", "DELETE", "UPDATE")
"""Of the daemon's role: it reads the outbox, deletes what is confirmed and updates the row that says so, and its
heartbeats go in like changes."""

_OUTBOX: Final = sql.Identifier(SCHEMA, TABLE)
_CONFIRMED: Final = sql.Identifier(SCHEMA, CONFIRMED)


def refusal(stranger: str) -> Finding:
    """Why nothing is made in a schema over which somebody else has power."""
    text = (
        f"schema {SCHEMA}, or something in it, belongs to role '{stranger}', which could make what setup puts there do"
        " whatever you may do"
    )
    owner = sql.Identifier(stranger).as_string(None)
    fix = f"SET ROLE {owner};   -- and run setup as that role, if the schema is to be its own\n"
    return Finding(text, fix + f"DROP SCHEMA {SCHEMA} CASCADE;   -- if it is not, and nothing of yours is in it")


def misfit(found: Outbox) -> str | None:
    """Which of the two tables is not as this version reads it; None: both are."""
    for name, columns, wanted in (
        (TABLE, found.columns, COLUMNS),
        (CONFIRMED, found.confirmed_columns, CONFIRMED_COLUMNS),
    ):
        if columns != wanted:
            what = "has other columns than this version reads" if columns else "is not there"
            return f"the table {SCHEMA}.{name} {what}"
    return None


def table_plan(found: Outbox) -> Plan:
    """Make what is missing of them."""
    parts = [_table(found), _confirmed(found)]
    if not any(part.findings for part in parts):
        parts.append(_guard(found))
    return Plan(
        tuple(step for part in parts for step in part.steps),
        tuple(finding for part in parts for finding in part.findings),
        tuple(mark for part in parts for mark in part.kept),
    )


def table_removal(found: Outbox) -> list[Step]:
    """Take all of it away, once no trigger writes into it any more."""
    steps: list[Step] = []
    for columns, name, why in (
        (found.columns, TABLE, "what is in it and was not read is lost for caches"),
        (found.confirmed_columns, CONFIRMED, "nothing is to be confirmed any more"),
    ):
        if columns:
            drop = sql.SQL("DROP TABLE {}").format(sql.Identifier(SCHEMA, name))
            steps.append(Step(Purpose.OUTBOX, (drop,), why, marks=(Mark("-", f"table {SCHEMA}.{name}"),)))
    if GUARD in found.functions:
        drop = sql.SQL("DROP FUNCTION {}()").format(sql.Identifier(SCHEMA, GUARD))
        mark = Mark("-", f"function {SCHEMA}.{GUARD}")
        steps.append(Step(Purpose.OUTBOX, (drop,), "there is nothing to guard", marks=(mark,)))
    if found.has_schema and not found.strangers:
        drop = sql.SQL("DROP SCHEMA {}").format(sql.Identifier(SCHEMA))
        steps.append(Step(Purpose.OUTBOX, (drop,), "empty by now", marks=(Mark("-", f"schema {SCHEMA}"),)))
    return steps


def grants(role: str) -> tuple[sql.Composed, ...]:
    """What gives a role :data:`PRIVILEGES`."""
    name = sql.Identifier(role)
    return (
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(SCHEMA), name),
        sql.SQL("GRANT SELECT, INSERT, DELETE ON {} TO {}").format(_OUTBOX, name),
        sql.SQL("GRANT SELECT, UPDATE ON {} TO {}").format(_CONFIRMED, name),
    )


def is_guarded(found: Outbox) -> bool:
    """Whether the guard is there and fires whoever writes."""
    guard, function = found.guard, found.functions.get(GUARD)
    if guard is None or function is None or guard.function != GUARD:
        return False
    return guard.firing == "A" and function.source == _GUARD_BODY and function.is_definer


def _table(found: Outbox) -> Plan:
    title = f"table {SCHEMA}.{TABLE}"
    if found.columns == COLUMNS:
        return Plan((), (), (Mark("=", title),))
    if found.columns:
        text = f"{title} has other columns than this version writes and reads"
        fix = "stop the daemon, empty the caches, then: setup --drop --apply and setup --apply"
        return Plan((), (Finding(text, fix),), (Mark("~", title, "other columns"),))
    made: list[sql.Composed] = []
    if not found.has_schema:
        made.append(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    # Rows come and go: vacuum by number, and never with the exclusive lock that giving pages back takes.
    storage = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = false"
    create = "CREATE TABLE {} (" + _listed(_COLUMNS) + ",\n  PRIMARY KEY (xid, id)\n) WITH (" + storage + ")"
    made.append(sql.SQL(create).format(_OUTBOX))
    made.append(sql.SQL("COMMENT ON TABLE {} IS {}").format(_OUTBOX, sql.Literal(f"{COMMENT}made")))
    why = "where triggers write changes down; the daemon reads them, and deletes what every target has applied"
    return Plan((Step(Purpose.OUTBOX, tuple(made), why, marks=(Mark("+", title),)),))


def _confirmed(found: Outbox) -> Plan:
    title = f"table {SCHEMA}.{CONFIRMED}"
    if found.confirmed_columns == CONFIRMED_COLUMNS:
        return Plan((), (), (Mark("=", title),))
    if found.confirmed_columns:
        text = f"{title} has other columns than this version writes and reads"
        fix = f"stop the daemon, then: DROP TABLE {SCHEMA}.{CONFIRMED}; and setup --apply"
        return Plan((), (Finding(text, fix),), (Mark("~", title, "other columns"),))
    storage = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, vacuum_truncate = false"
    create = "CREATE TABLE {} (" + _listed(_CONFIRMED_COLUMNS) + "\n) WITH (fillfactor = 10, " + storage + ")"
    made = (sql.SQL(create).format(_CONFIRMED), sql.SQL("INSERT INTO {} DEFAULT VALUES").format(_CONFIRMED))
    why = "one row: up to where everything was applied, so that what went missing meanwhile is noticed"
    return Plan((Step(Purpose.OUTBOX, made, why, marks=(Mark("+", title),)),))


def _guard(found: Outbox) -> Plan:
    title = f"guard trigger on {SCHEMA}.{TABLE}"
    if is_guarded(found):
        return Plan((), (), (Mark("=", title),))
    function, trigger = sql.Identifier(SCHEMA, GUARD), sql.Identifier(_GUARD_TRIGGER)
    create = "CREATE OR REPLACE FUNCTION {}() RETURNS trigger\n  LANGUAGE plpgsql SECURITY DEFINER\n"
    create += "  SET search_path = pg_catalog, pg_temp\nAS $outbox$" + _GUARD_BODY + "$outbox$"
    fires = "CREATE OR REPLACE TRIGGER {} AFTER DELETE OR UPDATE OR TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION "
    made = (
        sql.SQL(create).format(function),
        sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(function),
        sql.SQL("COMMENT ON FUNCTION {}() IS {}").format(function, sql.Literal(f"{COMMENT}guard of the outbox")),
        sql.SQL(fires + "{}()").format(trigger, _OUTBOX, function),
        sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(_OUTBOX, trigger),
    )
    why = "tells the daemon when somebody else removes rows that it may not have read"
    sign = Mark("+", title) if found.guard is None else Mark("~", title, "not as wanted")
    return Plan((Step(Purpose.OUTBOX, made, why, marks=(sign,)),))


def _listed(columns: tuple[tuple[LiteralString, LiteralString, LiteralString], ...]) -> LiteralString:
    return ",".join(f"\n  {' '.join(part for part in column if part)}" for column in columns)
