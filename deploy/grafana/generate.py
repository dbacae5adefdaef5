"""The dashboard as a table; ``python deploy/grafana/generate.py`` writes dashboards/invalidator.json from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

FILE = Path(__file__).parent / "dashboards" / "invalidator.json"
COLUMNS = 24

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One picture.

    ``queries`` is expression -> legend; ``steps`` is threshold -> colour, green below the first.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["stat", "timeseries", "bargauge", "table", "state-timeline"] = "timeseries"
    width: int = 8
    height: int = 7
    help: str = ""
    steps: dict[float, str] = field(default_factory=dict)
    stacked: bool = False
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    """One question; all rows but the first are folded."""

    title: str
    panels: tuple[Panel, ...]


RATE = "[$__rate_interval]"
FRESH = 'invalidator_invalidation_duration_seconds_bucket{target=~"$target"}'
DELIVERY = 'invalidator_delivery_duration_seconds_bucket{target=~"$target"}'
OURS = "and on (job, instance) invalidator_build_info"


def quantile(share: float, buckets: str, by: str = "le") -> str:
    """The quantile of a histogram over all replicas."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({buckets}{RATE})))"


def total(counter: str, by: str) -> str:
    """A rate over all replicas."""
    return f"sum by ({by}) (rate({counter}{RATE}))"


