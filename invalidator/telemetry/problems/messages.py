"""Problems of logical messages and of notifications that applications send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from invalidator.telemetry.problems import limits
from invalidator.telemetry.problems.problem import Problem, problem
from invalidator.telemetry.state import Role

if TYPE_CHECKING:
    from invalidator.telemetry.state import SourceState

_HOLDERS: Final = (
    "SELECT pid, state, xact_start, left(query, 60) FROM pg_stat_activity "
    "WHERE datname = current_database() AND xact_start IS NOT NULL ORDER BY xact_start"
)


def found(source: SourceState, now: float) -> Iterator[Problem]:
    """Everything about logical messages and notifications that needs an operator's eye."""
    if source.role is Role.RECONNECTING and source.last_reason == "unheard":
        yield _unheard(source)
    usage = source.notification_queue_usage
    if usage is not None and usage > limits.QUEUE_USAGE:
        text = (
            f"the server's notification queue is {usage:.0%} full: a session that listens has a transaction open or "
            "does not read; when it is full, every COMMIT that notifies fails"
        )
        fix = f'end the oldest transaction of a session that listens: psql -c "{_HOLDERS}"'
        yield problem("notification-queue-high", source.slot, text, fix)
    messages, notifications = source.messages, source.notifications
    if messages.refused_at is not None and now - messages.refused_at < limits.TOLD_SECONDS:
        text = f"a logical message, or a name in it, was refused: {messages.refusal}; what it names may be stale"
        fix = "mend what the application emits, or take it by source.messages (how-to: explicit invalidation)"
        yield problem("message-refused", source.slot, text, fix, messages.refused_at)
    if notifications.refused_at is not None and now - notifications.refused_at < limits.TOLD_SECONDS:
        text = f"a notification was not understood: {notifications.refusal}; what it is about may be stale"
        fix = "mend what the application sends (how-to: listen to notifications)"
        yield problem("notification-refused", source.slot, text, fix, notifications.refused_at)


def _unheard(source: SourceState) -> Problem:
    text = f"notifications do not reach the daemon: {source.last_error}"
    fix = "let source.dsn lead to the server itself, or to a pool in session mode"
    return problem("notifications-unheard", source.slot, text, fix, source.role_since)
