"""Problems of the journal of a target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from invalidator.telemetry.problems import limits
from invalidator.telemetry.problems.problem import Problem, problem

if TYPE_CHECKING:
    from invalidator.telemetry.state import JournalState, TargetState

FIXES: Final = {
    "full": "mend the target; or raise `state.max_journal_items`, or consent to `purge_all_on_gap` for it",
    "disk_full": "make room on the volume of `state.path`",
    "read_only": "make the volume of `state.path` writable for the daemon's user",
    "locked": "give each daemon a `state.path` of its own, or end the process that has the file open",
    "damaged": "look at the disk; a new file takes the place of the damaged one within a second",
    "foreign": "give `state.path` the name of a file of its own",
    "newer": "run the newer version until the journal is empty, or give `state.path` another name",
    "failed": "see that the folder of `state.path` exists, is writable, and that its disk works",
}
"""What to do about a journal that cannot be used, by reason."""


def found(target: TargetState, now: float) -> Iterator[Problem]:
    """Everything about the target's journal that needs an operator's eye."""
    journal = target.journal
    if journal is None:
        return
    if journal.unusable is not None:
        waits = "the position waits for it instead" if target.required else "it is purged directly, as best it can"
        text = f"the journal does not take the work of {target.name} ({journal.unusable}); {waits}"
        fix = FIXES[journal.unusable_reason or "failed"]
        yield problem("journal-unusable", target.name, text, fix, journal.unusable_since)
    if journal.oldest is not None and now - journal.oldest > limits.JOURNAL_LATE_SECONDS:
        yield _late(target, journal, now - journal.oldest)
    if journal.escalated_at is not None and now - journal.escalated_at < limits.TOLD_SECONDS:
        yield _escalated(target, journal)
    if journal.lost_at is not None and now - journal.lost_at < limits.TOLD_SECONDS:
        yield _lost(target, journal)


def _late(target: TargetState, journal: JournalState, seconds: float) -> Problem:
    return problem(
        "journal-late",
        target.name,
        f"{journal.items} tags wait in the journal for {target.name}, the oldest for {seconds:.0f} s",
        f"mend {target.name} if it fails; if it works, it is too slow: raise `targets.{target.name}.rate_per_second`, "
        "or name fewer tags in the rules",
        journal.oldest,
    )


def _escalated(target: TargetState, journal: JournalState) -> Problem:
    steps = ", ".join(f"{step}: {count}" for step, count in sorted(journal.escalations.items()))
    return problem(
        "journal-escalated",
        target.name,
        f"more tags waited for {target.name} than the journal may hold; coarser purges took their place ({steps})",
        f"mend {target.name}; to stay exact for longer: `state.max_journal_items` above {journal.limit}",
        journal.escalated_at,
    )


def _lost(target: TargetState, journal: JournalState) -> Problem:
    return problem(
        "journal-lost",
        target.name,
        f"the journal was damaged and lies aside as {journal.set_aside}; coarser purges take the place of what waited "
        f"in it for {target.name}",
        f"look at the disk; unless `targets.{target.name}.purge_all_on_gap` had everything purged, purge it once as a "
        "whole: tags of explicit messages and of removed rules may have been in there",
        journal.lost_at,
    )
