"""The answer of /status: how it goes, what is wrong and what to type; no row values, no secrets."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

from invalidator.model import Lsn
from invalidator.telemetry.ages import heartbeat_age_seconds, staleness_seconds
from invalidator.telemetry.health import is_ready
from invalidator.telemetry.label_values import MAX_TABLES
from invalidator.telemetry.problems import Problem, problems
from invalidator.telemetry.redaction import redact

if TYPE_CHECKING:
    from invalidator.telemetry.state import Histogram, JournalState, OldestTransaction, RuleState, State, TargetState

Json = dict[str, Any]


def status(state: State, now: float) -> Json:
    """Everything that an operator asks, ready for ``json.dumps``; times are ISO 8601 in UTC, ``_s`` is seconds."""
    loaded = state.rules_loaded
    return {
        "version": state.version,
        "started_at": iso(state.started_at),
        "uptime_s": round(max(0.0, now - state.started_at), 1) if state.started_at else None,
        "role": state.source.role,
        "ready": is_ready(state, now),
        "rules": {
            "hash": loaded.hash,
            "count": loaded.count,
            "loaded_at": iso(loaded.loaded_at),
            "by_name": {rule.name: _rule(rule) for rule in state.rules.values()},
        },
        "source": _source(state, now),
        "tables": {table.name: dict(table.rows) for table in list(state.tables.values())[:MAX_TABLES]},
        "targets": {target.name: _target(target, now) for target in state.targets.values()},
        "problems": [problem_json(problem) for problem in problems(state, now)],
    }


def problem_json(problem: Problem) -> Json:
    """One problem as /status shows it."""
    return {
        "since": iso(problem.since),
        "severity": problem.severity,
        "code": problem.code,
        "subject": problem.subject,
        "text": problem.text,
        "fix": problem.fix,
    }


def iso(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC; None for what has not happened."""
    if not seconds:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _source(state: State, now: float) -> Json:
    source = state.source
    age = heartbeat_age_seconds(state, now)
    return {
        "slot": source.slot,
        "server": source.server_version,
        "received": str(Lsn(source.received_position)),
        "applied": str(Lsn(source.applied_position)),
        "confirmed": str(Lsn(source.confirmed_position)),
        "staleness_s": round(staleness_seconds(state, now), 4),
        "heartbeat_age_s": None if age is None else round(age, 1),
        "clock_offset_s": round(source.clock_offset_seconds, 4),
        "transactions": source.transactions,
        "received_bytes": source.received_bytes,
        "reconnects": source.reconnects.total(),
        "retained_wal_bytes": source.slot_retained_wal_bytes,
        "unconfirmed_wal_bytes": source.slot_unconfirmed_wal_bytes,
        "oldest_transaction": _oldest(source.oldest_transaction),
        "safe_wal_bytes": source.slot_safe_wal_bytes,
        "wal_status": source.slot_wal_status,
        "last_error": None if source.last_error is None else redact(source.last_error),
    }


def _oldest(oldest: OldestTransaction | None) -> Json | None:
    if oldest is None:
        return None
    return {
        "pid": oldest.pid,
        "prepared_as": oldest.prepared_as,
        "age_s": round(oldest.seconds, 1),
        "state": oldest.state,
        "database": oldest.database,
    }


def _rule(rule: RuleState) -> Json:
    return {
        "matches": sum(rule.matches.values()),
        "unchanged": rule.unchanged,
        "condition_false": rule.condition_false,
        "widened": {reason: count for reason, count in rule.widened.items() if count},
        "errors": {reason: count for reason, count in rule.errors.items() if count},
    }


def _target(target: TargetState, now: float) -> Json:
    return {
        "ok": target.failing_since is None,
        "type": target.type,
        "layer": target.layer,
        "required": target.required,
        "p50_ms": _milliseconds(target.delivery_duration, 0.5),
        "p99_ms": _milliseconds(target.delivery_duration, 0.99),
        "fresh_p50_ms": _milliseconds(target.duration, 0.5),
        "fresh_p99_ms": _milliseconds(target.duration, 0.99),
        "queue": target.pending_items,
        "delivered": dict(target.delivered_items),
        "removed": target.removed_items,
        "retries": target.retries,
        "widened": target.widened_items,
        "abandoned": target.abandoned_items,
        "repeats_pending": target.repeats_pending,
        "receivers": target.receivers,
        "journal": None if target.journal is None else _journal(target.journal, now),
        "failing_since": iso(target.failing_since),
        "last_error": None if target.last_error is None else redact(target.last_error),
    }


def _journal(journal: JournalState, now: float) -> Json:
    return {
        "usable": journal.unusable is None,
        "items": journal.items,
        "limit": journal.limit,
        "oldest_s": None if journal.oldest is None else round(max(0.0, now - journal.oldest), 1),
        "repeats": journal.repeats,
        "taken": journal.taken_items,
        "escalations": dict(journal.escalations),
        "last_error": journal.unusable,
    }


def _milliseconds(histogram: Histogram, share: float) -> float | None:
    """The bucket's upper bound; None without values, and beyond the last bucket, where nothing is known."""
    seconds = histogram.quantile(share)
    return None if seconds is None or math.isinf(seconds) else round(seconds * 1000, 3)
