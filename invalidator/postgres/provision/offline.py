"""The same SQL without a look at the database: whole tables, and a guard in place of what cannot be known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from invalidator.postgres.provision.grants import rds_membership, select, usage
from invalidator.postgres.provision.guess import tables_named
from invalidator.postgres.provision.plan import KEEP_SIZE, RELOAD
from invalidator.postgres.provision.providers import WAYS, Provider
from invalidator.postgres.provision.publication import made_comment, publish_clause, wanted_operations
from invalidator.postgres.provision.words import OPERATIONS, Finding, Need, Plan, Purpose, Request, Step

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
    is_rds = request.provider is Provider.RDS
    attributes = sql.SQL("LOGIN" if is_rds else "LOGIN REPLICATION")
    create_role = sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(role), attributes)
    why = "the daemon's role, no superuser; give it a password with \\password in psql, or a certificate"
    steps = [Step(Purpose.ROLE, (create_role,), why)]
    if is_rds:
        steps.append(rds_membership(role))
    reads, notes = _reads(needs)
    steps += [usage(schema, role) for schema in sorted({schema for schema, _ in reads} - {"public"})]
    steps += [
        select(schema, name, role, f"lookups of {', '.join(sorted(rules))}")
        for (schema, name), rules in sorted(reads.items())
    ]
    if names:
        steps.append(_publication(names, wanted_operations(needs), request))
    slot = sql.SQL("SELECT pg_create_logical_replication_slot({}, 'pgoutput')").format(sql.Literal(request.slot))
    note = "on Postgres 17 and newer, for standbys to keep a copy: (…, 'pgoutput', failover => true)"
    why = "after the publication; from here on WAL is kept for the daemon"
    steps.append(Step(Purpose.SLOT, (slot,), why, note=note if request.wants_failover else ""))
    if request.provider in {None, Provider.SELF}:
        keep = sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(sql.Literal(KEEP_SIZE))
        why = "by default a stopped daemon can fill the primary's disk"
        steps.append(Step(Purpose.SERVER, (keep, RELOAD), why, is_advice=True))
    return Plan(tuple(steps), (*_provider(request), *_globs(needs), *_identities(needs, request), *notes))


def _provider(request: Request) -> Iterator[Finding]:
    """What must be done there before and after, as far as it can be told from here."""
    if request.provider in {None, Provider.SELF}:
        return
    ways = WAYS[request.provider or Provider.SELF]
    yield Finding("changes must be decoded (wal_level = logical)", ways.enable_decoding, is_problem=False)
    if ways.limit_wal is not None:
        text = "max_slot_wal_keep_size: by default a stopped daemon can fill the primary's disk"
        yield Finding(text, ways.limit_wal, is_problem=False)
    for text in ways.notes:
        yield Finding(text, is_problem=False)


def _reads(needs: Sequence[Need]) -> tuple[dict[tuple[str, str], set[str]], list[Finding]]:
    """The tables that lookups seem to read, and a note for each that only the database can tell."""
    found: dict[tuple[str, str], set[str]] = {}
    for need in needs:
        for lookup in need.lookups:
            for table in tables_named("NULL".join(lookup.texts)):
                found.setdefault(table, set()).add(f"'{need.rule}'")
    if not any(need.lookups for need in needs):
        return found, []
    text = "which tables the lookups read is guessed from FROM and JOIN; with a connection, Postgres itself says so"
    return found, [Finding(text, is_problem=False)]


def _publication(names: list[tuple[str, str]], operations: frozenset[str], request: Request) -> Step:
    tables = [sql.Identifier(schema, table) for schema, table in names]
    literals = sql.SQL(", ").join(sql.Literal(table.as_string(None)) for table in tables)
    create = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(
        # ONLY: tables that inherit from these have no primary key of theirs. It leaves partitions in.
        sql.Identifier(request.publication),
        sql.SQL(", ").join(sql.SQL("ONLY {}").format(table) for table in tables),
    )
    if operations != OPERATIONS:
        create += sql.SQL(" WITH (publish = {})").format(sql.Literal(publish_clause(operations)))
    guard = sql.SQL(_GUARD).format(tables=literals)
    has_guard = bool(operations & {"update", "delete"})
    comment = made_comment(request.publication)
    statements = (guard, create, comment) if has_guard else (create, comment)
    return Step(Purpose.PUBLICATION, statements, "all columns: with a connection, setup makes column lists")


def _globs(needs: Sequence[Need]) -> list[Finding]:
    return [
        Finding(
            f"rule '{need.rule}' ({need.place}): which tables {need.full_name} matches is known only to the database"
        )
        for need in needs
        if not need.is_exact
    ]


def _identities(needs: Sequence[Need], request: Request) -> list[Finding]:
    return [
        Finding(
            f"rule '{need.rule}' ({need.place}) needs old {', '.join(sorted(need.old_columns))} of {need.full_name}:"
            " the replica identity must hold them (the primary key does by default). If it does not, with a connection"
            " setup says what is best; of a partitioned table each partition has an identity of its own, and FULL for"
            " the table itself does nothing",
            _full(need, request),
            is_problem=False,
        )
        for need in needs
        if need.is_exact and need.old_columns
    ]


def _full(need: Need, request: Request) -> str:
    """FULL, and no list of ours beside it: where there is one by then, UPDATE and DELETE would fail."""
    table = sql.Identifier(need.schema, need.table).as_string(None)
    literal = sql.Literal(table).as_string(None)
    alter = sql.SQL("ALTER PUBLICATION {}").format(sql.Identifier(request.publication)).as_string(None)
    return (
        f"BEGIN; {alter} DROP TABLE ONLY {table}; ALTER TABLE {table} REPLICA IDENTITY FULL;"
        f" {alter} ADD TABLE ONLY {table}; COMMIT;   -- no partitions\n"
        "SELECT format('ALTER TABLE %s REPLICA IDENTITY FULL;', relid) FROM"
        f" pg_partition_tree({literal}) WHERE isleaf;   -- the partitions: run what it prints"
    )
