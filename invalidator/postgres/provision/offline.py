"""The same SQL without a look at the database: whole tables, and a guard in place of what cannot be known."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from invalidator.postgres.provision.plan import KEEP_SIZE, RELOAD
from invalidator.postgres.provision.words import Finding, Need, Plan, Purpose, Request, Step

# Run in the transaction that makes the publication: if it raises, there is no publication, and no UPDATE can fail.
_GUARD = """\
DO $guard$
DECLARE unsafe text;
BEGIN
    SELECT string_agg(DISTINCT c.oid::regclass::text, ', ') INTO unsafe
      FROM unnest(ARRAY[{tables}]::regclass[]) AS named (oid)
      CROSS JOIN LATERAL (SELECT named.oid UNION SELECT relid FROM pg_partition_tree(named.oid)) AS member (oid)
      JOIN pg_class c ON c.oid = member.oid
     WHERE c.relkind IN ('r', 'p')
       AND (NOT (c.relreplident = 'f' AND c.relkind = 'r') AND NOT EXISTS (
                SELECT FROM pg_index i
                 WHERE i.indrelid = c.oid AND i.indimmediate
                   AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
            OR EXISTS (
                SELECT FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''
                   AND (c.relreplident = 'f' OR EXISTS (
                        SELECT FROM pg_index i
                         WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)
                           AND a.attnum = ANY (i.indkey::int2[])))));
    IF unsafe IS NOT NULL THEN
        RAISE EXCEPTION 'not published, because UPDATE and DELETE would fail without a fit replica identity: %', unsafe
            USING HINT = 'run "invalidator setup" with a connection: it says what each table needs';
    END IF;
END $guard$"""


def offline_plan(needs: Sequence[Need], request: Request) -> Plan:
    """Generic steps that are safe on any database of version 14 or newer, though not the best on each."""
    role = request.role or "invalidator"
    names = sorted({(need.schema, need.table) for need in needs if need.is_exact})
    create_role = sql.SQL("CREATE ROLE {} LOGIN REPLICATION").format(sql.Identifier(role))
    why = "the daemon's role, no superuser; give it a password with \\password in psql, or a certificate"
    steps = [Step(Purpose.ROLE, (create_role,), why)]
    if names:
        steps.append(_publication(names, request))
    slot = sql.SQL("SELECT pg_create_logical_replication_slot({}, 'pgoutput')").format(sql.Literal(request.slot))
    steps.append(Step(Purpose.SLOT, (slot,), "after the publication; from here on WAL is kept for the daemon"))
    keep = sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(sql.Literal(KEEP_SIZE))
    why = "by default a stopped daemon can fill the primary's disk"
    steps.append(Step(Purpose.SERVER, (keep, RELOAD), why, is_advice=True))
    return Plan(tuple(steps), (*_globs(needs), *_identities(needs)))


def _publication(names: list[tuple[str, str]], request: Request) -> Step:
    tables = [sql.Identifier(schema, table) for schema, table in names]
    literals = sql.SQL(", ").join(sql.Literal(table.as_string(None)) for table in tables)
    create = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(
        # ONLY: tables that inherit from these have no primary key of theirs. It leaves partitions in.
        sql.Identifier(request.publication),
        sql.SQL(", ").join(sql.SQL("ONLY {}").format(table) for table in tables),
    )
    guard = sql.SQL(_GUARD).format(tables=literals)
    return Step(Purpose.PUBLICATION, (guard, create), "all columns: with a connection, setup makes column lists")


def _globs(needs: Sequence[Need]) -> list[Finding]:
    return [
        Finding(
            f"rule '{need.rule}' ({need.place}): which tables {need.full_name} matches is known only to the database"
        )
        for need in needs
        if not need.is_exact
    ]


def _identities(needs: Sequence[Need]) -> list[Finding]:
    return [
        Finding(
            f"rule '{need.rule}' ({need.place}) needs old {', '.join(sorted(need.old_columns))} of {need.full_name}:"
            " the replica identity must hold them (the primary key does by default)",
            f"ALTER TABLE {sql.Identifier(need.schema, need.table).as_string(None)} REPLICA IDENTITY FULL;"
            "   -- if they are not in the primary key",
            is_problem=False,
        )
        for need in needs
        if need.is_exact and need.old_columns
    ]
