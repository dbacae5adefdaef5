"""Python source under construction: what it refers to, and how it is indented.

Nothing of a rule or of the database enters the source as text. Objects are bound to numbered names; bytes and
integers are written by ``repr``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Namespace:
    """The objects that generated source refers to, each under a numbered name."""

    def __init__(self, known: Mapping[str, object]) -> None:
        self._objects = dict(known)
        self._names: dict[int, str] = {}

    def name(self, value: object) -> str:
        """The name under which the source finds this very object."""
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = f"x{len(self._names)}"
            self._objects[name] = value  # also keeps it alive, so that its id stays its own
        return name

    def function(self, lines: Sequence[str], name: str) -> Callable[..., Any]:
        """Run the lines and return the function that they define under this name."""
        exec("\n".join(lines), self._objects)  # noqa: S102  (no text from outside: see above)
        made: Callable[..., Any] = self._objects.pop(name)  # type: ignore[assignment]
        return made


def indented(lines: Sequence[str], levels: int = 1) -> list[str]:
    """The lines, moved right."""
    return ["    " * levels + line for line in lines]
