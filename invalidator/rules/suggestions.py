"""What people call the fields of rules who know another tool."""

from __future__ import annotations

from typing import Final

SUGGESTIONS: Final = {
    "on": "events",
    "before": "old",
    "after": "new",
    "event": "events",
    "operations": "events",
    "columns": "changed",
    "bulk": "bulk_over",
    "truncate": "coarse",
    "overflow": "coarse",
    "fallback": "coarse",
    "repeat": "repeat_after",
    "delay": "repeat_after",
    "if": "when",
    "where": "when",
    "filter": "when",
    "condition": "when",
    "schema": "table",
    "relation": "table",
    "query": "sql",
    "select": "sql",
    "max_rows": "limit",
    "l2": "keys",
    "key": "keys",
    "tag": "tags",
    "redis": "keys",
    "unlink": "keys",
    "l3": "cdn",
    "purge": "cdn",
    "surrogate_keys": "cdn",
    "cache_tags": "cdn",
    "patterns": "l1",
}
"""What people write who know another tool → the field here, in whatever mapping has it."""