ROWS = (
    Row(
        "Are caches fresh?",
        (
            Panel(
                "Staleness",
                {'max(invalidator_staleness_seconds{slot=~"$slot"})': ""},
                "s",
                "stat",
                4,
                5,
                "Age of the oldest committed change that is not applied to every target; 0 when none is pending.",
                {1: "orange", 5: "red"},
            ),
            Panel(
                "Commit to invalidated, p99",
                {quantile(0.99, FRESH): ""},
                "s",
                "stat",
                4,
                5,
                steps={0.1: "orange", 1: "red"},
            ),
            Panel(
                "Heartbeat",
                {'time() - max(invalidator_heartbeat_last_delivered_timestamp_seconds{slot=~"$slot"})': ""},
                "s",
                "stat",
                4,
                5,
                "Since the newest one that came through Postgres and every required target was sent.",
                {30: "orange", 120: "red"},
            ),
            Panel(
                "Problems",
                {'sum(invalidator_problems{code!="standby"})': ""},
                "short",
                "stat",
                4,
                5,
                "GET /status lists them with their fixes.",
                {1: "red"},
            ),
            Panel(
                "Streaming",
                {
                    'sum(invalidator_stream_connected{slot=~"$slot"})': "streaming",
                    'sum(invalidator_role{role="standby"})': "standing by",
                },
                "short",
                "stat",
                4,
                5,
                "Processes.",
            ),
            Panel(
                "Given up (1 h)",
                {'sum(increase(invalidator_abandoned_items_total{target=~"$target"}[1h]))': ""},
                "short",
                "stat",
                4,
                5,
                "Items that best-effort targets may serve stale.",
                {1: "orange"},
            ),
            Panel(
                "Commit to invalidated",
                {quantile(share, FRESH): f"p{share * 100:g}" for share in (0.5, 0.95, 0.99)},
                "s",
                width=12,
            ),
            Panel(
                "Invalidated within a second",
                {
                    "sum(rate(invalidator_invalidation_duration_seconds_bucket"
                    f'{{target=~"$target", le="1.0"}}{RATE})) / '
                    f'sum(rate(invalidator_invalidation_duration_seconds_count{{target=~"$target"}}{RATE}))': "share"
                },
                "percentunit",
                width=6,
                maximum=1,
                help="The service level: what share burns.",
            ),
            Panel(
                "Problems by code",
                {"sum by (code) (invalidator_problems) > 0": "{{code}}"},
                width=6,
                stacked=True,
            ),
        ),
    ),
    Row(
        "Source",
        (
            Panel("Rows by table", {total("invalidator_events_total", "table"): "{{table}}"}, "rowsps", stacked=True),
            Panel(
                "Rows by operation and rows without effect",
                {
                    total("invalidator_events_total", "op"): "{{op}}",
                    total("invalidator_events_skipped_total", "reason"): "skipped: {{reason}}",
                },
                "rowsps",
            ),
            Panel(
                "Change stream",
                {total('invalidator_received_bytes_total{slot=~"$slot"}', "slot"): "{{slot}}"},
                "Bps",
            ),
            Panel("Transactions", {total('invalidator_transactions_total{slot=~"$slot"}', "slot"): "{{slot}}"}, "ops"),
            Panel(
                "Behind, in WAL",
                {
                    'max by (slot) (invalidator_wal_position_bytes{slot=~"$slot", point="server"}) - '
                    f'max by (slot) (invalidator_wal_position_bytes{{slot=~"$slot", point="{point}"}})': (
                        f"{{{{slot}}}} {point}"
                    )
                    for point in ("received", "applied", "confirmed")
                },
                "bytes",
            ),
            Panel(
                "WAL kept for the slot",
                {
                    'max by (slot) (invalidator_slot_retained_wal_bytes{slot=~"$slot"})': "{{slot}} kept",
                    'max by (slot) (invalidator_slot_unconfirmed_wal_bytes{slot=~"$slot"})': "{{slot}} not confirmed",
                    'min by (slot) (invalidator_slot_safe_wal_bytes{slot=~"$slot"})': "{{slot}} left until it is lost",
                },
                "bytes",
            ),
            Panel(
                "Who streams",
                {'max by (slot, instance) (invalidator_stream_connected{slot=~"$slot"})': "{{slot}} {{instance}}"},
                kind="state-timeline",
                steps={1: "blue"},
            ),
            Panel(
                "Slot in use and its state",
                {
                    'max by (slot) (invalidator_slot_active{slot=~"$slot"})': "{{slot}} active",
                    'max by (slot, status) (invalidator_slot_wal_status{slot=~"$slot"}) == 1': "{{slot}} {{status}}",
                },
                kind="state-timeline",
                steps={1: "blue"},
            ),
            Panel(
                "Gaps and what waits to be dropped after one",
                {
                    f'sum by (reason) (increase(invalidator_gaps_total{{slot=~"$slot"}}{RATE}))': "{{reason}}",
                    'sum(invalidator_repairs_pending{slot=~"$slot"})': "coarse forms that wait",
                    "sum(invalidator_debt_since_timestamp_seconds > bool 0)": "targets in debt",
                },
            ),
            Panel(
                "Reconnects",
                {
                    f'sum by (reason) (increase(invalidator_stream_reconnects_total{{slot=~"$slot"}}{RATE}))': (
                        "{{reason}}"
                    )
                },
            ),
        ),
    ),
    Row(
        "Rules",
        (
            Panel(
                "Fired (top 10)",
                {f'topk(10, {total("""invalidator_rule_matches_total{rule=~"$rule"}""", "rule")})': "{{rule}}"},
                "rowsps",
            ),
            Panel(
                "Widened",
                {total('invalidator_widened_total{rule=~"$rule"}', "rule, reason") + " > 0": "{{rule}}: {{reason}}"},
                "ops",
                help="The coarse form instead of the exact one: nothing stale, but more than needed is dropped.",
            ),
            Panel(
                "Errors",
                {
                    total('invalidator_rule_errors_total{rule=~"$rule"}', "rule, reason")
                    + " > 0": "{{rule}}: {{reason}}"
                },
                "rowsps",
            ),
            Panel(
                "Left out because of NULL",
                {total('invalidator_rule_null_skips_total{rule=~"$rule"}', "rule") + " > 0": "{{rule}}"},
                "rowsps",
            ),
            Panel(
                "Let pass by a condition",
                {total('invalidator_rule_condition_false_total{rule=~"$rule"}', "rule") + " > 0": "{{rule}}"},
                "rowsps",
                help="Rows for which the rule's `when` did not hold.",
            ),
            Panel(
                "Lookups by result",
                {total('invalidator_lookups_total{rule=~"$rule"}', "rule, result") + " > 0": "{{rule}}: {{result}}"},
                "ops",
                help="Distinct questions. All but ok apply the coarse form.",
            ),
            Panel(
                "Duration of a lookup, p99",
                {quantile(0.99, 'invalidator_lookup_duration_seconds_bucket{rule=~"$rule"}', "le, rule"): "{{rule}}"},
                "s",
                help="With the wait until the change is visible.",
            ),
            Panel(
                "Explicit invalidations",
                {total("invalidator_messages_total", "result") + " > 0": "{{result}}"},
                "ops",
                help="Logical messages of applications; all but applied were refused, whole or in part.",
            ),
            Panel(
                "Notifications",
                {total("invalidator_notifications_total", "result") + " > 0": "{{result}}"},
                "ops",
                help="Heard by a notify source; all but applied widened, or could not be read.",
            ),
            Panel(
                "Notification queue of the server",
                {"max(invalidator_notification_queue_ratio)": "full"},
                "percentunit",
                help="Fills while a session that listens does not read; at 100 % COMMITs that notify fail.",
            ),
            Panel(
                "Entries that were there, per name delivered",
                {
                    f'sum by (target) (rate(invalidator_removed_items_total{{target=~"$target"}}{RATE})) / '
                    f'sum by (target) (rate(invalidator_delivered_items_total{{target=~"$target"}}{RATE}))': (
                        "{{target}}"
                    )
                },
                "percentunit",
                "bargauge",
                help="Always 0: the templates of the rules do not match the keys of the application.",
            ),
        ),
    ),
    Row(
        "Targets: rate, errors, duration",
        (
            Panel(
                "Deliveries", {total('invalidator_deliveries_total{target=~"$target"}', "target"): "{{target}}"}, "ops"
            ),
            Panel(
                "Failed share",
                {
                    f'sum by (target) (rate(invalidator_deliveries_total{{target=~"$target", result!="ok"}}{RATE})) / '
                    f'sum by (target) (rate(invalidator_deliveries_total{{target=~"$target"}}{RATE}))': "{{target}}",
                },
                "percentunit",
                maximum=1,
            ),
            Panel(
                "Failures by result",
                {
                    total('invalidator_deliveries_total{target=~"$target", result!="ok"}', "target, result")
                    + " > 0": "{{target}}: {{result}}"
                },
                "ops",
            ),
            Panel(
                "Duration of a delivery",
                {quantile(share, DELIVERY, "le, target"): f"{{{{target}}}} p{share * 100:g}" for share in (0.5, 0.99)},
                "s",
            ),
            Panel(
                "Items",
                {
                    total('invalidator_delivered_items_total{target=~"$target"}', "target, kind")
                    + " > 0": "{{target}}: {{kind}}"
                },
                "ops",
            ),
            Panel(
                "Waiting items, share of the limit",
                {
                    'max by (target) (invalidator_queue_items{target=~"$target"} / '
                    '(invalidator_queue_limit_items{target=~"$target"} > 0))': "{{target}}"
                },
                "percentunit",
                maximum=1,
            ),
            Panel(
                "In flight and repeats to come",
                {
                    'sum by (target) (invalidator_inflight_deliveries{target=~"$target"})': "{{target}} in flight",
                    'sum by (target) (invalidator_repeats_pending{target=~"$target"})': "{{target}} repeats",
                },
            ),
            Panel(
                "Retries and waiting for rate limits",
                {
                    total('invalidator_retries_total{target=~"$target"}', "target"): "{{target}} retries/s",
                    total(
                        'invalidator_rate_limit_wait_seconds_total{target=~"$target"}', "target"
                    ): "{{target}} s waited per s",
                },
            ),
            Panel(
                "Items for which more was dropped",
                {total('invalidator_widened_items_total{target=~"$target"}', "target"): "{{target}}"},
                "ops",
            ),
            Panel(
                "Journal: tags that wait, share of the limit",
                {
                    'max by (target) (invalidator_journal_items{target=~"$target"} / '
                    'invalidator_journal_limit_items{target=~"$target"})': "{{target}}",
                },
                "percentunit",
            ),
            Panel(
                "Journal: files that cannot be used",
                {'min by (target) (invalidator_journal_usable{target=~"$target"}) == 0': "{{target}}"},
            ),
            Panel(
                "Journal: age of the oldest tag",
                {'max by (target) (invalidator_journal_oldest_age_seconds{target=~"$target"})': "{{target}}"},
                "s",
            ),
            Panel(
                "Journal: taken, to be repeated, widened",
                {
                    total('invalidator_journal_taken_items_total{target=~"$target"}', "target"): "{{target}} taken/s",
                    'sum by (target) (invalidator_journal_repeats{target=~"$target"})': "{{target}} repeats",
                    'sum by (target, step) (increase(invalidator_journal_escalations_total{target=~"$target"}[1h]))': (
                        "{{target}} {{step}} in an hour"
                    ),
                },
            ),
            Panel("L1 subscribers", {'max by (target) (invalidator_l1_receivers{target=~"$target"})': "{{target}}"}),
        ),
    ),
    Row(
        "Process: use, saturation, errors",
        (
            Panel("CPU", {f"rate(process_cpu_seconds_total{RATE}) {OURS}": "{{instance}}"}, "percentunit"),
            Panel("Memory", {f"process_resident_memory_bytes {OURS}": "{{instance}}"}, "bytes"),
            Panel(
                "Event loop lag, p99",
                {quantile(0.99, "invalidator_event_loop_lag_seconds_bucket", "le, instance"): "{{instance}}"},
                "s",
            ),
            Panel(
                "Garbage collections",
                {f"rate(python_gc_collections_total{RATE}) {OURS}": "{{instance}} generation {{generation}}"},
                "ops",
            ),
            Panel("Log lines", {total("invalidator_log_messages_total", "level"): "{{level}}"}, "ops"),
            Panel(
                "Clock offset to Postgres",
                {'max by (slot) (invalidator_clock_offset_seconds{slot=~"$slot"})': "{{slot}}"},
                "s",
            ),
            Panel("Rule sets in force", {"count by (hash) (invalidator_config_info)": "{{hash}}"}, stacked=True),
            Panel(
                "Reloads",
                {
                    f"sum by (result) (increase(invalidator_config_reloads_total{RATE})) > 0": "{{result}}",
                },
            ),
            Panel(
                "Rule files that are not in force",
                {"count by (instance) (invalidator_config_last_reload_successful == 0)": "{{instance}}"},
                help="The newest files were refused; GET /status tells why.",
            ),
            Panel(
                "What rules lack",
                {"max by (finding, severity) (invalidator_findings) > 0": "{{finding}} ({{severity}})"},
                stacked=True,
                help="As `invalidator check --online` finds it; `invalidator check --explain CODE` explains it.",
            ),
            Panel(
                "Configured targets",
                {'max by (target, type, layer, required) (invalidator_target_info{target=~"$target"})': ""},
                kind="table",
                width=16,
            ),
        ),
    ),
)

