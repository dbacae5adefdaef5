"""What is wanted minus what is there: the steps of ``setup``, in an order in which each is safe."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from invalidator.postgres.catalog import Publication
from invalidator.postgres.provision.tables import Entry, entries
from invalidator.postgres.provision.words import (
    GENERATED_COLUMNS,
    Facts,
    Finding,
    Need,
    Plan,
    Purpose,
    Request,
    Step,
    published_name,
)

OPERATIONS = frozenset({"insert", "update", "delete", "truncate"})
OLDEST_SERVER = 140000
KEEP_SIZE = "20GB"
RELOAD = sql.Composed([sql.SQL("SELECT pg_reload_conf()")])


def plan(needs: Sequence[Need], facts: Facts, request: Request) -> Plan:
    """Work out the steps; what exists as wanted needs none, so a second run does nothing."""
    findings = _server(facts)
    if facts.server.is_standby or facts.server.version < OLDEST_SERVER:
        return Plan((), tuple(findings))
    steps = _role(facts, request)
    decided, more = entries(tuple(needs), facts, request)
    findings += more
    published, more = _publication(decided, facts, request)
    steps += published
    findings += more
    slot_steps, more = _slot(facts, request)
    steps += slot_steps
    findings += more
    return Plan((*steps, *_advice(facts)), tuple(findings))


def _server(facts: Facts) -> list[Finding]:
    server = facts.server
    findings: list[Finding] = []
    if server.version < OLDEST_SERVER:
        findings.append(Finding(f"Postgres {server.version // 10000} is too old: 14 or newer is needed"))
    if server.is_standby:
        findings.append(Finding("this server is a standby: run setup against the primary"))
    if server.wal_level != "logical":
        text = f"wal_level is '{server.wal_level}': this server decodes no changes"
        fix = (
            "ALTER SYSTEM SET wal_level = 'logical';   -- then restart Postgres and run setup again: it makes the slot"
        )
        findings.append(Finding(text, fix))
    return findings


def _role(facts: Facts, request: Request) -> list[Step]:
    if request.role is None:
        return []
    name = sql.Identifier(request.role)
    is_rds = facts.server.has_rds_replication
    steps = []
    if facts.role is None:
        attributes = sql.SQL("LOGIN" if is_rds else "LOGIN REPLICATION")
        create = sql.SQL("CREATE ROLE {} {}").format(name, attributes)
        why = "the daemon's role, no superuser; give it a password with \\password in psql, or a certificate"
        steps.append(Step(Purpose.ROLE, (create,), why))
    elif not facts.role.is_superuser:
        missing = [
            word
            for word, is_there in (
                ("LOGIN", facts.role.can_login),
                ("REPLICATION", facts.role.can_replicate or is_rds),
            )
            if not is_there
        ]
        if missing:
            alter = sql.SQL("ALTER ROLE {} {}").format(name, sql.SQL(" ").join(map(sql.SQL, missing)))
            steps.append(Step(Purpose.ROLE, (alter,), "the daemon's role reads the replication stream"))
    if is_rds and (facts.role is None or not (facts.role.can_replicate or facts.role.is_superuser)):
        grant = sql.SQL("GRANT rds_replication TO {}").format(name)
        steps.append(Step(Purpose.GRANT, (grant,), "Amazon RDS grants replication by membership"))
    if facts.role is not None and not facts.role.can_connect:
        database = sql.Identifier(facts.server.database)
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, name)
        steps.append(Step(Purpose.GRANT, (grant,), "PUBLIC may not connect to this database"))
    return steps


def _publication(decided: list[Entry], facts: Facts, request: Request) -> tuple[list[Step], list[Finding]]:
    existing = facts.publications.get(request.publication)
    if existing is not None:
        return _altered_publication(existing, decided, facts)
    changes = [change for entry in decided for change in entry.changes]
    if not decided:
        return changes, [Finding(f"there is no table to publish: publication '{request.publication}' is not made")]
    statement = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(
        sql.Identifier(request.publication), sql.SQL(", ").join(entry.target for entry in decided)
    )
    if facts.server.version >= GENERATED_COLUMNS:
        # An unpublished stored generated column in an identity would make the application's UPDATE fail.
        statement += sql.SQL(" WITH (publish_generated_columns = stored)")
    return [*changes, Step(Purpose.PUBLICATION, (statement,), "the rules' tables, with the columns that they need")], []


def _altered_publication(existing: Publication, decided: list[Entry], facts: Facts) -> tuple[list[Step], list[Finding]]:
    steps: list[Step] = []
    added: list[Entry] = []
    findings = _publication_findings(existing, decided)
    if _needs_generated(existing, decided, facts):
        alter = sql.SQL("ALTER PUBLICATION {} SET (publish_generated_columns = stored)")
        step = Step(Purpose.PUBLICATION, (alter.format(sql.Identifier(existing.name)),), "stored generated columns")
        steps.append(step)
    for entry in decided:
        published = existing.table(entry.table.oid)
        is_covered = existing.is_for_all_tables or entry.table.schema in existing.schemas
        if published is None:
            steps += entry.changes
            if not is_covered:
                added.append(entry)
        elif published.has_row_filter or not _must_renew(published.columns, entry):
            steps += entry.changes
        else:
            steps.append(_renewal(existing, entry))
    if added:
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
            sql.Identifier(existing.name), sql.SQL(", ").join(entry.target for entry in added)
        )
        steps.append(Step(Purpose.PUBLICATION, (statement,), "tables that it does not hold yet"))
    return steps, findings


def _must_renew(listed: frozenset[str] | None, entry: Entry) -> bool:
    """Whether the table's entry hides columns, would make UPDATE fail, or carries more than is needed.

    A list that is wider than needed was somebody's choice, and stays.
    """
    if listed is None or entry.listed is None:
        return listed != entry.listed
    return not entry.listed <= listed


def _renewal(existing: Publication, entry: Entry) -> Step:
    """Take the table out and put it back in one transaction: no change is missed, no UPDATE meets a wrong list."""
    name = sql.Identifier(existing.name)
    drop = sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(name, published_name(entry.table))
    add = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(name, entry.target)
    changes = tuple(statement for change in entry.changes for statement in change.statements)
    why = "; ".join(["another column list", *(change.why for change in entry.changes)])
    return Step(Purpose.PUBLICATION, (drop, *changes, add), why)


def _needs_generated(existing: Publication, decided: list[Entry], facts: Facts) -> bool:
    if facts.server.version < GENERATED_COLUMNS or existing.sends_generated:
        return False
    return any(
        column.generated == "s" and column.name in entry.required
        for entry in decided
        if entry.listed is None
        for column in entry.table.columns
    )


def _publication_findings(existing: Publication, decided: list[Entry]) -> list[Finding]:
    name = sql.Identifier(existing.name).as_string(None)
    findings = []
    if missing := OPERATIONS - existing.operations:
        text = f"publication '{existing.name}' does not publish {', '.join(sorted(missing))}"
        fix = (
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');"
            "   -- first make sure that each of its tables has a replica identity"
        )
        findings.append(Finding(text, fix))
    if existing.is_via_root and any(entry.table.kind == "p" for entry in decided):
        text = f"publication '{existing.name}' publishes via the root: a TRUNCATE of one partition is not sent"
        fix = f"ALTER PUBLICATION {name} SET (publish_via_partition_root = false);"
        findings.append(Finding(text, fix, is_problem=False))
    wanted = {entry.table.oid: entry for entry in decided}
    for published in existing.tables:
        entry = wanted.get(published.oid)
        if entry is not None and published.has_row_filter:
            text = f"publication '{existing.name}' filters the rows of {entry.table.full_name}: others stay unseen"
            findings.append(Finding(text, is_problem=False))
    unused = sum(published.oid not in wanted for published in existing.tables)
    if unused:
        text = f"publication '{existing.name}' holds {unused} table(s) that no rule needs: their changes cost bytes"
        findings.append(Finding(text, is_problem=False))
    return findings


def _slot(facts: Facts, request: Request) -> tuple[list[Step], list[Finding]]:
    slot = facts.slot
    if slot is None and facts.server.wal_level != "logical":
        return [], []  # it is refused until then, and the finding about wal_level says so
    if slot is None:
        create = sql.SQL("SELECT pg_create_logical_replication_slot({}, 'pgoutput')").format(sql.Literal(request.slot))
        return [Step(Purpose.SLOT, (create,), "after the publication; from here on WAL is kept for the daemon")], []
    drop = sql.SQL("SELECT pg_drop_replication_slot({});").format(sql.Literal(slot.name)).as_string(None)
    if slot.plugin != "pgoutput":
        what = f"uses the plugin '{slot.plugin}'" if slot.plugin else "is a physical slot"
        return [], [Finding(f"slot '{slot.name}' {what}, not pgoutput", "choose another name: source.slot")]
    if slot.database != facts.server.database:
        text = f"slot '{slot.name}' belongs to database '{slot.database}', not '{facts.server.database}'"
        return [], [Finding(text, "choose another name: source.slot")]
    if slot.wal_status == "lost":
        text = f"slot '{slot.name}' lost its WAL: changes are missing, and caches may hold what they made stale"
        return [], [Finding(text, f"{drop}   -- then run setup again, and empty the caches")]
    return [], []


def _advice(facts: Facts) -> list[Step]:
    if facts.server.max_slot_wal_keep_size != "-1":
        return []
    setting = sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(sql.Literal(KEEP_SIZE))
    why = "now -1: a stopped daemon can fill the primary's disk; beyond this size the slot is given up instead"
    return [Step(Purpose.SERVER, (setting, RELOAD), why, is_advice=True)]
