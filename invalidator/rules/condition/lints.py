"""What can be said of a condition without a database: never true for an event, true for all, blind for rows that leave.

A term about values that exist may be either, as far as is known here; so whatever is said is certain, but not all that
could be said is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from invalidator.model import Operation
from invalidator.rules.condition.code import Image, Missing, certainty, possibility
from invalidator.rules.condition.tree import Changed, Column, Condition, columns_of, terms_of

_IMAGES: Final[dict[Operation, tuple[Image, ...]]] = {
    Operation.INSERT: ("new",),
    Operation.UPDATE: ("new", "old"),
    Operation.DELETE: ("old",),
}


@dataclass(frozen=True, slots=True)
class Lint:
    """Something that the author hardly meant, at a place in the condition's text."""

    code: str
    severity: Literal["error", "warning"]
    message: str
    offset: int
    width: int
    why: str | None = None
    help: str | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """A row of which nothing is known but which images there are."""

    images: Sequence[Image]

    def value(self, image: Image, _column: str) -> str | Missing:
        return Missing.NOT_CARRIED if image in self.images else Missing.NO_IMAGE

    def change(self, _column: str) -> bool | tuple[str, str] | str:
        return True if len(self.images) == 1 else "changed"


def lint(condition: Condition, events: AbstractSet[Operation]) -> list[Lint]:
    """What is to be said of the condition of a rule that looks at these events."""
    decided = {operation: _decide(condition, images) for operation, images in _IMAGES.items() if operation in events}
    whole = 0, max(1, len(condition.text))
    if not decided:
        message = "the rule looks at no event that has a row, so its condition is never asked"
        return [Lint("condition-never", "error", message, *whole, help="remove `when:`, or add events")]
    if not any(may for may, _ in decided.values()):
        names = _listed(list(decided))
        message = f"this is never true for {names}, so the rule never fires"
        return [Lint("condition-never", "error", message, *_place(condition), help=_bare(condition))]
    if not any(may_not for _, may_not in decided.values()):
        message = "this is true for every row"
        return [Lint("condition-always", "warning", message, *whole, help="remove `when:`")]
    return [*_never(condition, decided), *_leaves(condition, events)]


def _decide(condition: Condition, images: Sequence[Image]) -> tuple[bool, bool]:
    """Whether it can be true, and whether it can be false, for rows of these images."""
    shape = _Shape(images)
    (may, _), (must, _) = possibility(condition, {}, shape), certainty(condition, {}, shape)
    return may is not False, must is not True


def _never(condition: Condition, decided: dict[Operation, tuple[bool, bool]]) -> Iterator[Lint]:
    never = [operation for operation, (may, _) in decided.items() if not may]
    if not never:
        return
    image = "new" if Operation.DELETE in never else "old"
    yield Lint(
        "condition-never",
        "warning",
        f"this is never true for {_listed(never)}: there is no {image} row then",
        *_place(condition),
        why="what the row is cached under stays stale",
        help=f"{_bare(condition)}; or leave {_listed(never)} out of events:",
    )


def _leaves(condition: Condition, events: AbstractSet[Operation]) -> Iterator[Lint]:
    """Who writes ``changed`` or ``old.`` has thought of transitions."""
    asks_otherwise = any(isinstance(term, Changed) for term in terms_of(condition.node))
    if Operation.UPDATE in events and not asks_otherwise and {scope for scope, _ in condition.references} == {"new"}:
        yield Lint(
            "condition-leaves",
            "warning",
            "an update that ends this is not seen: only the row after it is asked",
            *_place(condition),
            why="a row that no longer fulfils the condition is still cached as it was",
            help=_bare(condition),
        )


def _place(condition: Condition) -> tuple[int, int]:
    column = _first_scoped(condition)
    return (0, max(1, len(condition.text))) if column is None else (column.offset, column.width)


def _bare(condition: Condition) -> str:
    column = _first_scoped(condition)
    if column is None:
        return "ask for something that can be"
    return f"write {column.name} instead of {column.scope}.{column.name}: it asks for the row before and after"


def _first_scoped(condition: Condition) -> Column | None:
    columns = (
        column
        for term in terms_of(condition.node)
        if not isinstance(term, Changed)
        for column in columns_of(term)
        if column.scope != "row"
    )
    return next(columns, None)


def _listed(operations: Sequence[Operation]) -> str:
    return " and ".join(operations) if len(operations) < 3 else "any event"
