"""The SQL of the rules, held against a database by EXPLAIN: nothing of it is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors as pg
from psycopg import sql

from invalidator.postgres.failures import ours
from invalidator.preflight import row_security
from invalidator.preflight.case import why_not_publishable
from invalidator.preflight.facts import Facts
from invalidator.preflight.finding import At, Finding, finding
from invalidator.preflight.needs import needs
from invalidator.preflight.places import Places
from invalidator.rules.lookup_sql import WrappedSql, wrap
from invalidator.rules.rule import Lookup, Rule, RuleSet

if TYPE_CHECKING:
    from invalidator.postgres.catalog import Table
    from invalidator.postgres.provision import Need

MANY_ROWS: Final = 10_000
"""A scan of a larger table is worth an index."""
_TIMEOUT: Final = "5s"
_EXPLAIN: Final = "EXPLAIN (FORMAT JSON, VERBOSE) "
_DENIED: Final = re.compile(r"permission denied for (table|view|materialized view|foreign table|schema) (.+)")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One lookup as the daemon would ask it."""

    rule: Rule
    lookup: Lookup
    wrapped: WrappedSql
    table: Table


async def examine_lookups(
    connection: psycopg.AsyncConnection[Any], ruleset: RuleSet, sources: Mapping[str, str], facts: Facts
) -> list[Finding]:
    """What keeps each lookup from being answered, or makes it slow.

    Args:
        connection: in autocommit mode, to where lookups are asked.
        ruleset: the rules.
        sources: the text of each rule file by its name.
        facts: of the database that the changes come from; tells the types of what is bound.

    Raises:
        SourceDisconnected, ConfigError: the connection broke.
    """
    if not any(rule.lookups for rule in ruleset.rules):
        return []
    places = Places(sources)
    found: list[Finding] = []
    for asked in _all(ruleset, facts):
        try:
            async with connection.transaction(force_rollback=True):
                await connection.execute("SET TRANSACTION READ ONLY")
                await connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'")
                await connection.execute("SET LOCAL standard_conforming_strings = on")  # as lookup_sql reads it
                # A large join is planned by hashing all of a table, whether it has an index or not. Loops show it.
                await connection.execute("SET LOCAL enable_hashjoin = off")
                await connection.execute("SET LOCAL enable_mergejoin = off")
                # A table that was vacuumed lately would be read through any index that holds the column, all of it.
                await connection.execute("SET LOCAL enable_indexonlyscan = off")
                found += await _one(connection, asked, places)
        except pg.OperationalError as error:
            if connection.broken or connection.closed:
                raise ours(error, doing="explaining a lookup") from error
            found.append(_refused(asked, error, places, connection.info.user))
        except psycopg.Error as error:
            found.append(_refused(asked, error, places, connection.info.user))
    return found


def _all(ruleset: RuleSet, facts: Facts) -> Iterator[_Asked]:
    for rule, need in zip(ruleset.rules, needs(ruleset.rules), strict=True):
        table = _table(facts, need)
        for lookup in rule.lookups if table is not None else ():
            assert table is not None  # noqa: S101  (or there is nothing to loop over)
            types = {column.name: column.type_name for column in table.columns}
            names = [types.get(each.name, "text") if each.is_row_value else "text" for each in lookup.sql.parameters]
            yield _Asked(rule, lookup, wrap(lookup.sql, names, limit=lookup.limit), table)


def _table(facts: Facts, need: Need) -> Table | None:
    return next(
        (table for table in facts.wanted(need) if why_not_publishable(table, needs_log=facts.needs_log) is None), None
    )


async def _one(connection: psycopg.AsyncConnection[Any], asked: _Asked, places: Places) -> list[Finding]:
    # Bound parameters, of which a lookup has at least one, make Postgres take one statement and no more.
    nothing: list[object] = [[None] for _ in asked.wrapped.parameters]
    cursor = psycopg.AsyncRawCursor(connection)
    await cursor.execute(_EXPLAIN + asked.wrapped.text, nothing, prepare=False)
    row = await cursor.fetchone()
    plan = row[0] if row is not None else []
    plan = json.loads(plan) if isinstance(plan, str) else plan
    described = f"SELECT * FROM ({asked.wrapped.text}\n) AS described LIMIT 0"  # noqa: S608  (a rule's own SQL)
    await cursor.execute(described, nothing, prepare=False)
    names = [column.name for column in cursor.description or ()][1:]
    findings = list(_unknown_results(asked, names, places))
    hiding = await row_security.hiding(connection, _EXPLAIN + asked.wrapped.text, nothing, asked.lookup.sql.text)
    findings += _filtered(asked, hiding, places, connection.info.user) if hiding else []
    for node, comparisons in (scan for top in plan for scan in _scans(top.get("Plan", {}), "")):
        rows = await _rows(connection, node)
        if rows > MANY_ROWS:
            findings.append(_slow(asked, node, comparisons, rows, places))
    return findings


