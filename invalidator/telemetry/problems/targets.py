"""Problems of targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from invalidator.telemetry.problems import journal, limits
from invalidator.telemetry.problems.problem import Problem, problem

if TYPE_CHECKING:
    from invalidator.telemetry.state import State, TargetState


def found(state: State, now: float) -> Iterator[Problem]:
    """Everything about targets that needs an operator's eye."""
    for target in state.targets.values():
        failing_since = _failing_since(target)
        if failing_since is not None:
            yield from _failing(target, failing_since, now)
        if target.record_failing_since is not None and not _is_silent(target):
            yield from _record_failing(target, target.record_failing_since, now)
        if target.abandoned_at is not None and now - target.abandoned_at < limits.TOLD_SECONDS:
            yield problem(
                "items-abandoned",
                target.name,
                f"{target.abandoned_items} items were given up for {target.name} and may be stale there",
                f"purge everything at {target.name} once by its own tool; "
                f"`targets.{target.name}.required: true` would wait instead",
                target.abandoned_at,
            )
        if target.debt_since is not None:
            yield _debt(target)
        yield from journal.found(target, now)
        if target.layer == "L1" and target.receivers == 0:
            yield problem(
                "no-subscribers",
                target.name,
                f"the newest message of {target.name} reached no subscriber",
                "redis-cli PUBSUB NUMSUB cache:invalidate   (with your channel; expected if no application has an L1)",
            )


def _debt(target: TargetState) -> Problem:
    return problem(
        "debt",
        target.name,
        f"positions were confirmed without {target.name}, lest the server gave the slot up: it may hold stale entries"
        " until it works again and everything that rules can name is dropped there",
        f"mend {target.name}, and serve nothing from it until then",
        target.debt_since,
    )


def _is_silent(target: TargetState) -> bool:
    """Whether nothing at all comes back when it is asked for our record: then no delivery can come through either."""
    return target.record_failing_since is not None and target.record_result in ("timeout", "connection")


def _failing_since(target: TargetState) -> float | None:
    """Unix seconds, by deliveries or by silence, which is asked for more often: one trouble, which is told once."""
    times = (target.failing_since, target.record_failing_since if _is_silent(target) else None)
    return min((time for time in times if time is not None), default=None)


def _record_failing(target: TargetState, since: float, now: float) -> Iterator[Problem]:
    if now - since <= limits.FAILING_SECONDS:
        return
    meanwhile = "no position is confirmed meanwhile" if target.required else "what it loses would not be noticed"
    if target.record_result == "taken":
        yield problem(
            "record-taken",
            target.name,
            f"two databases share a name at {target.name}: {target.record_error}; {meanwhile}",
            f"give `targets.{target.name}.record_prefix` a value of this daemon's own and restart it; if the other one "
            "has ended for good, nothing: the record is free 20 s later",
            since,
        )
        return
    failing = problem(
        "record-failing",
        target.name,
        f"our record of what was applied cannot be kept at {target.name}: {target.record_error}; {meanwhile}",
        f"let the user of `targets.{target.name}.url` keep the record and the words beside it: {target.record_fix}"
        if target.record_fix
        else "mend what it says (replicas that lag, a server that takes no writes): redis-cli -u URL INFO replication",
        since,
    )
    yield replace(failing, severity="critical") if target.required else failing


def _failing(target: TargetState, since: float, now: float) -> Iterator[Problem]:
    error = target.last_error or target.record_error or "no answer"
    result = target.last_result or target.record_result
    if target.last_result == "rejected":
        yield problem(
            "target-rejected",
            target.name,
            f"{target.name} refuses what is sent: {error}",
            f"mend the credentials or permissions under `targets.{target.name}` and restart the daemon",
            since,
        )
    elif now - since > limits.FAILING_SECONDS:
        waits = "everything after it waits" if target.required else "it is best effort: nothing waits for it"
        is_journaled = target.journal is not None and target.journal.unusable is None
        if target.journal is not None and is_journaled:
            waits = f"{target.journal.items} tags wait for it in the journal, and nothing waits for it"
        elif target.record_failing_since is not None:
            waits += ", and our record cannot be kept there either"
        failing = problem(
            "target-failing",
            target.name,
            f"{target.name} has failed for {now - since:.0f} s ({result}: {error}); {waits}",
            _reach(target),
            since,
        )
        yield replace(failing, severity="critical") if target.required and not is_journaled else failing


def _reach(target: TargetState) -> str:
    if target.last_result == "rate_limited":
        return f"send {target.name} less: one coarse tag in the rules instead of many, or a higher rate at the provider"
    if target.layer == "L3":
        return (
            f"curl -sS -o /dev/null -w '%{{http_code}}\\n' URL   (the URL of `targets.{target.name}`, from this host)"
        )
    return f"redis-cli -u URL PING; redis-cli -u URL INFO   (the URL of `targets.{target.name}`, from this host)"
