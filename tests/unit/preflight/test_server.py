from __future__ import annotations

from dataclasses import replace

import pytest

from invalidator.postgres.catalog import Slot
from tests.support.preflight import POSTS, ROLE, SERVER, SLOT, codes, examined, facts, only

RULE = """\
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{id}"]}
"""


def test_a_server_that_decodes_nothing_is_an_error_with_the_setting_to_change() -> None:
    found = only(examined(RULE, facts(POSTS, server=replace(SERVER, wal_level="replica"))), "wal-level").diagnostic
    assert found.fix is not None
    assert found.fix.startswith("ALTER SYSTEM SET wal_level = 'logical';")
    assert found.file == "source.dsn"


def test_a_standby_and_an_old_server_cannot_be_read_from() -> None:
    assert "server-is-standby" in codes(RULE, facts(POSTS, server=replace(SERVER, is_standby=True)))
    assert "server-too-old" in codes(RULE, facts(POSTS, server=replace(SERVER, version=130002)))


def test_unbounded_wal_is_a_warning() -> None:
    found = only(examined(RULE, facts(POSTS, server=replace(SERVER, max_slot_wal_keep_size="-1"))), "wal-keep-size")
    assert found.diagnostic.severity == "warning"


def test_settings_are_mended_by_statements_that_no_transaction_can_hold_on_lines_of_their_own() -> None:
    found = only(examined(RULE, facts(POSTS, server=replace(SERVER, max_slot_wal_keep_size="-1"))), "wal-keep-size")
    assert (found.diagnostic.fix or "").splitlines() == [
        "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB';",
        "SELECT pg_reload_conf();",
    ]


@pytest.mark.parametrize(("version", "more"), [(180001, ", failover => true"), (160001, "")])
def test_the_slot_is_made_as_setup_makes_it(version: int, more: str) -> None:
    of = facts(POSTS, slot=None, server=replace(SERVER, version=version))
    fix = only(examined(RULE, of), "slot-missing").diagnostic.fix
    assert fix == f"SELECT pg_create_logical_replication_slot('invalidator', 'pgoutput'{more});"


@pytest.mark.parametrize(
    ("slot", "code"),
    [
        (None, "slot-missing"),
        (replace(SLOT, plugin="wal2json"), "slot-wrong-plugin"),
        (replace(SLOT, plugin=None), "slot-wrong-plugin"),
        (replace(SLOT, database="other"), "slot-wrong-database"),
        (replace(SLOT, wal_status="lost"), "slot-lost"),
    ],
)
def test_a_slot_that_cannot_be_streamed_from_is_an_error(slot: Slot | None, code: str) -> None:
    found = examined(RULE, facts(POSTS, slot=slot))
    assert [(each.code, each.diagnostic.severity, each.subject) for each in found] == [(code, "error", "invalidator")]


def test_a_role_needs_the_replication_privilege_or_what_the_provider_has_instead() -> None:
    of = replace(facts(POSTS), role=replace(ROLE, can_replicate=False))
    assert only(examined(RULE, of), "no-replication-privilege").diagnostic.fix == 'ALTER ROLE "inv" REPLICATION;'
    rds = replace(of, database=replace(of.database, server=replace(SERVER, has_rds_replication=True)))
    fix = only(examined(RULE, rds), "no-replication-privilege").diagnostic.fix
    assert fix == 'GRANT rds_replication TO "inv";'
    assert codes(RULE, replace(of, role=replace(ROLE, can_replicate=False, is_superuser=True))) == []


def test_a_schema_file_says_nothing_of_server_and_slot() -> None:
    of = facts(POSTS, slot=None, server=replace(SERVER, wal_level="replica"))
    assert codes(RULE, replace(of, is_live=False)) == []
