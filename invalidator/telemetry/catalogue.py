"""Every metric family in one table: name, type, labels, meaning; ``metrics.py`` fills it, the docs print it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from invalidator.model import GapReason
from invalidator.telemetry import label_values

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family as it is exposed."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    note: str = ""
    """For the reference page: how to read it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Families that answer one question."""

    title: str
    families: tuple[Family, ...]


GROUPS: Final = (
    Group(
        "Freshness",
        (
            Family(
                "invalidator_staleness_seconds",
                "gauge",
                ("slot",),
                "Age of the oldest committed change that is not applied to every target; 0 when none is pending.",
                "Without a stream, or when nothing comes out of it although heartbeats go in: how long ago the newest"
                " heartbeat was sent that came through, because nobody knows of newer changes."
                " The service level to watch. Computed at the scrape, on the server's clock, so it cannot stick.",
            ),
            Family(
                "invalidator_invalidation_duration_seconds",
                "histogram",
                ("target",),
                "From the commit on the server until the target had applied it.",
                "Once per batch: the age of its oldest commit.",
            ),
            Family(
                "invalidator_heartbeat_last_sent_timestamp_seconds",
                "gauge",
                ("slot",),
                "When the newest heartbeat was written to Postgres.",
            ),
            Family(
                "invalidator_heartbeat_last_delivered_timestamp_seconds",
                "gauge",
                ("slot",),
                "When the newest heartbeat that came through Postgres and every required target was sent.",
            ),
            Family(
                "invalidator_clock_offset_seconds",
                "gauge",
                ("slot",),
                "Clock of the Postgres server minus the local clock.",
                "Ages and durations are corrected by it.",
            ),
            Family(
                "invalidator_problems",
                "gauge",
                ("code",),
                "Problems that /status lists, with their fixes, by code.",
                "Each code has a page in [operations](../operations/README.md).",
            ),
            Family(
                "invalidator_findings",
                "gauge",
                ("finding", "severity"),
                "What keeps rules from working as written, as `check --online` finds it, by its code.",
                "Looked for at each connect and again and again. Each code is explained in [findings](findings.md).",
            ),
        ),
    ),
    Group(
        "Source",
        (
            Family(
                "invalidator_role",
                "gauge",
                ("role",),
                "1 for what the process does at the moment.",
            ),
            Family(
                "invalidator_stream_connected",
                "gauge",
                ("slot",),
                "1 if this process holds the change stream.",
                "0 on a standby: use `max without (instance, pod)` over all replicas.",
            ),
            Family(
                "invalidator_stream_reconnects_total",
                "counter",
                ("slot", "reason"),
                "Times the change stream ended and was opened again.",
                f"`reason`: {', '.join(label_values.RECONNECT_REASONS)}.",
            ),
            Family(
                "invalidator_gaps_total",
                "counter",
                ("slot", "reason"),
                "Times changes were missing, or a target had lost some, and coarse forms made up for them.",
                f"`reason`: {', '.join(GapReason)}. Each has a line in [gap](../operations/gap.md).",
            ),
            Family(
                "invalidator_repairs_pending",
                "gauge",
                ("slot",),
                "Coarse forms that wait for their turn after a gap.",
            ),
            Family("invalidator_received_bytes_total", "counter", ("slot",), "Bytes of the change stream received."),
            Family("invalidator_transactions_total", "counter", ("slot",), "Committed transactions received."),
            Family(
                "invalidator_events_total",
                "counter",
                ("table", "op"),
                "Row changes received for tables that have rules.",
                f"Tables after the {label_values.MAX_TABLES}th share the value `other`."
                " A TRUNCATE counts once per table.",
            ),
            Family(
                "invalidator_events_skipped_total",
                "counter",
                ("reason",),
                "Row changes that made nothing stale.",
                "`reason`: no_rule (no rule for the table), unchanged (an UPDATE outside `changed`; per rule).",
            ),
            Family(
                "invalidator_messages_total",
                "counter",
                ("result",),
                "Logical messages of applications that invalidate by themselves.",
                "`result`: applied, disabled (`messages.enabled` is false), or why a message or a name was refused.",
            ),
            Family(
                "invalidator_notifications_total",
                "counter",
                ("slot", "result"),
                "Notifications heard on the channels of a `notify` source.",
                "`result`: applied, without_rows (the rules of the table widened), unknown_table, unreadable.",
            ),
            Family(
                "invalidator_notification_queue_ratio",
                "gauge",
                ("slot",),
                "Share of the server's notification queue that is full; with 1 every COMMIT that notifies fails.",
                "Absent unless the source is `notify`. As of the newest heartbeat.",
            ),
            Family(
                "invalidator_wal_position_bytes",
                "gauge",
                ("slot", "point"),
                "WAL position as a byte count.",
                "Lag in bytes is the difference of two points.",
            ),
            Family("invalidator_slot_active", "gauge", ("slot",), "1 if some process reads the slot."),
            Family(
                "invalidator_slot_retained_wal_bytes",
                "gauge",
                ("slot",),
                "WAL that the server keeps for the slot: from `restart_lsn` to the end of its WAL.",
                "More than the unconfirmed: an old transaction is open. Absent until the server was asked.",
            ),
            Family(
                "invalidator_slot_unconfirmed_wal_bytes",
                "gauge",
                ("slot",),
                "WAL between the confirmed position and the end of the server's WAL.",
                "Absent until the server was asked.",
            ),
            Family(
                "invalidator_slot_safe_wal_bytes",
                "gauge",
                ("slot",),
                "WAL that can still be written before the slot is lost.",
                "Absent when `max_slot_wal_keep_size` is -1: the disk is the limit then.",
            ),
            Family(
                "invalidator_slot_wal_status", "gauge", ("slot", "status"), "1 for the current wal_status of the slot."
            ),
        ),
    ),
    Group(
        "Rules",
        (
            Family("invalidator_rule_matches_total", "counter", ("rule", "op"), "Row changes that a rule fired for."),
            Family(
                "invalidator_rule_null_skips_total",
                "counter",
                ("rule",),
                "Templates that were left out because a value was NULL.",
            ),
            Family(
                "invalidator_rule_condition_false_total",
                "counter",
                ("rule",),
                "Row changes for which a rule's `when` did not hold.",
            ),
            Family(
                "invalidator_rule_errors_total",
                "counter",
                ("rule", "reason"),
                "Row changes that a rule could not turn into exact names.",
                f"`reason`: {', '.join(label_values.RULE_ERROR_REASONS)}. The coarse form was applied instead.",
            ),
            Family(
                "invalidator_widened_total",
                "counter",
                ("rule", "reason"),
                "Times a rule's coarse form was applied instead of the exact one.",
                f"`reason`: {', '.join(label_values.WIDEN_REASONS)}.",
            ),
            Family(
                "invalidator_lookups_total",
                "counter",
                ("rule", "result"),
                "Distinct questions to the lookups of a rule; the same question of several rows counts once.",
                f"`result`: {', '.join(label_values.LOOKUP_RESULTS)}. All but `ok` apply the coarse form."
                " Only rules with a lookup.",
            ),
            Family(
                "invalidator_lookup_duration_seconds",
                "histogram",
                ("rule",),
                "One statement of a lookup, with the wait for a connection's transaction to see the change.",
                "A statement asks for all rows of a batch.",
            ),
        ),
    ),
    Group(
        "Targets",
        (
            Family(
                "invalidator_target_info",
                "gauge",
                ("target", "type", "layer", "required"),
                "The configured targets; always 1.",
            ),
            Family(
                "invalidator_deliveries_total",
                "counter",
                ("target", "result"),
                "Applications of a batch to a target.",
            ),
            Family(
                "invalidator_delivery_duration_seconds",
                "histogram",
                ("target",),
                "Time from the first attempt to apply a batch until the target had applied it.",
            ),
            Family(
                "invalidator_delivered_items_total",
                "counter",
                ("target", "kind"),
                "Distinct keys, tags, patterns and CDN tags applied.",
            ),
            Family(
                "invalidator_removed_items_total",
                "counter",
                ("target",),
                "Entries that were there and are gone, where the target tells.",
                "Never above 0 while keys are delivered: the rules' templates do not match the application's keys.",
            ),
            Family(
                "invalidator_abandoned_items_total",
                "counter",
                ("target",),
                "Items given up by a best-effort target; they may be stale there.",
            ),
            Family(
                "invalidator_widened_items_total",
                "counter",
                ("target",),
                "Items for which a target dropped more than they name.",
                "A CDN that does not take a tag, or has too many of them, and may purge everything.",
            ),
            Family("invalidator_retries_total", "counter", ("target",), "Applications that were tried again."),
            Family(
                "invalidator_rate_limit_wait_seconds_total",
                "counter",
                ("target",),
                "Time waited because the target asked for it.",
            ),
            Family(
                "invalidator_debt_since_timestamp_seconds",
                "gauge",
                ("target",),
                "Since when positions were confirmed without the target, until it is made good; 0: they were not.",
            ),
            Family("invalidator_queue_items", "gauge", ("target",), "Items waiting for the target."),
            Family(
                "invalidator_queue_limit_items",
                "gauge",
                ("target",),
                "Items at which reading pauses (required) or items are given up (best effort).",
            ),
            Family("invalidator_inflight_deliveries", "gauge", ("target",), "Applications under way."),
            Family("invalidator_repeats_pending", "gauge", ("target",), "Repeats that are not due yet."),
            Family(
                "invalidator_journal_usable",
                "gauge",
                ("target",),
                "1 if the journal took the work of this target at the newest try.",
                "0: the position waits for the target instead. Only CDN targets, and only with `state.path`.",
            ),
            Family("invalidator_journal_items", "gauge", ("target",), "CDN tags that wait in the journal."),
            Family(
                "invalidator_journal_limit_items",
                "gauge",
                ("target",),
                "CDN tags at which the journal asks for coarser purges instead.",
            ),
            Family(
                "invalidator_journal_oldest_age_seconds",
                "gauge",
                ("target",),
                "How long the oldest tag in the journal has waited; 0 when none does.",
                "`invalidator_staleness_seconds` does not count what the journal has taken.",
            ),
            Family(
                "invalidator_journal_repeats", "gauge", ("target",), "CDN tags that wait in there for their repeat."
            ),
            Family("invalidator_journal_taken_items_total", "counter", ("target",), "CDN tags that the journal took."),
            Family(
                "invalidator_journal_escalations_total",
                "counter",
                ("target", "step"),
                "Times that coarser purges took the place of tags, because of the bound or of a damaged file.",
                "`step`: coarse (tags of a rule became its coarse tag), everything.",
            ),
            Family(
                "invalidator_l1_receivers",
                "gauge",
                ("target",),
                "Subscribers that the newest L1 message reached.",
                "Absent until the first message. On Redis Cluster: subscribers of one node.",
            ),
        ),
    ),
    Group(
        "Process",
        (
            Family("invalidator_build_info", "gauge", ("version", "python"), "The running version; always 1."),
            Family("invalidator_config_info", "gauge", ("hash",), "The rule set in force; always 1."),
            Family("invalidator_config_rules", "gauge", (), "Rules in force."),
            Family(
                "invalidator_config_last_reload_successful",
                "gauge",
                (),
                "Whether the rule files as they were read last are in force.",
            ),
            Family(
                "invalidator_config_reloads_total",
                "counter",
                ("result",),
                "Times that the rule files were read again.",
                "`result`: applied, unchanged (they mean what was in force), refused.",
            ),
            Family(
                "invalidator_config_loaded_timestamp_seconds", "gauge", (), "When the rule set in force was loaded."
            ),
            Family(
                "invalidator_event_loop_lag_seconds",
                "histogram",
                (),
                "How late a timer of the event loop was; measured once a second.",
            ),
            Family("invalidator_log_messages_total", "counter", ("level",), "Log messages, those held back included."),
        ),
    ),
)

FAMILIES: Final = {family.name: family for group in GROUPS for family in group.families}
