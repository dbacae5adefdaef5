"""Taking away what ``setup`` made: slot, publication, grants, role. Never CASCADE, never what is needed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from psycopg import sql

from invalidator.postgres.catalog import ORDINARY, Table
from invalidator.postgres.catalog.privileges import Holding
from invalidator.postgres.provision import filters, fitness
from invalidator.postgres.provision.words import (
    Facts,
    Finding,
    Mark,
    Need,
    Plan,
    Purpose,
    Request,
    Step,
)


def removal(needs: Sequence[Need], facts: Facts, request: Request, *, is_slot_recorded: bool = False) -> Plan:
    """What of the rules' set-up can go, in an order in which each is safe, and what is left for you.

    Args:
        needs: of the rules.
        facts: what is there.
        request: names.
        is_slot_recorded: beside a cache there is a record of this slot of this cluster: it is ours.
    """
    slot = _slot(facts, request, is_recorded=is_slot_recorded)
    publication = _publication(needs, facts, request)
    if facts.slot is not None and facts.slot.active_pid is not None and publication.steps:
        text = f"publication '{request.publication}' stays while something streams from slot '{request.slot}'"
        publication = Plan((), (Finding(text, "stop the daemon, then run this again"),))
    goes = {request.publication} if publication.steps else set[str]()
    left = {name: each for name, each in facts.publications.items() if name not in goes}
    parts = [slot, publication, _identities(needs, replace(facts, publications=left), is_after_steps=bool(goes))]
    if request.role is not None and facts.role is not None:
        parts.append(_role(facts, request.role))
    return Plan(
        tuple(step for part in parts for step in part.steps),
        tuple(finding for part in parts for finding in part.findings),
    )


def _slot(facts: Facts, request: Request, *, is_recorded: bool) -> Plan:
    slot = facts.slot
    if slot is None:
        return Plan(())
    if slot.plugin != "pgoutput" or slot.database != facts.server.database:
        text = f"slot '{slot.name}' is not ours: plugin {slot.plugin}, database {slot.database}"
        return Plan((), (Finding(text),))
    if slot.active_pid is not None:
        holder = f" ({facts.slot_holder})" if facts.slot_holder else ""
        text = f"slot '{slot.name}' is in use by server process {slot.active_pid}{holder}: a daemon is running"
        fix = "stop the daemon, then run this again; pg_stat_activity says who it is"
        return Plan((), (Finding(text, fix),))
    drop = sql.SQL("SELECT pg_drop_replication_slot({})").format(sql.Literal(slot.name))
    publication = facts.publications.get(request.publication)
    if not is_recorded and (publication is None or not filters.is_made(publication)):
        text = (
            f"slot '{slot.name}' stays: nothing shows that it is ours. There is no publication '{request.publication}'"
            " that setup made, and no record of this slot beside a cache"
        )
        return Plan((), (Finding(text, f"{drop.as_string(None)};   -- if nothing else reads from it"),))
    why = "no WAL is kept any more; what was not read by now is lost for caches"
    return Plan((Step(Purpose.SLOT, (drop,), why, marks=(Mark("-", f"slot {slot.name}"),)),))


def _publication(needs: Sequence[Need], facts: Facts, request: Request) -> Plan:
    existing = facts.publications.get(request.publication)
    if existing is None:
        return Plan(())
    name = sql.Identifier(existing.name)
    drop = sql.SQL("DROP PUBLICATION {}").format(name)
    ours = {table.oid for table in facts.tables if any(need.wants(table) for need in needs)}
    foreign = sorted(table.name for table in existing.tables if table.oid not in ours)
    if existing.is_for_all_tables or existing.schemas or (foreign and not filters.is_managed(existing)):
        held = "all tables" if existing.is_for_all_tables else ", ".join([*sorted(existing.schemas), *foreign])
        text = f"publication '{existing.name}' stays: it holds {held}, which no rule needs, so others may read it"
        return Plan((), (Finding(text, f"{drop.as_string(None)};   -- if nobody does"),))
    if not filters.is_made(existing):
        text = f"publication '{existing.name}' stays: its comment does not say that setup made it"
        return Plan((), (Finding(text, f"{drop.as_string(None)};   -- if nobody else reads it"),))
    mark = Mark("-", f"publication {existing.name}")
    return Plan((Step(Purpose.PUBLICATION, (drop,), "the tables themselves are not touched", marks=(mark,)),))


def _identities(needs: Sequence[Need], facts: Facts, *, is_after_steps: bool) -> Plan:
    """What they were before is not known, and others may have come to need them."""
    changed = [
        table
        for table in facts.tables
        if table.kind == ORDINARY and table.replica_identity != "d" and _is_about(needs, table, facts)
    ]
    kinds = {"f": "FULL", "n": "NOTHING", "i": "USING INDEX"}
    return Plan(
        (),
        tuple(
            Finding(
                f"replica identity of {table.full_name} is {kinds.get(table.replica_identity, '?')} and stays: whether"
                " setup made it so, or somebody needs it, is not recorded",
                _undoing(table, facts) + ("   -- after the steps above" if is_after_steps else ""),
                is_problem=False,
            )
            for table in changed
        ),
    )


def _undoing(table: Table, facts: Facts) -> str:
    """DEFAULT, after the table has left what would not fit it; run any earlier, UPDATE and DELETE on it would fail."""
    default, tables = replace(table, replica_identity="d"), {each.oid: each for each in facts.tables}
    back = fitness.altered(table, sql.SQL("DEFAULT"))
    if default.identity is None:
        holders = fitness.publishers(table, tables, facts)
    else:
        holders = [misfit.publication for misfit in fitness.misfits(default, tables, facts)]
    leaves = [fitness.removed(table, each.name) for each in holders if each.table(table.oid) is not None]
    others = [each.name for each in holders if each.table(table.oid) is None]
    if others:
        return f"{back}   -- only when it is no longer in {', '.join(others)}, or else UPDATE and DELETE fail"
    return " ".join(("BEGIN;", *leaves, back, "COMMIT;")) if leaves else back


def _is_about(needs: Sequence[Need], table: Table, facts: Facts) -> bool:
    root = next((other for other in facts.tables if other.oid == table.root_oid), None)
    return any(need.wants(table) or (root is not None and need.wants(root)) for need in needs)


def _role(facts: Facts, role: str) -> Plan:
    """Revoke what lookups read, then drop the role if nothing else ties it to anything."""
    name = sql.Identifier(role)
    reads = {(readable.schema, readable.name) for read in facts.reads for readable in read.readables}
    steps: list[Step] = []
    left: list[Holding] = []
    revoked = False
    for holding in facts.holdings:
        statement = _revocation(holding, reads, facts, name)
        if statement is None:
            left.append(holding)
            continue
        revoked = True
        mark = Mark("-", f"privileges of {role} on {holding.what}")
        steps.append(Step(Purpose.GRANT, (statement,), "granted for lookups or to connect", marks=(mark,)))
    ties = list(facts.ties)
    if facts.role is not None and not facts.role.can_replicate:
        ties.append("it cannot replicate, so it is none of ours")
    obstacles = [*_words(left), *ties]
    if obstacles:
        text = f"role '{role}' stays: {'; '.join(obstacles)}"
        drop = sql.SQL("DROP ROLE {}").format(name).as_string(None)
        # Whoever is more than our role keeps its privileges too: they may be what that is for.
        steps = [] if ties else steps
        return Plan(tuple(steps), (Finding(text, f"{drop};   -- when that has been dealt with", is_problem=False),))
    drop_role = sql.SQL("DROP ROLE {}").format(name)
    why = "it owns nothing, and has no privilege left" if revoked else "it owns nothing, and has no privilege"
    return Plan((*steps, Step(Purpose.ROLE, (drop_role,), why, marks=(Mark("-", f"role {role}"),))))


def _revocation(
    holding: Holding, reads: set[tuple[str, str]], facts: Facts, role: sql.Identifier
) -> sql.Composed | None:
    """The REVOKE for a privilege that ``setup`` gives; None for everything else."""
    schemas = {schema for schema, _ in reads}
    match holding:
        case Holding("a", "pg_class", _, str(schema), str(table), ("SELECT",)) if (schema, table) in reads:
            return sql.SQL("REVOKE SELECT ON {} FROM {}").format(sql.Identifier(schema, table), role)
        case Holding("a", "pg_namespace", _, _, str(schema), ("USAGE",)) if schema in schemas:
            return sql.SQL("REVOKE USAGE ON SCHEMA {} FROM {}").format(sql.Identifier(schema), role)
        case Holding("a", "pg_database", what, _, _, ("CONNECT",)) if what == f"database {facts.server.database}":
            return sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(sql.Identifier(facts.server.database), role)
        case _:
            return None


def _words(left: Sequence[Holding]) -> Iterator[str]:
    verbs = {"o": "it owns", "a": "it has privileges on", "r": "a policy names it on"}
    shown = 3
    for holding in left[:shown]:
        yield f"{verbs.get(holding.kind, 'it is tied to')} {holding.what}"
    if len(left) > shown:
        yield f"and {len(left) - shown} more"
