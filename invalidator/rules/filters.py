"""The filters of templates: what a value passes through on its way into a name. Values are bytes from end to end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_from_bytes


def encode(text: str) -> bytes:
    """Text of a rule or name of the database as bytes; undecodable bytes of a name come back as they were."""
    return text.encode("utf-8", "surrogateescape")


def _lower(value: bytes) -> bytes:
    return encode(value.decode("utf-8", "surrogateescape").lower())


def _upper(value: bytes) -> bytes:
    return encode(value.decode("utf-8", "surrogateescape").upper())


def _trim(value: bytes) -> bytes:
    return encode(value.decode("utf-8", "surrogateescape").strip())


def _urlencode(value: bytes) -> bytes:
    return quote_from_bytes(value, safe="").encode("ascii")  # always safe: letters, digits and "_.-~" (RFC 3986 §2.3)


def _md5(value: bytes) -> bytes:
    return hashlib.md5(value, usedforsecurity=False).hexdigest().encode("ascii")


def _sha1(value: bytes) -> bytes:
    return hashlib.sha1(value, usedforsecurity=False).hexdigest().encode("ascii")


def _sha256(value: bytes) -> bytes:
    return hashlib.sha256(value).hexdigest().encode("ascii")


def _hashtag(value: bytes) -> bytes:
    return b"{" + value + b"}"  # Redis Cluster hashes only what stands between the first pair of braces


FILTERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "lower": _lower,
    "upper": _upper,
    "trim": _trim,
    "urlencode": _urlencode,
    "md5": _md5,
    "sha1": _sha1,
    "sha256": _sha256,
    "hashtag": _hashtag,
}
"""Filters without an argument, by name. They never see NULL: it passes through all of them but ``default``."""

DEFAULT: Final = "default"
"""The filter that replaces NULL by its argument."""
