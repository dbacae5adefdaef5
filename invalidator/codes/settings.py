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
    Code(
        "layer-without-target",
        "info",
        "The rules name keys, tags, L1 patterns or CDN tags, and no target of these settings holds such. Told once for"
        " each group.",
        "They are dropped nowhere. That is right where there is no such cache, as on a developer's machine, and a stale"
        " cache where there is one.",
    ),
    Code(
        "pooler-dsn",
        "warning",
        "The host of `source.dsn` is called like a connection pooler. For a port that poolers often have it is a hint.",
        "Most poolers let no replication through, and the daemon would not start. Lookups may go through one:"
        " `lookups.dsn`.",
        "source:\n  dsn: postgresql://invalidator@ep-quiet-1-pooler.eu.neon.tech/shop",
        "source:\n  dsn: postgresql://invalidator@ep-quiet-1.eu.neon.tech/shop",
        "settings",
    ),
    Code(
        "messages-allow-nothing",
        "warning",
        "`source.messages.enabled` is true, and `source.messages.allow` names no prefix.",
        "Every message would be refused, because a kind without a prefix may not be named at all.",
        "source: {type: pgoutput, messages: {enabled: true}}",
        'source: {type: pgoutput, messages: {enabled: true, allow: {keys: ["cms:"]}}}',
        "settings",
    ),
    Code(
        "debt-unwritten",
        "warning",
        "`continuity.wal: widen_and_skip` is set, and no target keeps a record: there is no `redis_keys`, and no"
        " `state.path` for a CDN.",
        "A position may go on without a target only when it is written down that everything there is to be dropped."
        " Where that cannot be written down, the position waits until the slot is lost or the disk is full.",
        "continuity: {wal: widen_and_skip}\ntargets:\n  edge: {type: varnish, url: http://varnish}",
        "continuity: {wal: widen_and_skip}\nstate: {path: /var/lib/invalidator/state.db}\ntargets:\n"
        "  edge: {type: varnish, url: http://varnish}",
        "settings",
    ),
    Code(
        "wal-bound-unused",
        "warning",
        "`continuity.wal_share` or `continuity.wal_bytes` is set, and nothing looks at it.",
        "They tell when `continuity.wal: widen_and_skip` goes on without a target that fails. With `stall`, or with a"
        " source that has no replication slot, a position waits however much WAL is kept.",
        "continuity: {wal_bytes: 10000000000}",
        "continuity: {wal: widen_and_skip, wal_bytes: 10000000000}",
        "settings",
    ),
)
