"""Once a second the daemon looks at itself: the event loop's lag, rules that widened, problems that came and went."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from invalidator.telemetry.problems import problems

if TYPE_CHECKING:
    from invalidator.telemetry.events import Events

INTERVAL_SECONDS = 1.0


async def watch(events: Events, clock: Callable[[], float]) -> None:
    """Run until cancelled, as one task of the daemon's group.

    Args:
        events: where problems are told, and the state that is looked at.
        clock: unix seconds.
    """
    loop = asyncio.get_running_loop()
    refused: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    while True:
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        events.state.loop_lag.observe(max(0.0, loop.time() - due))
        note_widened(events)
        note_messages(events, refused)
        note_notifications(events, unread)
        note_problems(events, clock())


def note_widened(events: Events) -> None:
    """Tell how often each rule widened since the last look; the rows themselves only count."""
    for rule in events.state.rules.values():
        for reason, count in rule.widened.items():
            new = count - rule.widened_told[reason]
            if new:
                rule.widened_told[reason] = count
                events.rule_widened(rule.name, reason=str(reason), count=new)


def note_messages(events: Events, told: Counter[str]) -> None:
    """Tell how many logical messages were refused since the last look, by reason; that they are disabled, once."""
    for reason, count in events.state.source.messages.counts.items():
        new = count - told[reason]
        if new and reason != "applied" and not (reason == "disabled" and told[reason]):
            told[reason] = count
            events.messages_refused(reason=reason, count=new)


def note_notifications(events: Events, told: Counter[str]) -> None:
    """Tell how many notifications were not understood since the last look, by reason."""
    counts = events.state.source.notifications.counts
    for reason in ("unreadable", "unknown_table"):
        new = counts[reason] - told[reason]
        if new:
            told[reason] = counts[reason]
            events.notifications_refused(reason=reason, count=new)


def note_problems(events: Events, now: float) -> None:
    """Tell of problems that are new and of those that are gone, once each."""
    known = events.state.problem_since
    found = {(problem.code, problem.subject): problem for problem in problems(events.state, now)}
    for name, problem in found.items():
        if name not in known:
            known[name] = problem.since if problem.since is not None else now
            events.problem_raised(problem)
    for name in known.keys() - found.keys():
        code, subject = name
        events.problem_cleared(code, subject=subject, seconds=now - known.pop(name))
