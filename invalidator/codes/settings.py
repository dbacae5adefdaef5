"""Codes about the settings, and about rules that do not fit them."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Settings"

CODES: Final = (
    Code(
        "bad-settings",
        "error",
        "A variable, an option or a secrets directory is wrong; or there are no settings.",
        "A misspelled variable that is passed over is a setting that is not in force.",
        "INVALIDATOR_LOGLEVEL=debug invalidator check",
        "INVALIDATOR_LOG__LEVEL=debug invalidator check",
        "sh",
    ),
    Code(
        "unknown-type",
        "error",
        "There is no source or target of this type.",
        "",
        "targets:\n  redis: {type: redis, url: redis://localhost:6379/0}",
        "targets:\n  redis: {type: redis_keys, url: redis://localhost:6379/0}",
        "settings",
    ),
    Code(
        "cdn-tag-grammar",
        "error",
        "A configured CDN cannot carry this tag: it holds a character that the provider does not take, or is too long.",
        "A blank or a comma separates tags: the CDN would purge two other tags instead.",
    ),
)
