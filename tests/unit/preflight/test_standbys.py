"""Findings about failover slots and the standbys that keep copies of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from invalidator.postgres.catalog import Server
from tests.support.preflight import POSTS, SERVER, SLOT, codes, examined, facts, only

RULE = """\
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{id}"]}
"""
ONE = frozenset({"one"})
FOLLOWED = replace(SERVER, standby_slots=ONE, connected_standby_slots=ONE)
READY = replace(FOLLOWED, awaited_standby_slots=ONE)
STANDBY = replace(SERVER, is_standby=True)
FAILOVER = replace(SLOT, is_failover=True)


@pytest.mark.parametrize(
    ("server", "is_failover", "expected"),
    [
        (SERVER, False, []),
        (SERVER, True, []),
        (READY, True, []),
        (FOLLOWED, False, ["slot-not-failover"]),
        (FOLLOWED, True, ["standby-not-awaited"]),
        (replace(SERVER, awaited_standby_slots=ONE), True, ["standby-away"]),
        (replace(SERVER, awaited_standby_slots=ONE), False, []),
        (replace(SERVER, awaited_standby_slots=ONE, standby_slots=ONE), True, ["standby-away"]),
        (replace(FOLLOWED, version=160004), False, []),
    ],
)
def test_what_primary_and_standby_do_not_agree_on_is_told(
    server: Server, is_failover: bool, expected: list[str]
) -> None:
    assert codes(RULE, facts(POSTS, server=server, slot=replace(SLOT, is_failover=is_failover))) == expected


def test_a_standby_that_holds_the_stream_up_is_an_error_whose_fix_leaves_the_others_awaited() -> None:
    server = replace(READY, awaited_standby_slots=frozenset({"one", "gone"}))
    found = only(examined(RULE, facts(POSTS, server=server, slot=FAILOVER)), "standby-away").diagnostic

    assert found.severity == "error"
    assert "gone" in found.message
    assert found.fix == "ALTER SYSTEM SET synchronized_standby_slots = 'one';\nSELECT pg_reload_conf();"


def test_a_standby_is_added_to_those_that_are_awaited() -> None:
    server = replace(READY, connected_standby_slots=frozenset({"one", "two"}))
    found = only(examined(RULE, facts(POSTS, server=server, slot=FAILOVER)), "standby-not-awaited").diagnostic

    assert found.fix == "ALTER SYSTEM SET synchronized_standby_slots = 'one, two';\nSELECT pg_reload_conf();"


@pytest.mark.parametrize(
    ("synced", "temporary", "is_told"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_a_standby_is_asked_for_a_copy_that_a_promotion_would_keep(
    synced: bool, temporary: bool, is_told: bool
) -> None:
    slot = replace(FAILOVER, is_synced=synced, is_temporary=temporary)
    assert ("slot-not-synced" in codes(RULE, facts(POSTS, server=STANDBY, slot=slot))) is is_told


def test_a_standby_without_a_copy_is_told_which_settings_are_off() -> None:
    server = replace(STANDBY, unset_for_slot_sync=frozenset({"sync_replication_slots"}))
    found = examined(RULE, facts(POSTS, server=server, slot=None))

    assert only(found, "slot-not-synced").diagnostic.fix == (
        "ALTER SYSTEM SET sync_replication_slots = 'on';\nSELECT pg_reload_conf();"
    )
    assert "slot-missing" not in [each.code for each in found], "nobody makes a slot there"
