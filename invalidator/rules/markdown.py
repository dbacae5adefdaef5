"""Rule files that stand in Markdown pages, with their places in the page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Final

from invalidator.yamlfile import split_lines

SUFFIXES: Final = (".md", ".markdown")

_FENCE: Final = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([^`]*)$")
_LANGUAGES: Final = ("yaml", "yml")
_RULES: Final = re.compile(r"^(rules:|version: *1 *$)", re.MULTILINE)
_SETTINGS: Final = re.compile(r"^(source|targets):", re.MULTILINE)


def rule_blocks(page: str) -> list[str]:
    """The text of each fenced block that is a rule file, behind as many empty lines as stand before it in the page.

    That is a block marked ``yaml`` and nothing else (``yaml invalid`` is not) with ``rules:`` or ``version: 1``, unless
    it has settings in it.
    """
    return ["\n" * start + text for start, text in _yaml_blocks(page) if _is_rule_file(text)]


def _is_rule_file(text: str) -> bool:
    flush = textwrap.dedent(text)
    return _RULES.search(flush) is not None and _SETTINGS.search(flush) is None


def _yaml_blocks(page: str) -> Iterator[tuple[int, str]]:
    """The number of lines before each block's first one, and its text; a block without an end reaches to the page's."""
    lines = split_lines(page)
    fence, is_yaml, start = "", False, 0
    for number, line in enumerate([*lines, ""]):
        found = _FENCE.match(line)
        if not fence:
            if found is not None:
                fence, is_yaml, start = found[1], found[2].strip().lower() in _LANGUAGES, number + 1
        elif number == len(lines) or (found is not None and found[1].startswith(fence) and not found[2].strip()):
            if is_yaml:
                yield start, "".join(f"{each}\n" for each in lines[start:number])
            fence = ""
