"""What is wrong and what to type: one list that /status, the log and ``invalidator_problems`` share.

Pure: the same state and time give the same problems. Every code has a page in docs/operations. ``limits.py`` says from
when on something counts, ``problem.py`` which codes there are; each of the other files looks at one part of the state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from invalidator.telemetry.problems import messages, rules, slot, stream, targets
from invalidator.telemetry.problems.problem import CODES, Problem, Severity

if TYPE_CHECKING:
    from invalidator.telemetry.state import State

__all__ = ["CODES", "Problem", "Severity", "problems"]

_ORDER: Final = ("critical", "warning", "info")


def problems(state: State, now: float) -> list[Problem]:
    """Everything that is wrong at this time, the most severe first."""
    found = [
        *stream.found(state, now),
        *slot.found(state.source),
        *messages.found(state.source, now),
        *targets.found(state, now),
        *rules.found(state),
    ]
    dated = [_dated(problem, state, now) for problem in found]
    return sorted(dated, key=lambda problem: (_ORDER.index(problem.severity), problem.code, problem.subject))


def _dated(problem: Problem, state: State, now: float) -> Problem:
    if problem.since is not None:
        return problem
    return replace(problem, since=state.problem_since.get((problem.code, problem.subject), now))
