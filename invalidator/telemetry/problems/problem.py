"""A problem: its code with the usual severity, what it is about, what is wrong and what to type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from invalidator.telemetry.redaction import redact

Severity = Literal["critical", "warning", "info"]

CODES: Final[dict[str, Severity]] = {
    "condition-misfit": "warning",
    "debt": "critical",
    "gap": "warning",
    "heartbeat-late": "critical",
    "items-abandoned": "warning",
    "journal-escalated": "warning",
    "journal-late": "warning",
    "journal-lost": "critical",
    "journal-unusable": "warning",
    "lookup-failing": "warning",
    "message-refused": "warning",
    "missing-column": "warning",
    "no-subscribers": "info",
    "not-streaming": "critical",
    "nothing-streamed": "info",
    "notification-queue-high": "warning",
    "notification-refused": "warning",
    "notifications-unheard": "critical",
    "record-failing": "warning",  # critical when the target is required
    "record-taken": "critical",
    "reload-refused": "warning",
    "setup-incomplete": "warning",  # critical when something goes stale in silence
    "slot-at-risk": "critical",
    "slot-lost": "critical",
    "slot-wal-high": "warning",
    "stale": "critical",
    "standby": "info",
    "target-failing": "warning",  # critical when the target is required
    "target-rejected": "critical",
}
"""Every code with its usual severity."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, complete and ready to print."""

    code: str
    severity: Severity
    subject: str
    """The target, rule or slot that it is about; with the code it names the problem."""
    text: str
    fix: str
    since: float | None = None
    """Unix seconds; None: as long as somebody has looked."""


def problem(code: str, subject: str, text: str, fix: str, since: float | None = None) -> Problem:
    """One of the usual severity, without secrets."""
    return Problem(code, CODES[code], subject, redact(text), fix, since)


def psql(*statements: str) -> str:
    """The command that runs them."""
    commands = " ".join(f'-c "{statement}"' for statement in statements)
    return f"psql {commands}"
