"""Writes YAML in many styles, also what no dumper would write: keys given twice, scalars as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st


@dataclass(frozen=True)
class Raw:
    """Text that is written as it is."""

    text: str


@dataclass
class Node:
    """A mapping with keys in any number and order."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


def _plain_if_safe(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z][\w.:-]*\w", text, re.ASCII) else _single(text)


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_QUOTES: Final[Sequence[Callable[[str], str]]] = (json.dumps, _plain_if_safe, _single, _plain_if_safe)


@dataclass
class Writer:
    """YAML in the styles that were drawn, one after the other."""

    flow_from: int
    """The depth from which on everything stands in brackets."""
    styles: Sequence[int]
    used: int = 0

    def lines(self, value: Any, depth: int = 0) -> Iterator[str]:
        """The lines of a value at the beginning of a line."""
        pad = "  " * depth
        is_block = depth < self.flow_from
        if isinstance(value, Node) and value.pairs and is_block:
            for key, inner in value.pairs:
                yield from self._entry(f"{pad}{self._key(key)}:", inner, depth)
        elif isinstance(value, list) and value and is_block:
            for inner in value:
                yield from self._entry(f"{pad}-", inner, depth)
        else:
            yield pad + self.flow(value)

    def _entry(self, lead: str, value: Any, depth: int) -> Iterator[str]:
        if isinstance(value, Node | list) and (value.pairs if isinstance(value, Node) else value):
            if depth + 1 < self.flow_from:
                yield lead
                yield from self.lines(value, depth + 1)
                return
        elif isinstance(value, str) and self._style() == _BLOCK and value.strip():
            yield f"{lead} {'|>'[len(value) % 2]}{('-', '', '+')[len(value) % 3]}"
            yield from ("  " * (depth + 1) + line for line in value.split("\n"))
            return
        yield f"{lead} {self.flow(value)}"

    def flow(self, value: Any) -> str:
        match value:
            case Node():
                return "{" + ", ".join(f"{self._key(key)}: {self.flow(inner)}" for key, inner in value.pairs) + "}"
            case list():
                return "[" + ", ".join(map(self.flow, value)) + "]"
            case Raw():
                return value.text
            case str():
                style = self._style()
                return value if style == _VERBATIM else _QUOTES[style % len(_QUOTES)](value)
            case _:
                return json.dumps(value)

    def _key(self, key: str) -> str:
        return key if self._style() == _VERBATIM else _plain_if_safe(key)

    def _style(self) -> int:
        self.used += 1
        return self.styles[self.used % len(self.styles)]


_BLOCK, _VERBATIM, _LAST = 29, 30, 39
STYLES: Final = st.lists(st.integers(0, _LAST), min_size=5, max_size=5)
