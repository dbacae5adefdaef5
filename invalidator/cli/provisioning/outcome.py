"""What came of a plan for a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from invalidator.cli._exits import Exit

if TYPE_CHECKING:
    from invalidator.postgres.catalog import Server
    from invalidator.postgres.provision import Mark, Plan, Step


@dataclass(slots=True)
class Outcome:
    """A plan, and what was done of it."""

    plan: Plan
    server: Server | None = None
    applied: tuple[Step, ...] = ()
    is_applied: bool = False
    removes_by: str | None = None
    """The command that takes away instead of making."""
    has_more: bool = False
    """There is something to do outside of the database."""

    @property
    def differing(self) -> list[Mark]:
        """The objects that are not as wanted."""
        return [mark for mark in self.plan.marks if mark.sign != "="]

    @property
    def is_up_to_others(self) -> bool:
        """Whether triggers are recommended, of which nobody knows whether they are needed."""
        return any(step.is_advice and step.purpose == "triggers" for step in self.plan.steps)

    @property
    def exit_code(self) -> Exit:
        """1 if something is left for somebody to do."""
        return Exit.PROBLEMS if self.plan.problems or (self.is_applied and self.plan.to_run) else Exit.FINE


def statements(step: Step) -> list[str]:
    """Its SQL by line; several statements stand in one transaction."""
    texts = step.texts
    if len(texts) == 1 or step.is_advice:
        return [line for text in texts for line in text.split("\n")]
    return ["BEGIN;", *(line for text in texts for line in text.split("\n")), "COMMIT;"]
