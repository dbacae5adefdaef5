"""A database made by hand for the checks: small facts that a test changes where it must."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from invalidator.postgres import provision
from invalidator.postgres.catalog import Column, Index, Publication, PublishedTable, Role, Server, Slot, Table
from invalidator.preflight.examine import examine
from invalidator.preflight.facts import Facts
from invalidator.preflight.finding import Finding
from invalidator.preflight.needs import needs
from invalidator.rules import document

SERVER = Server(
    version=180001,
    database="app",
    user="inv",
    is_superuser=False,
    is_standby=False,
    encoding="UTF8",
    wal_level="logical",
    max_slot_wal_keep_size="20GB",
    max_replication_slots=10,
    max_wal_senders=10,
    has_rds_replication=False,
)
ROLE = Role("inv", can_login=True, can_replicate=True, is_superuser=False, can_connect=True)
SLOT = Slot(
    "invalidator",
    "pgoutput",
    "app",
    is_temporary=False,
    active_pid=None,
    restart_lsn=None,
    confirmed_flush_lsn=None,
    wal_status="reserved",
    safe_wal_bytes=None,
)
EVERYTHING = frozenset({"insert", "update", "delete", "truncate"})


def column(name: str, type_name: str = "integer", **other: Any) -> Column:
    """A column that may not be NULL."""
    values: dict[str, Any] = {"type_oid": 23, "is_not_null": True, "generated": ""}
    return Column(name=name, type_name=type_name, **values | other)


def table(name: str, columns: Sequence[Column], *, oid: int = 1, key: Sequence[str] = ("id",), **other: Any) -> Table:
    """A table of schema public with a primary key, unless ``key`` is empty."""
    indexes = (Index(f"{name}_pkey", tuple(key), is_primary=True, is_replica_identity=False),) if key else ()
    values: dict[str, Any] = {
        "kind": "r",
        "is_permanent": True,
        "root_oid": None,
        "replica_identity": "d",
        "has_children": False,
        "indexes": indexes,
    }
    return Table(oid=oid, schema="public", name=name, columns=tuple(columns), **values | other)


POSTS = table("posts", [column("id"), column("slug", "text"), column("body", "text", is_toastable=True)])


def publication(*tables: Table | PublishedTable, **other: Any) -> Publication:
    """One that sends everything of these tables."""
    entries = tuple(
        each if isinstance(each, PublishedTable) else PublishedTable(each.oid, None, has_row_filter=False)
        for each in tables
    )
    values: dict[str, Any] = {
        "owner": "owner",
        "is_for_all_tables": False,
        "operations": EVERYTHING,
        "is_via_root": False,
        "sends_generated": True,
        "schemas": frozenset(),
    }
    return Publication(name="invalidator", tables=entries, **values | other)


def facts(
    *tables: Table, published: Publication | None = None, server: Server = SERVER, slot: Slot | None = SLOT
) -> Facts:
    """A database with these tables, all of them published unless a publication is given."""
    made = publication(*(each for each in tables if each.root_oid is None)) if published is None else published
    database = provision.Facts(server, None, tables, {made.name: made}, slot)
    return Facts(database, provision.Request("invalidator", "invalidator", role=None), role=ROLE)


def without_publication(of: Facts) -> Facts:
    """The same database, before anybody made a publication."""
    return replace(of, database=replace(of.database, publications={}))


def _loaded(rules: str) -> document.Loaded:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text("version: 1\nrules:\n" + rules)
        return document.load_with_warnings([path])


def needs_of(rules: str) -> tuple[provision.Need, ...]:
    """What the rules need, given as the entries of ``rules:``."""
    return needs(_loaded(rules).ruleset.rules)


def examined(rules: str, of: Facts, **options: Any) -> list[Finding]:
    """What the checks say about rules, given as the entries of ``rules:``."""
    loaded = _loaded(rules)
    return examine(loaded.ruleset, loaded.sources, of, **options)


def codes(rules: str, of: Facts, **options: Any) -> list[str]:
    """The codes of what is said, but for what is worth knowing only."""
    return [each.code for each in examined(rules, of, **options) if each.diagnostic.severity != "info"]


def only(findings: Sequence[Finding], code: str) -> Finding:
    """The one finding with this code."""
    (found,) = [each for each in findings if each.code == code]
    return found
