"""The figures of the running daemon as plain values; ``metrics.py`` renders them at scrape time.

The hot path changes plain integers here and knows no metric object. Nothing in here is computed when it is
changed: ages and lags are computed when somebody looks, so they cannot stick at an old value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from invalidator.model import Operation
from invalidator.telemetry.happenings import Happenings

DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Commit to applied, seconds."""
DELIVERY_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""One application of a batch to a target, and the lag of the event loop; seconds."""


class Role(StrEnum):
    """What this process does at the moment."""

    STARTING = "starting"
    STREAMING = "streaming"
    STANDBY = "standby"  # another process holds the slot
    RECONNECTING = "reconnecting"
    STOPPING = "stopping"


@dataclass(slots=True)
class Histogram:
    """Cumulative counts by upper bound, observed once per batch and target."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        for index, bound in enumerate(self.bounds):
            if value <= bound:
                self.counts[index] += 1
                break
        else:
            self.counts[-1] += 1
        self.total += value

    def quantile(self, share: float) -> float | None:
        """The upper bound of the bucket that holds this share of all values; None when there are none.

        Values above the last bound give infinity.
        """
        wanted = share * sum(self.counts)
        if not wanted:
            return None
        below = 0
        for count, bound in zip(self.counts, (*self.bounds, float("inf")), strict=True):
            below += count
            if below >= wanted:
                return bound
        return float("inf")


@dataclass(slots=True)
class MessageState:
    """What applications send us themselves: logical messages, or notifications."""

    counts: Counter[str] = field(default_factory=Counter)  # by the Verdict of rules.explicit or postgres.notify.reader
    refusal: str | None = None  # why the newest refused one was, without anything of its content
    refused_at: float | None = None  # unix seconds, as the watch saw it


@dataclass(frozen=True, slots=True)
class OldestTransaction:
    """The oldest open transaction that has written something: the server keeps the WAL since it began."""

    pid: int | None
    """None: it is prepared, and belongs to no session."""
    prepared_as: str | None
    seconds: float
    """How long it is open, or prepared, when it was looked at."""
    state: str
    """As in ``pg_stat_activity``, such as ``idle in transaction``; ``prepared``."""
    database: str


@dataclass(slots=True)
class SourceState:
    """The stream and its slot."""

    slot: str = ""
    role: Role = Role.STARTING
    role_since: float = 0.0  # unix seconds
    last_error: str | None = None  # why the stream ended; None while it streams
    last_reason: str | None = None  # the same in a word
    server_version: str = ""
    reconnects: Counter[str] = field(default_factory=Counter)  # by reason
    received_bytes: int = 0
    transactions: int = 0
    rows_without_rule: int = 0
    messages: MessageState = field(default_factory=MessageState)
    notifications: MessageState = field(default_factory=MessageState)
    notification_queue_usage: float | None = None  # share of the server's queue that is full; None: nobody listens
    server_position: int = 0  # newest WAL end that the server announced
    received_position: int = 0
    applied_position: int = 0
    confirmed_position: int = 0
    is_paused: bool = False  # we do not read, because targets are behind
    moved_at: float = 0.0  # unix seconds at which the stream brought a row, a commit or a heartbeat last; 0: unknown
    heartbeat_sent: float = 0.0  # unix seconds
    heartbeat_delivered: float = 0.0
    heartbeat_interval_seconds: float = 10.0
    clock_offset_seconds: float = 0.0  # Postgres' clock minus ours
    oldest_undelivered_commit: float | None = None  # decoded, not yet in a batch: server's unix seconds
    gaps: Counter[str] = field(default_factory=Counter)  # by GapReason
    gap: str | None = None  # what went missing last
    gap_at: float | None = None  # unix seconds
    repairs_pending: int = 0  # coarse forms that wait for their turn
    slot_active: bool = False
    slot_retained_wal_bytes: int | None = None
    slot_unconfirmed_wal_bytes: int | None = None
    slot_safe_wal_bytes: int | None = None
    oldest_transaction: OldestTransaction | None = None  # asked for when the server keeps much that is confirmed
    slot_wal_status: str | None = None  # reserved, extended, unreserved, lost


@dataclass(frozen=True, slots=True)
class FindingState:
    """Something around the daemon that keeps rules from working as written, as it was when somebody last looked."""

    code: str
    """Such as ``not-published``."""
    severity: Literal["error", "warning", "info"]
    subject: str
    text: str
    fix: str
    urgency: Literal["critical", "warning", "info"] | None
    """As a problem; None: worth counting only."""


@dataclass(slots=True)
class TableState:
    """Rows that arrived for one relation with a rule."""

    name: str
    rows: dict[Operation, int] = field(default_factory=lambda: dict.fromkeys(Operation, 0))


