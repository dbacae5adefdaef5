"""Globs: row values inside them are data, never syntax."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_SPECIAL: Final = re.compile(rb"[*?\[\\]")
_ESCAPED: Final = {b"*": b"[*]", b"?": b"[?]", b"[": b"[[]", b"\\": b"[\\\\]"}
"""One-character classes: Redis and Python's ``fnmatch`` both read them so; ``fnmatch`` knows no backslash escapes.

A lone ``]`` is no syntax outside a class in either, and no value can open one.
"""


_COMPLETE: Final = re.compile(r"(?s:\\.|\[\^?(?>\\.|[^\]\\]-.|[^\]\\])*+\]|[^\\\[])*+")


def escape(value: bytes) -> bytes:
    """The glob that matches exactly this value."""
    return _SPECIAL.sub(_replacement, value)


def escape_for_message(value: bytes) -> bytes | None:
    """The same for a glob that travels in a JSON message; None if the message cannot hold the value."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return escape(value)


def _replacement(match: re.Match[bytes]) -> bytes:
    return _ESCAPED[match[0]]


def open_at_end(glob: str) -> int | None:
    """Where something begins that would take the next character for its own: a class, or a lone backslash.

    Read as Redis reads it: ``^`` first in a class negates, a backslash in it escapes, and a range takes any character
    as its end, also ``]`` (util.c, stringmatchlen).
    """
    match = _COMPLETE.match(glob)
    end = match.end() if match else 0
    return None if end == len(glob) else end


def escape_text(text: str) -> str:
    """The glob that matches exactly this text."""
    return escape(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


@lru_cache(maxsize=4096)
def name_matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression for a schema or table name in which only ``*`` is special; use ``fullmatch``.

    What stands between two stars is taken where it comes first, once and for all: trying the other places too would
    find no more, and takes time without bound when there are many stars.
    """
    first, *others = map(re.escape, pattern.split("*"))
    if not others:
        return re.compile(first)
    *between, last = others
    return re.compile(first + "".join(f"(?>.*?{each})" for each in between) + f".*{last}", re.DOTALL)
