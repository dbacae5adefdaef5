"""The text of a template as it is written: what in it is literal, and where that is no plain text to a glob."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from invalidator.rules import globs

REFERENCE: Final = re.compile(r"""\{\{|\}\}|\{(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^{}"'])*\}""")
"""A reference, or a doubled brace."""

_GLOB: Final = re.compile(r"[*?\[]")


def glob_offset(text: str) -> int | None:
    """Where the first glob character of a template's literal text stands."""
    literal_text = REFERENCE.sub(lambda match: " " * len(match[0]), text)
    found = _GLOB.search(literal_text)
    return found.start() if found else None


def map_literals(change: Callable[[str], str], text: str) -> str:
    """The template's text with only what stands between its references changed."""
    pieces: list[str] = []
    start = 0
    for match in REFERENCE.finditer(text):
        pieces += [change(text[start : match.start()]), match[0]]
        start = match.end()
    return "".join([*pieces, change(text[start:])])


def open_glob(text: str) -> int | None:
    """Where a class or a backslash stands in a template that a reference behind it would fall into."""
    start, literal_text, offsets = 0, "", list[int]()
    for match in REFERENCE.finditer(text):
        literal_text += text[start : match.start()]
        offsets += range(start, match.start())
        start = match.end()
        if match[0] in {"{{", "}}"}:
            literal_text += match[0][0]
            offsets.append(match.start())
            continue
        found = globs.open_at_end(literal_text)
        if found is not None:
            return offsets[found]
        literal_text, offsets = "", []
    return None