@dataclass(slots=True)
class RuleState:
    """What one rule did."""

    name: str
    matches: dict[Operation, int] = field(default_factory=lambda: dict.fromkeys(Operation, 0))
    unchanged: int = 0  # updates that changed none of the columns in `changed`
    condition_false: int = 0  # row changes for which `when` did not hold
    null_skips: int = 0  # templates skipped because a value was NULL
    widened: Counter[str] = field(default_factory=Counter)  # by WidenReason
    widened_told: Counter[str] = field(default_factory=Counter)  # how many of them the log has told
    errors: Counter[str] = field(default_factory=Counter)  # by reason
    condition_misfits: dict[str, str] = field(default_factory=dict)  # by relation: why `when` does not fit its columns
    missing_columns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by relation, as bound at present
    has_lookup: bool = False
    lookups: Counter[str] = field(default_factory=Counter)  # asked rows by result: ok, overflow, timeout, error
    lookup_duration: Histogram = field(default_factory=lambda: Histogram(DELIVERY_BUCKETS))
    lookup_error: str | None = None  # of the newest failure in a row
    lookup_failing_since: float | None = None  # unix seconds of the first failure in a row

    def forget_relations(self) -> None:
        """Another rule of this name comes into force: what did not fit tables or lookups was about the one before."""
        self.missing_columns.clear()
        self.condition_misfits.clear()
        self.has_lookup = False
        self.lookup_error = self.lookup_failing_since = None


@dataclass(slots=True)
class JournalState:
    """What the journal holds for one target."""

    limit: int = 0  # names; beyond it the journal escalates
    items: int = 0  # names that wait for their purge
    repeats: int = 0  # names that wait for their repeat
    oldest: float | None = None  # unix seconds of the oldest request
    taken_items: int = 0
    escalations: Counter[str] = field(default_factory=Counter)  # by what was asked for instead: coarse, everything
    escalated_at: float | None = None  # unix seconds of the newest escalation
    lost_at: float | None = None  # unix seconds: when a damaged file was set aside
    set_aside: str | None = None  # its name since then
    unusable: str | None = None  # why it took nothing at the newest try
    unusable_reason: str | None = None
    unusable_since: float | None = None  # unix seconds of the first failure in a row


@dataclass(slots=True)
class TargetState:
    """What one target did."""

    name: str
    type: str = ""
    layer: str = ""
    required: bool = True
    deliveries: Counter[str] = field(default_factory=Counter)  # by result
    delivered_items: Counter[str] = field(default_factory=Counter)  # key, tag, pattern, cdn_tag
    removed_items: int = 0
    widened_items: int = 0  # for which more was dropped than they say
    abandoned_items: int = 0  # given up by a best-effort target after its deadline
    abandoned_at: float | None = None  # unix seconds of the newest of them
    answered: bool = False  # at least once since the start
    retries: int = 0
    receivers: int | None = None  # L1 only: subscribers that the newest publication reached
    pending_items: int = 0
    pending_limit: int = 0
    in_flight: int = 0
    repeats_pending: int = 0
    rate_limit_wait_seconds: float = 0.0
    record_failing_since: float | None = None  # unix seconds of the first failure in a row to keep our record
    record_error: str | None = None
    record_result: str | None = None  # why in a word: that of the TargetError
    record_fix: str | None = None  # what to type, where the target knows it
    debt_since: float | None = None  # unix seconds: positions were confirmed without it, and it is not made good yet
    failing_since: float | None = None  # unix seconds of the first failure in a row
    last_error: str | None = None
    last_result: str | None = None  # of the newest failure in a row
    journal: JournalState | None = None  # CDN work waits in a file, and nothing waits for the target
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BUCKETS))
    delivery_duration: Histogram = field(default_factory=lambda: Histogram(DELIVERY_BUCKETS))


@dataclass(slots=True)
class RulesState:
    """The rule set in force."""

    hash: str = ""
    count: int = 0
    loaded_at: float = 0.0  # unix seconds
    reloads: Counter[str] = field(default_factory=Counter)  # by reloading.Result
    refused: str | None = None  # why the files as they are now were refused; None when they are in force
    refused_at: float | None = None  # unix seconds of the first refusal in a row


@dataclass(slots=True)
class State:
    """Everything that /metrics and /status show."""

    started_at: float = 0.0
    version: str = ""
    source: SourceState = field(default_factory=SourceState)
    rules_loaded: RulesState = field(default_factory=RulesState)
    tables: dict[str, TableState] = field(default_factory=dict)
    rules: dict[str, RuleState] = field(default_factory=dict)
    targets: dict[str, TargetState] = field(default_factory=dict)
    oldest_unfinished_commit: float | None = None  # server's unix seconds, of batches not yet finished
    findings: dict[str, tuple[FindingState, ...]] = field(default_factory=dict)  # by what was looked at
    findings_seen: set[tuple[str, str]] = field(default_factory=set)  # (code, severity) to be exposed, be it as 0
    log_messages: Counter[str] = field(default_factory=Counter)  # by level
    loop_lag: Histogram = field(default_factory=lambda: Histogram(DELIVERY_BUCKETS))
    happenings: Happenings = field(default_factory=Happenings)  # for who watches
    problem_since: dict[tuple[str, str], float] = field(default_factory=dict)  # (code, subject) -> unix seconds
