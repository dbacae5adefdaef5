"""State becomes Prometheus metrics at the moment of a scrape: nothing is exposed that is not in the catalogue."""

from __future__ import annotations

import itertools
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, exposition
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from invalidator.model import GapReason, Operation
from invalidator.telemetry import catalogue, label_values
from invalidator.telemetry.ages import staleness_seconds
from invalidator.telemetry.catalogue import Family
from invalidator.telemetry.problems import CODES, problems
from invalidator.telemetry.state import Histogram, Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import JournalState, RuleState, SourceState, State, TargetState

Format = Literal["text", "openmetrics"]

CONTENT_TYPES: Final[dict[Format, str]] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": openmetrics.CONTENT_TYPE_LATEST,
}


class StateCollector(Collector):
    """The metric families of one state, read when they are asked for.

    Args:
        state: the figures.
        clock: unix seconds.
    """

    def __init__(self, state: State, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """A consistent snapshot: nothing else runs in the event loop while it is taken."""
        sheet = _Sheet()
        now = self._clock()
        _freshness(sheet, self._state, now)
        _source(sheet, self._state.source)
        _events(sheet, self._state)
        for rule in self._state.rules.values():
            _rule(sheet, rule)
        for target in self._state.targets.values():
            _target(sheet, target)
            if target.journal is not None:
                _journal(sheet, target.name, target.journal, now)
        _process(sheet, self._state)
        return sheet.families()


class Snapshot(Collector):
    """Families that were collected before, to be rendered elsewhere."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """The families."""
        return self._families


_client_library = CollectorRegistry()
ProcessCollector(registry=_client_library)
PlatformCollector(registry=_client_library)
GCCollector(registry=_client_library)


def render(snapshot: Snapshot, form: Format) -> bytes:
    """The exposition of a snapshot and of the client library's own families; may run in any thread."""
    everything = Snapshot(itertools.chain(snapshot.collect(), _client_library.collect()))
    if form == "openmetrics":
        rendered: bytes = openmetrics.generate_latest(everything)  # type: ignore[no-untyped-call]
        return rendered
    return exposition.generate_latest(everything)


class _Sheet:
    """The catalogue's families while they are filled."""

    def __init__(self) -> None:
        self._families = {name: _empty(family) for name, family in catalogue.FAMILIES.items()}

    def put(self, name: str, value: float, *labels: str) -> None:
        family = self._families[name]
        assert not isinstance(family, HistogramMetricFamily)  # noqa: S101  (the catalogue says which is which)
        family.add_metric(labels, value)

    def histogram(self, name: str, histogram: Histogram, *labels: str) -> None:
        family = self._families[name]
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
        family.add_metric(labels, buckets, histogram.total)

    def families(self) -> Iterable[Metric]:
        return self._families.values()


def _empty(family: Family) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match family.kind:
        case "counter":
            return CounterMetricFamily(family.name, family.help, labels=family.labels)
        case "gauge":
            return GaugeMetricFamily(family.name, family.help, labels=family.labels)
        case "histogram":
            return HistogramMetricFamily(family.name, family.help, labels=family.labels)


def _freshness(sheet: _Sheet, state: State, now: float) -> None:
    source = state.source
    slot = source.slot
    sheet.put("invalidator_staleness_seconds", staleness_seconds(state, now), slot)
    sheet.put("invalidator_heartbeat_last_sent_timestamp_seconds", source.heartbeat_sent, slot)
    sheet.put("invalidator_heartbeat_last_delivered_timestamp_seconds", source.heartbeat_delivered, slot)
    sheet.put("invalidator_clock_offset_seconds", source.clock_offset_seconds, slot)
    counts = dict.fromkeys(CODES, 0)
    for problem in problems(state, now):
        counts[problem.code] += 1
    for code, count in counts.items():
        sheet.put("invalidator_problems", count, code)
    every = (each for group in state.findings.values() for each in group)
    found: Counter[tuple[str, str]] = Counter((each.code, each.severity) for each in every)
    for finding, severity in sorted(state.findings_seen):
        sheet.put("invalidator_findings", found[finding, severity], finding, severity)


def _source(sheet: _Sheet, source: SourceState) -> None:
    slot = source.slot
    for role in Role:
        sheet.put("invalidator_role", source.role is role, role)
    sheet.put("invalidator_stream_connected", source.role is Role.STREAMING, slot)
    for reason in _known(label_values.RECONNECT_REASONS, source.reconnects):
        sheet.put("invalidator_stream_reconnects_total", source.reconnects[reason], slot, reason)
    for reason in _known(GapReason, source.gaps):
        sheet.put("invalidator_gaps_total", source.gaps[reason], slot, reason)
    sheet.put("invalidator_repairs_pending", source.repairs_pending, slot)
    sheet.put("invalidator_received_bytes_total", source.received_bytes, slot)
    sheet.put("invalidator_transactions_total", source.transactions, slot)
    positions = (
        source.server_position,
        source.received_position,
        source.applied_position,
        source.confirmed_position,
    )
    for point, position in zip(label_values.WAL_POINTS, positions, strict=True):
        sheet.put("invalidator_wal_position_bytes", position, slot, point)
    for result in label_values.NOTIFICATION_RESULTS:
        sheet.put("invalidator_notifications_total", source.notifications.counts[result], slot, result)
    if source.notification_queue_usage is not None:
        sheet.put("invalidator_notification_queue_ratio", source.notification_queue_usage, slot)
    _slot(sheet, source)


def _slot(sheet: _Sheet, source: SourceState) -> None:
    slot = source.slot
    sheet.put("invalidator_slot_active", source.slot_active, slot)
    figures = {
        "invalidator_slot_retained_wal_bytes": source.slot_retained_wal_bytes,
        "invalidator_slot_unconfirmed_wal_bytes": source.slot_unconfirmed_wal_bytes,
        "invalidator_slot_safe_wal_bytes": source.slot_safe_wal_bytes,
    }
    for name, figure in figures.items():
        if figure is not None:  # the server has no such figure (yet), and 0 would raise an alarm
            sheet.put(name, figure, slot)
    for status in label_values.WAL_STATUSES:
        sheet.put("invalidator_slot_wal_status", source.slot_wal_status == status, slot, status)


def _events(sheet: _Sheet, state: State) -> None:
    # In the order of arrival, so that a series never changes between its own name and "other".
    tables = list(state.tables.values())
    for table in tables[: label_values.MAX_TABLES]:
        for operation in Operation:
            sheet.put("invalidator_events_total", table.rows[operation], table.name, operation)
    others = tables[label_values.MAX_TABLES :]
    if others:
        for operation in Operation:
            rows = sum(table.rows[operation] for table in others)
            sheet.put("invalidator_events_total", rows, "other", operation)
    unchanged = sum(rule.unchanged for rule in state.rules.values())
    for reason, count in zip(label_values.SKIP_REASONS, (state.source.rows_without_rule, unchanged), strict=True):
        sheet.put("invalidator_events_skipped_total", count, reason)
    for result in label_values.MESSAGE_RESULTS:
        sheet.put("invalidator_messages_total", state.source.messages.counts[result], result)


def _rule(sheet: _Sheet, rule: RuleState) -> None:
    for operation in Operation:
        sheet.put("invalidator_rule_matches_total", rule.matches[operation], rule.name, operation)
    sheet.put("invalidator_rule_null_skips_total", rule.null_skips, rule.name)
    sheet.put("invalidator_rule_condition_false_total", rule.condition_false, rule.name)
    for reason in _known(label_values.RULE_ERROR_REASONS, rule.errors):
        sheet.put("invalidator_rule_errors_total", rule.errors[reason], rule.name, reason)
    for reason in _known(label_values.WIDEN_REASONS, rule.widened):
        sheet.put("invalidator_widened_total", rule.widened[reason], rule.name, reason)
    if rule.has_lookup:
        for result in label_values.LOOKUP_RESULTS:
            sheet.put("invalidator_lookups_total", rule.lookups[result], rule.name, result)
        sheet.histogram("invalidator_lookup_duration_seconds", rule.lookup_duration, rule.name)


def _target(sheet: _Sheet, target: TargetState) -> None:
    name = target.name
    required = "true" if target.required else "false"
    sheet.put("invalidator_target_info", 1, name, target.type, target.layer, required)
    for result in _known(label_values.RESULTS, target.deliveries):
        sheet.put("invalidator_deliveries_total", target.deliveries[result], name, result)
    for kind in _known(label_values.ITEM_KINDS, target.delivered_items):
        sheet.put("invalidator_delivered_items_total", target.delivered_items[kind], name, kind)
    sheet.histogram("invalidator_invalidation_duration_seconds", target.duration, name)
    sheet.histogram("invalidator_delivery_duration_seconds", target.delivery_duration, name)
    sheet.put("invalidator_removed_items_total", target.removed_items, name)
    sheet.put("invalidator_abandoned_items_total", target.abandoned_items, name)
    sheet.put("invalidator_widened_items_total", target.widened_items, name)
    sheet.put("invalidator_retries_total", target.retries, name)
    sheet.put("invalidator_rate_limit_wait_seconds_total", target.rate_limit_wait_seconds, name)
    sheet.put("invalidator_debt_since_timestamp_seconds", target.debt_since or 0, name)
    sheet.put("invalidator_queue_items", target.pending_items, name)
    sheet.put("invalidator_queue_limit_items", target.pending_limit, name)
    sheet.put("invalidator_inflight_deliveries", target.in_flight, name)
    sheet.put("invalidator_repeats_pending", target.repeats_pending, name)
    if target.receivers is not None:
        sheet.put("invalidator_l1_receivers", target.receivers, name)


def _journal(sheet: _Sheet, target: str, journal: JournalState, now: float) -> None:
    sheet.put("invalidator_journal_usable", journal.unusable is None, target)
    sheet.put("invalidator_journal_items", journal.items, target)
    sheet.put("invalidator_journal_limit_items", journal.limit, target)
    age = 0.0 if journal.oldest is None else max(0.0, now - journal.oldest)
    sheet.put("invalidator_journal_oldest_age_seconds", age, target)
    sheet.put("invalidator_journal_repeats", journal.repeats, target)
    sheet.put("invalidator_journal_taken_items_total", journal.taken_items, target)
    for step in _known(label_values.JOURNAL_STEPS, journal.escalations):
        sheet.put("invalidator_journal_escalations_total", journal.escalations[step], target, step)


def _process(sheet: _Sheet, state: State) -> None:
    loaded = state.rules_loaded
    sheet.put("invalidator_build_info", 1, state.version, platform.python_version())
    if loaded.hash:
        sheet.put("invalidator_config_info", 1, loaded.hash)
    sheet.put("invalidator_config_rules", loaded.count)
    sheet.put("invalidator_config_last_reload_successful", loaded.refused is None)
    for result in label_values.RELOAD_RESULTS:
        sheet.put("invalidator_config_reloads_total", loaded.reloads[result], result)
    sheet.put("invalidator_config_loaded_timestamp_seconds", loaded.loaded_at)
    sheet.histogram("invalidator_event_loop_lag_seconds", state.loop_lag)
    for level in _known(label_values.LOG_LEVELS, state.log_messages):
        sheet.put("invalidator_log_messages_total", state.log_messages[level], level)


def _known(names: Iterable[str], counted: Iterable[str]) -> Iterator[str]:
    """What is known in advance, then what was counted besides."""
    return iter(dict.fromkeys([*map(str, names), *map(str, counted)]))
