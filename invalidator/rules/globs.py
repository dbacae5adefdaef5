"""Globs: row values inside them are data, never syntax."""

from __future__ import annotations

import re
from typing import Final

_SPECIAL: Final = re.compile(rb"[*?\[\\]")
_ESCAPED: Final = {b"*": b"[*]", b"?": b"[?]", b"[": b"[[]", b"\\": b"[\\\\]"}
"""One-character classes: Redis and Python's ``fnmatch`` both read them so; ``fnmatch`` knows no backslash escapes.

A lone ``]`` is no syntax outside a class in either, and no value can open one.
"""


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


def name_matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression for a schema or table name in which only ``*`` is special; use ``fullmatch``."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
