"""What the daemon's role may do: stream, connect, and read what lookups read. Nothing else."""

from __future__ import annotations

from psycopg import sql

from invalidator.postgres.catalog import Role
from invalidator.postgres.catalog.privileges import Readable
from invalidator.postgres.provision.words import Facts, Finding, Mark, Plan, Purpose, Request, Step


def role_plan(facts: Facts, request: Request) -> Plan:
    """The role, and that it may stream and connect."""
    if request.role is None:
        return Plan(())
    name = sql.Identifier(request.role)
    is_rds = facts.server.has_rds_replication
    title = f"role {request.role}"
    steps: list[Step] = []
    kept: list[Mark] = []
    if facts.role is None:
        attributes = sql.SQL("LOGIN" if is_rds else "LOGIN REPLICATION")
        create = sql.SQL("CREATE ROLE {} {}").format(name, attributes)
        why = "the daemon's role, no superuser; give it a password with \\password in psql, or a certificate"
        steps.append(Step(Purpose.ROLE, (create,), why, marks=(Mark("+", title),)))
    elif missing := _missing_attributes(facts):
        alter = sql.SQL("ALTER ROLE {} {}").format(name, sql.SQL(" ").join(map(sql.SQL, missing)))
        mark = Mark("~", title, f"lacks {' '.join(missing)}")
        steps.append(Step(Purpose.ROLE, (alter,), "the daemon's role reads the replication stream", marks=(mark,)))
    else:
        kept.append(Mark("=", title))
    if is_rds and (facts.role is None or not (facts.role.can_replicate or facts.role.is_superuser)):
        steps.append(rds_membership(request.role))
    if facts.role is not None and not facts.role.can_connect:
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(facts.server.database), name)
        mark = Mark("+", f"CONNECT on database {facts.server.database} for {request.role}")
        steps.append(Step(Purpose.GRANT, (grant,), "PUBLIC may not connect to this database", marks=(mark,)))
    return Plan(tuple(steps), (), tuple(kept))


def login_plan(role: str, found: Role | None, database: str) -> Plan:
    """A role that may log in and connect, where nothing streams."""
    name = sql.Identifier(role)
    steps: list[Step] = []
    kept: list[Mark] = []
    if found is None:
        create = sql.SQL("CREATE ROLE {} LOGIN").format(name)
        why = "the daemon's role, no superuser; give it a password with \\password in psql, or a certificate"
        steps.append(Step(Purpose.ROLE, (create,), why, marks=(Mark("+", f"role {role}"),)))
    elif not found.can_login:
        alter = sql.SQL("ALTER ROLE {} LOGIN").format(name)
        mark = Mark("~", f"role {role}", "lacks LOGIN")
        steps.append(Step(Purpose.ROLE, (alter,), "the daemon's role connects", marks=(mark,)))
    else:
        kept.append(Mark("=", f"role {role}"))
    if found is not None and not found.can_connect:
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), name)
        mark = Mark("+", f"CONNECT on database {database} for {role}")
        steps.append(Step(Purpose.GRANT, (grant,), "PUBLIC may not connect to this database", marks=(mark,)))
    return Plan(tuple(steps), (), tuple(kept))


def _missing_attributes(facts: Facts) -> list[str]:
    role = facts.role
    if role is None or role.is_superuser:
        return []
    can_replicate = role.can_replicate or facts.server.has_rds_replication
    return [word for word, is_there in (("LOGIN", role.can_login), ("REPLICATION", can_replicate)) if not is_there]


def lookup_plan(facts: Facts, request: Request) -> Plan:
    """SELECT on what the lookups read, and USAGE on the schemas."""
    findings = [
        Finding(f"lookup '{read.lookup}' of rule '{read.rule}' ({read.place}): {read.error}")
        for read in facts.reads
        if read.error is not None
    ]
    if request.role is None or (facts.role is not None and facts.role.is_superuser):
        return Plan((), tuple(findings))
    wanted: dict[Readable, set[str]] = {}
    for read in facts.reads:
        for readable in read.readables:
            wanted.setdefault(readable, set()).add(read.rule)
    steps: list[Step] = []
    kept: list[Mark] = []
    for schema in dict.fromkeys(readable.schema for readable in wanted if not readable.has_usage):
        if schema == "public" and facts.role is None:
            continue  # PUBLIC has it, unless somebody took it away: then the next run says so
        steps.append(usage(schema, request.role))
    for readable, rules in wanted.items():
        named = ", ".join(f"'{rule}'" for rule in sorted(rules))
        if readable.is_granted:
            kept.append(Mark("=", f"SELECT on {readable.schema}.{readable.name} for {request.role}"))
        else:
            steps.append(select(readable.schema, readable.name, request.role, f"lookups of {named}"))
    return Plan(tuple(steps), tuple(findings), tuple(kept))


def rds_membership(role: str) -> Step:
    """What stands for REPLICATION on Amazon RDS, where nobody can give that attribute."""
    grant = sql.SQL("GRANT rds_replication TO {}").format(sql.Identifier(role))
    mark = Mark("+", f"membership of {role} in rds_replication")
    return Step(Purpose.GRANT, (grant,), "Amazon RDS grants replication by membership", marks=(mark,))


def usage(schema: str, role: str) -> Step:
    """GRANT USAGE ON SCHEMA."""
    grant = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(role))
    return Step(
        Purpose.GRANT, (grant,), "lookups read there", marks=(Mark("+", f"USAGE on schema {schema} for {role}"),)
    )


def select(schema: str, name: str, role: str, why: str) -> Step:
    """GRANT SELECT."""
    grant = sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(schema, name), sql.Identifier(role))
    return Step(Purpose.GRANT, (grant,), why, marks=(Mark("+", f"SELECT on {schema}.{name} for {role}"),))
