"""A plan as people and programs read it: SQL that can be piped into psql, or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli.provisioning.outcome import statements

if TYPE_CHECKING:
    from invalidator.cli.provisioning.outcome import Outcome
    from invalidator.postgres.provision import Finding, Step


def show(outcome: Outcome, *, as_json: bool) -> int:
    """Print the outcome; the result is the exit code."""
    click.echo(json.dumps(document(outcome), indent=2, ensure_ascii=False) if as_json else text(outcome))
    return outcome.exit_code


def finding_documents(outcome: Outcome) -> list[dict[str, Any]]:
    """The findings as JSON holds them."""
    return [finding_document(finding) for finding in outcome.plan.findings]


def finding_document(finding: Finding) -> dict[str, Any]:
    """A finding as JSON holds it."""
    return {"severity": severity(finding), "text": finding.text, "fix": finding.fix}


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON holds it."""
    return {
        "applied": [_step(step) for step in outcome.applied],
        "steps": [_step(step) for step in outcome.plan.steps],
        "findings": finding_documents(outcome),
        "ok": outcome.exit_code is Exit.FINE,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "purpose": step.purpose,
        "sql": list(step.texts),
        "why": step.why,
        "note": step.note,
        "advice": step.is_advice,
    }


def severity(finding: Finding) -> str:
    """A finding's, as people and JSON have it."""
    return "problem" if finding.is_problem else "note"


def text(outcome: Outcome) -> str:
    """SQL with everything else as comments, so that it can be piped into psql."""
    lines: list[str] = []
    if outcome.server is not None:
        server = outcome.server
        version = f"{server.version // 10000}.{server.version % 10000}"
        lines += comment(f"Postgres {version}, database {server.database}, as {server.user}")
    for step in outcome.applied:
        lines += ["", *comment(f"done: {step.why}"), *_note(step), *(f"-- {line}" for line in statements(step))]
    if outcome.plan.to_run and not outcome.is_applied:
        again = f"{outcome.removes_by or 'setup'} --apply"
        lines += comment(f"nothing has been changed; run this as a role that owns the tables, or: {again}")
    for step in outcome.plan.steps:
        lead = "recommended: " if step.is_advice else ""
        sql = [f"-- {line}" for line in statements(step)] if step.is_advice else statements(step)
        lines += ["", *comment(lead + step.why), *_note(step), *sql]
    for finding in outcome.plan.findings:
        lines += ["", *finding_lines(finding)]
    if not outcome.plan.to_run and not outcome.plan.problems and not (outcome.is_up_to_others or outcome.has_more):
        what = "nothing is left to take away" if outcome.removes_by else "the database has all that the rules need"
        lines += ["", *comment(what)]
    return "\n".join(lines)


def finding_lines(finding: Finding) -> list[str]:
    """What is left for somebody to do, as comments."""
    said = comment(f"{severity(finding)}: {finding.text}")
    return [*said, *(comment(f"  fix: {finding.fix}") if finding.fix else [])]


def _note(step: Step) -> list[str]:
    return comment(f"  {step.note}") if step.note else []


def comment(text: str) -> list[str]:
    """Names in it may hold line breaks, and what follows one would be run as SQL."""
    from invalidator.yamlfile.diagnostic import printable

    return [f"-- {printable(line)}" for line in text.split("\n")]
