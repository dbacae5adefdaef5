"""Asks each target whether it would take our calls, all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace

from invalidator.errors import TargetError, TargetRejected, TargetThrottled
from invalidator.model import Layer
from invalidator.ports import Probe, ProbeFinding, Probing, Recording, Target
from invalidator.preflight.finding import At, Finding, finding
from invalidator.rules.rule import RuleSet


@dataclass(frozen=True, slots=True)
class Answer:
    """What one target answered."""

    target: str
    facts: tuple[str, ...]
    """What is well, a few words each."""
    findings: tuple[Finding, ...]

    @property
    def is_unreachable(self) -> bool:
        """Whether no answer came at all."""
        return any(each.code == "target-unreachable" for each in self.findings)


async def probe(
    targets: Sequence[Target],
    ruleset: RuleSet,
    settings_at: Mapping[str, At] | None = None,
    *,
    record_name: str | None = None,
) -> list[Answer]:
    """Ask every target that can be asked; in their order. Nothing that is cached is touched.

    Args:
        targets: built, and closed by the caller.
        ruleset: tells what the targets are needed for.
        settings_at: where the settings name each target.
        record_name: of our record, to see whether it could be kept; None: a daemon runs, and tells of that by itself.
    """
    has_tags = any(rule.exact.tags or rule.coarse.tags or rule.coarse.tag_patterns for rule in ruleset.rules)
    places = settings_at or {}
    asking = [
        _answer(
            each, _asked(each, record_name), has_tags=has_tags, at=places.get(each.name) or At(f"targets.{each.name}")
        )
        for each in targets
        if isinstance(each, Probing)
    ]
    return await asyncio.gather(*asking)


async def _asked(target: Probing, record_name: str | None) -> Probe:
    answered = await target.probe()
    if record_name is None or not isinstance(target, Recording):
        return answered
    try:
        await target.load_record(record_name)
        await target.claim_record(record_name, "", before="", seconds=0)
    except TargetRejected as error:
        return replace(answered, findings=(*answered.findings, _record_refused(error)))
    return answered


def _record_refused(error: TargetRejected) -> ProbeFinding:
    return ProbeFinding(
        "record-refused",
        "error",
        f"our record of what was applied could not be kept: {error}",
        why="a required target without it holds every position back; what an optional one loses would not be noticed",
        help="let the user read and write the record, and the words beside it that say whose it is",
        fix=error.fix,
    )


async def _answer(target: Target, probing: Awaitable[Probe], *, has_tags: bool, at: At) -> Answer:
    name = target.name
    try:
        answered = await probing
    except TargetThrottled:  # it knows us well enough to count our calls
        return Answer(name, ("busy: asks us to wait",), ())
    except TargetError as error:
        return Answer(name, (), (_failure(target, error, at),))
    findings = tuple(
        finding(name, at, each.code, each.message, severity=each.severity, why=each.why, help=each.help, fix=each.fix)
        for each in answered.findings
        if has_tags or each.code != "eviction-evicts-tags"
    )
    return Answer(name, answered.facts, findings)


def _failure(target: Target, error: TargetError, at: At) -> Finding:
    if isinstance(error, TargetRejected):
        code = "cdn-credentials" if target.layer is Layer.L3 else "target-rejected"
        why = "nothing that the rules name would be dropped there"
        return finding(target.name, at, code, str(error), why=why, help=f"mend what stands under targets.{target.name}")
    return finding(target.name, at, "target-unreachable", str(error), help="see that it runs and can be reached")
