"""Puts a condition into the source of a row function: as a call with the values that the source has read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from invalidator.model import Operation
from invalidator.rules.condition.code import Compiled, Image, Missing, compile_condition
from invalidator.rules.condition.kinds import Kind
from invalidator.rules.condition.tree import Condition
from invalidator.rules.reading import Images


@dataclass(frozen=True, slots=True)
class FormRow:
    """Implements :class:`invalidator.rules.condition.code.Row` over the images of one form of message."""

    source: Images

    @property
    def images(self) -> Sequence[Image]:
        """The images there are; with both, the new one first."""
        form = self.source.form
        there: tuple[Image, ...] = ("new",) if form.has_new else ()
        return (*there, "old") if form.old else there

    def value(self, image: Image, column: str) -> str | Missing:
        """The name of a value in the source."""
        if image not in self.images:
            return Missing.NO_IMAGE
        at = self.source.columns[column]
        name = self.source.new_value(at) if image == "new" else self.source.old_value(at)
        return Missing.NOT_CARRIED if name is None else name

    def change(self, column: str) -> bool | tuple[str, str] | str:
        """Whether a column changed, as ``changed:`` of a rule sees it."""
        if self.source.form.operation is not Operation.UPDATE:
            return True
        at = self.source.columns[column]
        if self.source.form.old == "N" and at in self.source.key_columns:
            return False  # or the old identity would have been sent
        old = self.source.old_value(at)
        if old is not None:
            return old, self.source.new_value(at)
        return self.source.was_sent(at).partition(" ")[0]


def condition_source(
    condition: Condition, kinds: Mapping[str, Kind], images: Images, name: Callable[[object], str]
) -> str | bool:
    """The expression that is true if the condition may hold; a bool if that is known already.

    Args:
        condition: what is asked; its columns must fit (``type_problems``).
        kinds: the kind of every column.
        images: asked for the values that are needed.
        name: gives the name under which the source finds an object.
    """
    made = compile_condition(condition, kinds, FormRow(images))
    if made.exact == made.may and isinstance(made.may, bool):
        return made.may
    exact, may = _call(made, made.exact, name), _call(made, made.may, name)
    sent = " and ".join(f"{argument} is not False" for argument in made.arguments)
    return f"({exact} if {sent} else {may})"


def _call(made: Compiled, function: Callable[..., bool] | bool, name: Callable[[object], str]) -> str:
    return str(function) if isinstance(function, bool) else f"{name(function)}({', '.join(made.arguments)})"
