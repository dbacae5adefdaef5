"""The values that labels of metrics may have, as far as they do not come from the configuration."""

from __future__ import annotations

from typing import Final

from invalidator.model import AFTER_GAP, Operation, WidenReason
from invalidator.telemetry.problems import CODES
from invalidator.telemetry.state import Role

MAX_TABLES: Final = 200
"""Tables with a series of their own; later ones share the label value ``other``."""

RECONNECT_REASONS: Final = (
    "connection", "server_shutdown", "silence", "configuration", "credentials", "record", "record_taken", "redo",
    "slot_lost", "unheard", "standby", "own_connection",
)  # fmt: skip
SKIP_REASONS: Final = ("no_rule", "unchanged")
RELOAD_RESULTS: Final = ("applied", "unchanged", "refused")
MESSAGE_RESULTS: Final = (
    "applied", "disabled", "not_transactional", "too_large", "malformed", "bad_name", "not_allowed", "bad_cdn_tag",
)  # fmt: skip
NOTIFICATION_RESULTS: Final = ("applied", "without_rows", "unknown_table", "unreadable")
RULE_ERROR_REASONS: Final = ("missing_column", "unsafe_value", "rule_error")
WIDEN_REASONS: Final = (*WidenReason, AFTER_GAP)
LOOKUP_RESULTS: Final = ("ok", "overflow", "timeout", "error")
RESULTS: Final = ("ok", "timeout", "connection", "unavailable", "rate_limited", "http_4xx", "http_5xx", "rejected")
ITEM_KINDS: Final = ("key", "tag", "pattern", "cdn_tag")
WAL_POINTS: Final = ("server", "received", "applied", "confirmed")
WAL_STATUSES: Final = ("reserved", "extended", "unreserved", "lost")
JOURNAL_STEPS: Final = ("coarse", "everything")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

FIXED_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "op": tuple(Operation),
    "role": tuple(Role),
    "result": RESULTS,
    "kind": ITEM_KINDS,
    "point": WAL_POINTS,
    "status": WAL_STATUSES,
    "level": LOG_LEVELS,
    "step": JOURNAL_STEPS,
    "code": tuple(CODES),
    "severity": ("error", "warning", "info"),
}
"""Labels whose values are known before the first change; all of them are exposed from the start."""