def _unknown_results(asked: _Asked, names: Sequence[str], places: Places) -> Iterator[Finding]:
    """Columns of the result that templates name and the SELECT does not give."""
    for at, column in places.results(asked.rule, asked.lookup.name):
        if names.count(column) == 1:
            continue
        many = "has more than one column" if column in names else "gives no column"
        message = f"lookup '{asked.lookup.name}' {many} '{column}'"
        help_text = f"it gives {', '.join(names)}; name columns by AS"
        yield finding(_subject(asked), at, "unknown-lookup-column", message, help=help_text)


def _scans(node: Mapping[str, Any], above: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each scan of a whole table, with the comparisons that it and the joins above it make."""
    comparisons = " ".join(str(node[key]) for key in ("Filter", "Join Filter") if key in node)
    if node.get("Node Type") == "Seq Scan":
        yield node, f"{comparisons} {above}"
    for child in node.get("Plans", ()):
        yield from _scans(child, f"{comparisons} {above}")


async def _rows(connection: psycopg.AsyncConnection[Any], node: Mapping[str, Any]) -> float:
    name = sql.Identifier(str(node.get("Schema")), str(node.get("Relation Name"))).as_string(None)
    cursor = await connection.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [name])
    row = await cursor.fetchone()
    return float(row[0]) if row is not None else 0.0


def _slow(asked: _Asked, node: Mapping[str, Any], comparisons: str, rows: float, places: Places) -> Finding:
    table = f"{node.get('Schema')}.{node.get('Relation Name')}"
    name = sql.Identifier(str(node.get("Schema")), str(node.get("Relation Name"))).as_string(None)
    columns = _compared(node, comparisons)
    fix = f"CREATE INDEX CONCURRENTLY ON {name} ({', '.join(columns)});" if columns else None
    return finding(
        _subject(asked),
        _at(asked, places),
        "lookup-not-indexed",
        f"lookup '{asked.lookup.name}' scans {table} ({_short(rows)} rows)",
        severity="warning",
        why="it is asked for each batch of changes, and deliveries wait for its answer",
        fix=fix,
    )


def _filtered(asked: _Asked, tables: Sequence[sql.Identifier], places: Places, user: str) -> list[Finding]:
    """What policies hide from a lookup is not found, and nothing says that there was more."""
    role = sql.Identifier(user).as_string(None)
    names = [table.as_string(None) for table in tables]
    policy = "CREATE POLICY invalidator ON {} FOR SELECT TO {} USING (true);"
    return [
        finding(
            _subject(asked),
            _at(asked, places),
            "lookup-filtered",
            f"row-level security decides what lookup '{asked.lookup.name}' finds in {', '.join(names)}",
            severity="warning",
            why=f"rows that role '{user}' may not see are not found, and what they name stays stale",
            help=f"fine if they are in no cache; where a restrictive policy stands: ALTER ROLE {role} BYPASSRLS;",
            fix="\n".join(policy.format(name, role) for name in names),
        )
    ]


def _compared(node: Mapping[str, Any], comparisons: str) -> list[str]:
    """The columns of the table that are compared, as SQL writes them."""
    alias = re.escape(str(node.get("Alias")))
    return list(dict.fromkeys(re.findall(rf'\b{alias}\.("(?:[^"]|"")+"|\w+)', comparisons)))


def _refused(asked: _Asked, error: psycopg.Error, places: Places, user: str) -> Finding:
    said = error.diag.message_primary or str(error)
    denied = _DENIED.fullmatch(said)
    if isinstance(error, pg.InsufficientPrivilege) and denied is not None:
        return _denied(asked, denied[1], denied[2], places, user)
    hint = error.diag.message_hint
    return finding(
        _subject(asked),
        _at(asked, places, error.diag.statement_position),
        "lookup-invalid",
        f"Postgres refuses lookup '{asked.lookup.name}': {said}",
        why="the rule could only apply its coarse form",
        help=hint,
    )


def _denied(asked: _Asked, kind: str, name: str, places: Places, user: str) -> Finding:
    role = sql.Identifier(user).as_string(None)
    written = re.search(rf'((?:"(?:[^"]|"")+"|\w+)\.)?"?{re.escape(name)}"?', asked.lookup.sql.text)
    full = written[0] if written is not None else sql.Identifier(name).as_string(None)
    fix = f"GRANT USAGE ON SCHEMA {name} TO {role};" if kind == "schema" else f"GRANT SELECT ON {full} TO {role};"
    message = f"role '{user}' may not read {kind} {name}, as lookup '{asked.lookup.name}' does"
    why = "the rule could only apply its coarse form"
    return finding(_subject(asked), _at(asked, places), "no-select-privilege", message, why=why, fix=fix)


def _at(asked: _Asked, places: Places, position: str | None = None) -> At:
    steps = ("lookup", asked.lookup.name, "sql")
    if position is not None and position.isdecimal():
        offset = asked.wrapped.source_offset(int(position) - 1 - len(_EXPLAIN))
        if offset is not None:
            word = re.match(r'"(?:[^"]|"")+"|[\w.]+', asked.lookup.sql.text[offset:])
            return places.within(asked.rule, steps, offset, len(word[0]) if word else 1)
    return places.at(asked.rule, *steps[:2], key=True)


def _subject(asked: _Asked) -> str:
    return f"{asked.rule.name} {asked.lookup.name}"


def _short(rows: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rows >= size:
            return f"{rows / size:.1f}{unit}"
    return f"{rows:.0f}"
