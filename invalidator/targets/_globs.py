"""Globs as Redis reads them, for the targets that get patterns. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_SPECIAL: Final = re.compile(rb"[*?\[\\]")
_ESCAPED: Final = {b"*": b"[*]", b"?": b"[?]", b"[": b"[[]", b"\\": b"[\\\\]"}
"""One-character classes, because Python's ``fnmatch`` reads them like Redis does and knows no backslash escapes."""
_PIECE: Final = re.compile(rb"\[(?P<plain>[*?\[])\]|(?P<backslash>\[\\\\\])|(?P<special>[*?\[\\])", re.DOTALL)


def escape(literal: bytes) -> bytes:
    """The glob that matches just this."""
    return _SPECIAL.sub(lambda match: _ESCAPED[match[0]], literal)


def literal(glob: bytes) -> bytes | None:
    """The one name that the glob matches; None when it may match several."""
    if b"[" not in glob and _SPECIAL.search(glob) is None:
        return glob
    if any(match["special"] is not None for match in _PIECE.finditer(glob)):
        return None
    return _PIECE.sub(lambda match: b"\\" if match["plain"] is None else match["plain"], glob)


def literal_prefix(glob: bytes) -> bytes:
    """What every name that the glob matches begins with, as far as that is plain to see."""
    match = _SPECIAL.search(glob)
    return glob if match is None else glob[: match.start()]


def uncovered(globs: Iterable[bytes]) -> list[bytes]:
    """The globs without those that another one covers, as ``user:*`` covers ``user:7:*``."""
    kept: list[bytes] = []
    prefixes: list[bytes] = []
    for glob in sorted(globs, key=lambda glob: (len(literal_prefix(glob)), glob)):  # what covers comes first
        if not any(literal_prefix(glob).startswith(prefix) for prefix in prefixes):
            kept.append(glob)
            if glob.endswith(b"*") and len(literal_prefix(glob)) == len(glob) - 1:
                prefixes.append(glob[:-1])
    return kept
