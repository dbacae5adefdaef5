"""Secrets leave every text before it is logged or shown."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"

SECRET_NAME: Final = re.compile(r"(?i)(?:^|_)(?:password|passwd|secret|token|api_?key|authorization|credential)s?$")
"""Field names whose values are never shown."""

# Up to the last "@" before a blank: a password that was not escaped may hold "@" and "/".
_URL_PASSWORD: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/?#@]*):[^\s]*@", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    r"(?i)\b([a-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|fastly-key))(\s*[=:]\s*)('(?:[^'\\]|\\.)*'|[^\s&,;'\"]+)"
)
_AUTHORIZATION: Final = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9+/=._~-]{6,}")


def redact(text: str) -> str:
    """The text without passwords of URLs and connection strings, tokens, keys and authorization headers."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _ASSIGNED.sub(rf"\1\2{MASK}", text)
    return _AUTHORIZATION.sub(rf"\1 {MASK}", text)