VARIABLES = {
    "slot": "label_values(invalidator_stream_connected, slot)",
    "rule": "label_values(invalidator_rule_matches_total, rule)",
    "target": "label_values(invalidator_target_info, target)",
}

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> Json:
    """The dashboard's JSON model."""
    return {
        "uid": "invalidator",
        "title": "invalidator",
        "tags": ["invalidator", "cache", "postgres"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "templating": {"list": [_datasource(), *(_variable(name, query) for name, query in VARIABLES.items())]},
        "annotations": {"list": [_rules_loaded()]},
        "panels": list(_panels()),
    }


def _panels() -> Iterator[Json]:
    numbers = iter(range(1, 1000))
    y = 0
    for index, row in enumerate(ROWS):
        head: Json = {
            "id": next(numbers),
            "type": "row",
            "title": row.title,
            "collapsed": index > 0,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        placed = [_panel(panel, next(numbers), place) for panel, place in _place(row.panels, y)]
        y = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in placed)
        if head["collapsed"]:
            yield {**head, "panels": placed}
            continue
        yield head
        yield from placed


def _place(panels: tuple[Panel, ...], y: int) -> Iterator[tuple[Panel, Json]]:
    """Fill lines from left to right; a line is as high as its highest panel."""
    x = line_height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        yield panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}
        x += panel.width
        line_height = max(line_height, panel.height)


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [_query(panel, *query) for query in zip(ascii_uppercase, panel.queries.items(), strict=False)],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _query(panel: Panel, letter: str, query: tuple[str, str]) -> Json:
    expression, legend = query
    shown: Json = {"refId": letter, "datasource": SOURCE, "expr": expression, "legendFormat": legend or "__auto"}
    if panel.kind in ("bargauge", "table"):
        shown |= {"instant": True, "range": False}
    if panel.kind == "table":
        shown["format"] = "table"
    return shown


def _field(panel: Panel) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": value} for value, color in panel.steps.items()]
    field_: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.title.startswith("Clock"):
        del field_["min"]
    if panel.maximum is not None:
        field_["max"] = panel.maximum
    if panel.kind == "timeseries":
        field_["color"] = {"mode": "palette-classic"}
        field_["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 10,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    if panel.kind == "state-timeline":
        field_["color"] = {"mode": "thresholds"}
    return field_


def _options(panel: Panel) -> Json:
    last: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case "stat":
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
        case "bargauge":
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"}
        case "state-timeline":
            return {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "list", "placement": "bottom"}}
        case "table":
            return {"showHeader": True}


def _datasource() -> Json:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "hide": 0}


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _rules_loaded() -> Json:
    return {
        "name": "Rules loaded",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "purple",
        "expr": "invalidator_config_loaded_timestamp_seconds * 1000",
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": "Rules loaded",
        "textFormat": "{{instance}}",
    }


def rendered() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
