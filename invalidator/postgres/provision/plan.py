"""What is wanted minus what is there: the steps of ``setup``, in an order in which each is safe."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from invalidator.postgres.provision.grants import lookup_plan, role_plan
from invalidator.postgres.provision.providers import WAYS, Provider, detect, notes
from invalidator.postgres.provision.publication import operations, publication_plan
from invalidator.postgres.provision.tables import entries
from invalidator.postgres.provision.words import (
    FAILOVER_SLOTS,
    OPERATIONS,
    Facts,
    Finding,
    Mark,
    Need,
    Plan,
    Purpose,
    Request,
    Step,
)

__all__ = ["KEEP_SIZE", "OLDEST_SERVER", "OPERATIONS", "RELOAD", "plan"]

OLDEST_SERVER = 140000
KEEP_SIZE = "20GB"
RELOAD = sql.Composed([sql.SQL("SELECT pg_reload_conf()")])


def plan(needs: Sequence[Need], facts: Facts, request: Request) -> Plan:
    """Work out the steps; what exists as wanted needs none, so a second run does nothing."""
    provider = request.provider or detect(facts.server)
    findings = _server(facts, provider)
    if facts.server.is_standby or facts.server.version < OLDEST_SERVER:
        return Plan((), tuple(findings))
    decided, more = entries(tuple(needs), facts, request, operations(needs, facts, request))
    publication = publication_plan(decided, needs, facts, request)
    # A slot without a publication could not be read, and nothing would show that it is ours.
    is_published = bool(publication.to_run) or request.publication in facts.publications
    parts = (
        role_plan(facts, request),
        lookup_plan(facts, request),
        Plan((), tuple(more)),
        publication,
        _slot(facts, request) if is_published or facts.slot is not None else Plan(()),
        _advice(facts, provider),
    )
    return Plan(
        tuple(step for part in parts for step in part.steps),
        (*findings, *(finding for part in parts for finding in part.findings)),
        tuple(mark for part in parts for mark in part.kept),
    )


def _server(facts: Facts, provider: Provider) -> list[Finding]:
    server = facts.server
    findings: list[Finding] = []
    if server.version < OLDEST_SERVER:
        findings.append(Finding(f"Postgres {server.version // 10000} is too old: 14 or newer is needed"))
    if server.is_standby:
        findings.append(Finding("this server is a standby: run setup against the primary"))
    if server.wal_level != "logical":
        text = f"wal_level is '{server.wal_level}': this server decodes no changes"
        findings.append(Finding(text, WAYS[provider].enable_decoding))
    findings += [Finding(text, is_problem=False) for text in notes(provider, server)]
    return findings


def _slot(facts: Facts, request: Request) -> Plan:
    slot = facts.slot
    title = f"slot {request.slot}"
    if slot is None and facts.server.wal_level != "logical":
        return Plan(())  # it is refused until then, and the finding about wal_level says so
    if slot is None:
        return Plan((_slot_creation(facts, request),))
    drop = sql.SQL("SELECT pg_drop_replication_slot({});").format(sql.Literal(slot.name)).as_string(None)
    if slot.plugin != "pgoutput":
        what = f"uses the plugin '{slot.plugin}'" if slot.plugin else "is a physical slot"
        finding = Finding(f"slot '{slot.name}' {what}, not pgoutput", "choose another name: source.slot")
        return Plan((), (finding,), (Mark("~", title, what),))
    if slot.database != facts.server.database:
        text = f"slot '{slot.name}' belongs to database '{slot.database}', not '{facts.server.database}'"
        return Plan((), (Finding(text, "choose another name: source.slot"),), (Mark("~", title, "another database"),))
    if slot.wal_status == "lost":
        text = f"slot '{slot.name}' lost its WAL: changes are missing, and caches may hold what they made stale"
        finding = Finding(text, f"{drop}   -- then run setup again, and empty the caches")
        return Plan((), (finding,), (Mark("~", title, "lost"),))
    findings = []
    if request.wants_failover and facts.server.version >= FAILOVER_SLOTS and not slot.is_failover:
        text = f"slot '{slot.name}' is not copied to standbys: after a failover it is missing, which is a gap"
        fix = (
            f'while the daemon is stopped: psql "dbname={facts.server.database} replication=database" -c'
            f" 'ALTER_REPLICATION_SLOT {slot.name} (FAILOVER true)'"
        )
        findings.append(Finding(text, fix, is_problem=False))
    return Plan((), tuple(findings), (Mark("=", title),))


def _slot_creation(facts: Facts, request: Request) -> Step:
    has_failover = request.wants_failover and facts.server.version >= FAILOVER_SLOTS
    more = ", failover => true" if has_failover else ""
    create = sql.SQL("SELECT pg_create_logical_replication_slot({}, 'pgoutput'" + more + ")").format(
        sql.Literal(request.slot)
    )
    note = (
        "a standby keeps a copy of it only with sync_replication_slots = on, hot_standby_feedback = on, a"
        " primary_slot_name, and dbname in primary_conninfo; the primary should name that slot in"
        " synchronized_standby_slots. Without a standby the flag does nothing"
    )
    why = "after the publication; from here on WAL is kept for the daemon"
    mark = Mark("+", f"slot {request.slot}", "with failover" if has_failover else "")
    return Step(Purpose.SLOT, (create,), why, note=note if has_failover else "", marks=(mark,))


def _advice(facts: Facts, provider: Provider) -> Plan:
    if facts.server.max_slot_wal_keep_size != "-1":
        return Plan(())
    why = "now -1: a stopped daemon can fill the primary's disk; beyond this size the slot is given up instead"
    way = WAYS[provider].limit_wal
    if way is not None:  # ALTER SYSTEM is for superusers, and there are none
        return Plan((), (Finding(f"max_slot_wal_keep_size is {why}", way, is_problem=False),))
    setting = sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(sql.Literal(KEEP_SIZE))
    return Plan((Step(Purpose.SERVER, (setting, RELOAD), why, is_advice=True),))
