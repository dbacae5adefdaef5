"""A state as a daemon has it that has worked for an hour."""

from __future__ import annotations

from invalidator.model import Applied, Lsn, Operation
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import FindingState, JournalState, RuleState, State, TableState, TargetState

NOW = 1_700_003_600.0
STARTED = NOW - 3600


def busy_state(now: float = NOW) -> State:
    """Streaming, three targets, two rules, everything healthy at ``now``."""
    state = State()
    for name, kind, layer, required in (
        ("redis", "redis_keys", "L2", True),
        ("bus", "redis_bus", "L1", True),
        ("edge", "fastly", "L3", False),
    ):
        state.targets[name] = TargetState(name, type=kind, layer=layer, required=required, pending_limit=100_000)
    for name in ("user", "post"):
        state.rules[name] = RuleState(name)
    state.tables["public.users"] = TableState("public.users")
    state.targets["edge"].journal = JournalState(100_000, items=3, taken_items=15)
    events = Events(state, lambda: now - 3600)
    state.source.slot = "shop"
    events.daemon_started(version="0.1.0", facts={})
    events.rules_loaded(rules_hash="8f3c2a91d04e", count=2)
    events.stream_connected(position=Lsn(100), server_version="16.4")
    known = FindingState("wal-keep-size", "warning", "shop", "no bound", "ALTER SYSTEM …", urgency=None)
    events.findings_checked("database", [known])
    _work(state, events, now)
    return state


def _work(state: State, events: Events, now: float) -> None:
    source = state.source
    source.received_bytes, source.transactions, source.rows_without_rule = 123_456, 17, 5
    source.server_position, source.received_position = 4000, 3000
    source.applied_position, source.confirmed_position = 2000, 1000
    source.notification_queue_usage = 0.001
    source.heartbeat_sent = now - 3
    source.slot_active = True
    source.slot_retained_wal_bytes, source.slot_unconfirmed_wal_bytes = 1_153_434, 3000
    source.slot_safe_wal_bytes, source.slot_wal_status = 20_293_000_000, "reserved"
    events.heartbeat_delivered(sent_at=now - 3)
    state.tables["public.users"].rows[Operation.UPDATE] = 41
    state.rules["user"].matches[Operation.UPDATE] = 40
    state.rules["user"].unchanged = 1
    state.rules["user"].has_lookup = True
    state.rules["user"].lookups["ok"] = 3
    state.rules["user"].lookup_duration.observe(0.002)
    state.rules["user"].widened["truncate"] = 2
    events.batch_applied("redis", Applied(keys=80, tags=3, removed=30), seconds=0.0009, age_seconds=0.002)
    events.batch_applied("bus", Applied(patterns=40, receivers=2), seconds=0.0004, age_seconds=0.003)
    events.batch_applied("edge", Applied(cdn_tags=12), seconds=0.2, age_seconds=0.21)
