"""What happens, in one call each: a log line and the figures change together, so they cannot disagree.

Called per batch or per state change, never per row. Event names are stable identifiers; facts are fields; no
row value is ever a field. Each name is described in docs/reference/log-events.md.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import structlog

from invalidator.telemetry.state import JournalState, Role, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from invalidator.model import Applied, Gap, Lsn
    from invalidator.telemetry.problems import Problem
    from invalidator.telemetry.state import FindingState


class Events:
    """The daemon's events over one state.

    Args:
        state: the figures that change with the events.
        clock: unix seconds.
    """

    def __init__(self, state: State, clock: Callable[[], float] = time.time) -> None:
        self.state = state
        self._clock = clock
        self._log = structlog.get_logger("invalidator")

    def daemon_started(self, *, version: str, facts: Mapping[str, object]) -> None:
        """The process begins; this is the first line of its log.

        Args:
            version: of this package.
            facts: what an operator asks first (rules, source, targets, listener), without secrets.
        """
        self.state.version = version
        self.state.started_at = self._clock()
        self._enter(Role.STARTING)
        self._log.info("daemon.started", version=version, pid=os.getpid(), **facts)

    def daemon_stopping(self, *, signal: str) -> None:
        """The process finishes what it has begun, confirms it and leaves."""
        self._enter(Role.STOPPING)
        self._log.info("daemon.stopping", signal=signal)

    def daemon_stopped(self, *, confirmed: Lsn | None, clean: bool) -> None:
        """The process ends; what is not confirmed is read again by the next one."""
        uptime = round(self._clock() - self.state.started_at, 3)
        position = None if confirmed is None else str(confirmed)
        self._log.info("daemon.stopped", confirmed=position, clean=clean, uptime_seconds=uptime)

    def daemon_failed(self, error: Exception) -> None:
        """The process ends because of something that only an operator can mend; the log's last word on it."""
        self._log.error("daemon.failed", error_type=type(error).__name__, error=str(error))

    def rules_loaded(self, *, rules_hash: str, count: int) -> None:
        """A rule set is in force."""
        loaded = self.state.rules_loaded
        loaded.hash, loaded.count, loaded.loaded_at = rules_hash, count, self._clock()
        self._log.info("rules.loaded", hash=rules_hash, rules=count)

    def rules_reloaded(
        self, *, trigger: str, result: str, rules_hash: str, count: int, changes: Mapping[str, Sequence[str]]
    ) -> None:
        """The rule files were read again and are in force; ``changes`` names the rules by what became of them."""
        loaded = self.state.rules_loaded
        loaded.reloads[result] += 1
        loaded.refused = loaded.refused_at = None
        loaded.hash, loaded.count = rules_hash, count
        if result == "applied":
            loaded.loaded_at = self._clock()
        named = {name: list(rules) for name, rules in changes.items() if rules}
        self._log.info("rules.reloaded", trigger=trigger, result=str(result), hash=rules_hash, rules=count, **named)

    def reload_refused(self, *, trigger: str, error: str) -> None:
        """The rule files were read again and refused; the rules in force stay."""
        loaded = self.state.rules_loaded
        loaded.reloads["refused"] += 1
        loaded.refused = error
        if loaded.refused_at is None:
            loaded.refused_at = self._clock()
        self._log.error("rules.reload_refused", trigger=trigger, error=error, hash=loaded.hash)

    def setup_applied(self, *, purpose: str, statement: str) -> None:
        """A statement was run because ``create`` asks for it. A new slot knows nothing of changes before it."""
        self._log.warning("setup.applied", purpose=purpose, statement=statement)

    def findings_checked(self, looked_at: str, findings: Sequence[FindingState]) -> None:
        """Somebody looked around; what is new among the findings, and what is gone, the watch tells as problems."""
        self.state.findings[looked_at] = tuple(findings)
        self.state.findings_seen.update((finding.code, finding.severity) for finding in findings)

    def preflight_failed(self, error: Exception) -> None:
        """The database could not be held against the rules this time; what was found before stays."""
        self._log.warning("preflight.failed", error=str(error))

    def rule_widened(self, rule: str, *, reason: str, count: int = 1) -> None:
        """A rule's coarse form was applied so many times since the last such line; the engine counts them."""
        self._log.warning("rule.widened", rule=rule, reason=reason, count=count)

    def messages_refused(self, *, reason: str, count: int) -> None:
        """So many logical messages, or names in them, were refused since the last such line."""
        messages = self.state.source.messages
        messages.refused_at = self._clock()
        self._log.warning("messages.refused", reason=reason, count=count, newest=messages.refusal)

    def notifications_refused(self, *, reason: str, count: int) -> None:
        """So many notifications could not be understood since the last such line."""
        notifications = self.state.source.notifications
        notifications.refused_at = self._clock()
        self._log.warning("notifications.refused", reason=reason, count=count, newest=notifications.refusal)

    def lookup_failed(self, rule: str, *, lookup: str, error: str, reason: str) -> None:
        """A lookup was not answered and its rule widened; told when it begins and when the reason is another one."""
        state = self.state.rules.get(rule)
        if state is None:
            return  # removed by a reload while its question was on its way
        if state.lookup_error != error:
            self._log.warning("lookup.failed", rule=rule, lookup=lookup, error=error, reason=str(reason))
        state.lookup_error = error
        if state.lookup_failing_since is None:
            state.lookup_failing_since = self._clock()

    def lookup_answered(self, rule: str) -> None:
        """A lookup was answered."""
        state = self.state.rules.get(rule)
        if state is None:
            return  # removed by a reload while its question was on its way
        if state.lookup_failing_since is not None:
            failed_for = round(self._clock() - state.lookup_failing_since, 3)
            self._log.info("lookup.recovered", rule=rule, failed_for_seconds=failed_for)
            state.lookup_error = state.lookup_failing_since = None

    def stream_connected(self, *, position: Lsn, server_version: str) -> None:
        """The slot streams to us."""
        source = self.state.source
        self._enter(Role.STREAMING)
        source.last_error = source.last_reason = None
        source.server_version = server_version
        self._log.info("stream.connected", slot=source.slot, position=str(position), server=server_version)

    def stream_broken(self, error: Exception) -> None:
        """The stream ended; it is told and counted as lost when what was read before is handed over."""
        if self.state.source.role is Role.STREAMING:
            self._enter(Role.RECONNECTING)
            self.state.source.last_error = str(error)

    def stream_lost(self, *, error: str, reason: str, retry_in_seconds: float) -> None:
        """The stream ended; we connect again."""
        source = self.state.source
        self._enter(Role.RECONNECTING)
        source.last_error, source.last_reason = error, reason
        source.reconnects[reason] += 1
        self._log.warning(
            "stream.lost",
            slot=source.slot,
            error=error,
            reason=reason,
            retry_in_seconds=round(retry_in_seconds, 3),
        )

    def stream_standby(self, *, holder_pid: int | None) -> None:
        """Another process streams from the slot; we wait for it to go."""
        source = self.state.source
        if source.role is not Role.STANDBY:
            self._log.info("stream.standby", slot=source.slot, holder_pid=holder_pid)
        self._enter(Role.STANDBY)
        source.last_error = None

    def slot_lost(self, *, error: str) -> None:
        """The slot no longer holds what was not confirmed: changes are missing."""
        source = self.state.source
        source.slot_wal_status = "lost"
        source.last_error = error
        self._log.error("slot.lost", slot=source.slot, error=error)

    def purge_ordered(self, *, items: int, rules: Sequence[str]) -> None:
        """Somebody on this machine has entries dropped by hand."""
        self._log.warning("purge.ordered", items=items, rules=list(rules))

    def stream_begun(self, *, position: Lsn) -> None:
        """Nobody has a record of this slot: a first start. What was cached before may be of any age."""
        self._log.info("stream.begun", slot=self.state.source.slot, position=str(position))

    def gap_found(self, gap: Gap, *, rules: int, waiting: int) -> None:
        """Changes are missing, or one target has lost some again: coarse forms make up for them from now on."""
        source = self.state.source
        source.gaps[gap.reason] += 1
        source.gap, source.gap_at = gap.detail, self._clock()
        source.repairs_pending = waiting
        where = {} if gap.target is None else {"target": gap.target}
        self._log.error("gap.found", reason=str(gap.reason), detail=gap.detail, rules=rules, **where)

    def gap_repairing(self, gap: Gap, *, rule: str, waiting: int) -> None:
        """The coarse form of one rule is on its way to the targets."""
        self.state.source.repairs_pending = waiting
        self._log.debug("gap.repairing", reason=str(gap.reason), rule=rule, waiting=waiting)
        if not waiting:
            self._log.warning("gap.repaired", reason=str(gap.reason))

    def debt_incurred(self, target: str, *, retained_bytes: int | None) -> None:
        """Positions go on without a target that fails; everything there is dropped when it works again."""
        self._owe(target)
        self._log.error("debt.incurred", target=target, retained_bytes=retained_bytes)

    def debt_known(self, target: str) -> None:
        """A record tells of a debt from another life of the daemon."""
        self._owe(target)
        self._log.warning("debt.known", target=target)

    def _owe(self, target: str) -> None:
        state = self.state.targets[target]
        if state.debt_since is None:
            state.debt_since = self._clock()

    def debt_paid(self, target: str) -> None:
        """Everything that rules can name was dropped at the target: nothing of the debt is left."""
        self.state.targets[target].debt_since = None
        self._log.warning("debt.paid", target=target)

    def record_failed(self, target: str, *, error: str, result: str, fix: str | None = None) -> None:
        """Our record of what was applied cannot be kept at a target; nothing is confirmed if it is a required one."""
        state = self.state.targets[target]
        state.record_result, state.record_fix = result, fix
        if state.record_error != error:
            self._log.warning("record.failed", target=target, error=error)
        state.record_error = error
        if state.record_failing_since is None:
            state.record_failing_since = self._clock()

    def record_kept(self, target: str) -> None:
        """The target answered for its record."""
        state = self.state.targets[target]
        state.record_failing_since = state.record_error = state.record_result = state.record_fix = None

    def record_forgotten(self, target: str) -> None:
        """A target lost our record and goes on as the same server: it was emptied, or has evicted it."""
        self._log.warning("record.forgotten", target=target)

    def heartbeat_failed(self, error: Exception) -> None:
        """A heartbeat could not be sent; the connection that brings the changes goes on."""
        self._log.warning("heartbeat.failed", error=str(error))

    def heartbeat_delivered(self, *, sent_at: float) -> None:
        """A heartbeat came back through Postgres and every required target."""
        source = self.state.source
        source.heartbeat_delivered = max(source.heartbeat_delivered, sent_at)

    def batch_applied(self, target: str, applied: Applied, *, seconds: float, age_seconds: float | None) -> None:
        """A target applied a batch; ``age_seconds`` is commit to now on the server's clock."""
        state = self.state.targets[target]
        if state.failing_since is not None:
            failed_for = round(self._clock() - state.failing_since, 3)
            self._log.info("delivery.recovered", target=target, failed_for_seconds=failed_for)
            state.failing_since = state.last_error = state.last_result = None
        state.answered = True
        state.deliveries["ok"] += 1
        items = state.delivered_items
        items["key"] += applied.keys
        items["tag"] += applied.tags
        items["pattern"] += applied.patterns
        items["cdn_tag"] += applied.cdn_tags
        state.removed_items += applied.removed
        state.widened_items += applied.widened
        if applied.widened:
            self._log.warning("delivery.widened", target=target, items=applied.widened)
        if state.layer == "L1" and (applied.keys or applied.tags or applied.patterns):  # something was published
            state.receivers = applied.receivers
        state.delivery_duration.observe(seconds)
        if age_seconds is not None:
            state.duration.observe(age_seconds)

    def delivery_failed(
        self, target: str, *, error: str, result: str, attempt: int, retry_in_seconds: float, now: float
    ) -> None:
        """A target did not apply a batch; it is tried again."""
        state = self.state.targets[target]
        state.deliveries[result] += 1
        state.retries += 1
        state.last_error = error
        state.last_result = result
        if state.failing_since is None:
            state.failing_since = now
        self._log.warning(
            "delivery.failed",
            target=target,
            error=error,
            result=result,
            attempt=attempt,
            retry_in_seconds=round(retry_in_seconds, 3),
        )

    def repeat_hurried(self, *, items: int, early_seconds: float) -> None:
        """A repeat was applied before its time, because too many names wait for theirs."""
        self._log.warning("repeat.hurried", items=items, early_seconds=round(early_seconds, 3))

    def delivery_abandoned(self, target: str, *, items: int) -> None:
        """A best-effort target was given up on for these items."""
        state = self.state.targets[target]
        state.abandoned_items += items
        state.abandoned_at = self._clock()
        self._log.error("delivery.abandoned", target=target, items=items)

    def journal_opened(self, *, path: str, items: Mapping[str, int], strangers: Mapping[str, int]) -> None:
        """The journal file is ours; ``items`` wait in it from before, ``strangers`` for targets that are no more."""
        self._log.info("journal.opened", path=path, items=dict(items))
        if strangers:
            self._log.warning("journal.orphaned", path=path, items=dict(strangers))

    def journal_escalated(self, target: str, *, steps: Sequence[str], left: int) -> None:
        """More waited for a target than the journal may hold, and coarser purges take their place."""
        journal = self._journal(target)
        journal.escalations.update(steps)
        journal.escalated_at = self._clock()
        self._log.error("journal.escalated", target=target, steps=list(steps), left=left)

    def journal_lost(self, target: str, *, set_aside: str, steps: Sequence[str]) -> None:
        """The file was damaged; what was only in there is lost, and coarse purges take its place."""
        journal = self._journal(target)
        journal.escalations.update(steps)
        journal.lost_at, journal.set_aside = self._clock(), set_aside
        self._log.error("journal.lost", target=target, set_aside=set_aside, steps=list(steps))

    def journal_failed(self, target: str, *, error: str, reason: str) -> None:
        """The journal took nothing: the target is applied as if there was none."""
        journal = self._journal(target)
        journal.unusable, journal.unusable_reason = error, reason
        if journal.unusable_since is None:
            journal.unusable_since = self._clock()
        self._log.warning("journal.failed", target=target, error=error, reason=reason)

    def journal_recovered(self, target: str) -> None:
        """The journal takes work again."""
        journal = self._journal(target)
        if journal.unusable_since is not None:
            failed_for = round(self._clock() - journal.unusable_since, 3)
            self._log.info("journal.recovered", target=target, failed_for_seconds=failed_for)
        journal.unusable = journal.unusable_reason = journal.unusable_since = None

    def delivery_resumed(self, target: str, *, error: str, result: str, since: float) -> None:
        """A target failed before the restart, as the journal remembers: its pauses go on where they were."""
        state = self.state.targets[target]
        state.failing_since, state.last_error, state.last_result = since, error, result
        self._log.warning("delivery.resumed", target=target, error=error, result=result)

    def problem_raised(self, problem: Problem) -> None:
        """Something needs an operator's eye: the same words as in /status."""
        self._log.log(
            {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}[problem.severity],
            "problem.raised",
            code=problem.code,
            subject=problem.subject,
            text=problem.text,
            fix=problem.fix,
        )

    def problem_cleared(self, code: str, *, subject: str, seconds: float) -> None:
        """A problem that was raised is gone."""
        self._log.info("problem.cleared", code=code, subject=subject, lasted_seconds=round(seconds, 3))

    def _journal(self, target: str) -> JournalState:
        state = self.state.targets[target]
        if state.journal is None:
            state.journal = JournalState()
        return state.journal

    def _enter(self, role: Role) -> None:
        source = self.state.source
        if source.role is not role or not source.role_since:
            source.role_since = self._clock()
        source.role = role
        if role in (Role.STANDBY, Role.RECONNECTING):
            # Nobody looks at the slot for us now: what we saw last must not stay in the figures for ever.
            source.slot_active = False
            source.slot_retained_wal_bytes = source.slot_unconfirmed_wal_bytes = source.oldest_transaction = None
            source.slot_safe_wal_bytes = source.slot_wal_status = None
