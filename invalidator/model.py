"""The words of the pipeline as values. No I/O, no clock, no behaviour beyond what defines the value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, Self

_LSN: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


@dataclass(frozen=True, slots=True, order=True)
class Lsn:
    """A position in the write-ahead log; ordered, and deliberately without arithmetic.

    Payload bytes are not WAL bytes: a position that was computed instead of received can lie ahead of
    what was delivered, and confirming it makes Postgres skip committed transactions.
    """

    value: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form that Postgres prints, ``16/B374D848``.

        Raises:
            ValueError: the text is no LSN.
        """
        match = _LSN.fullmatch(text)
        if match is None:
            msg = f"{text!r} is not an LSN such as 16/B374D848"
            raise ValueError(msg)
        return cls((int(match[1], 16) << 32) | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.value >> 32:X}/{self.value & 0xFFFFFFFF:X}"


ENUM_OID: Final = 3500
"""``anyenum``, for every enum: their own OIDs say nothing."""
OPAQUE_OID: Final = 0


class Layer(Enum):
    """Where stale entries live. Iteration order is the order of application: inner layers first.

    An outer layer that is emptied first refills from the stale inner one and keeps that.
    """

    L2 = "L2"  # Redis and its relatives: unlink
    L1 = "L1"  # in-process caches: publish
    L3 = "L3"  # CDNs and reverse proxies: purge


class Operation(StrEnum):
    """What happened to a row, or to all rows of a relation."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"


class WidenReason(StrEnum):
    """Why a coarse form was applied instead of the exact one."""

    TRUNCATE = "truncate"
    BULK = "bulk"
    OLD_UNAVAILABLE = "old_unavailable"  # the replica identity does not hold the column
    VALUE_UNAVAILABLE = "value_unavailable"  # an unchanged TOAST value that was not sent
    UNSAFE_VALUE = "unsafe_value"  # the value cannot be written in the destination's grammar
    MISSING_COLUMN = "missing_column"  # the relation has no such column (any more)
    RULE_ERROR = "rule_error"
    LOOKUP_OVERFLOW = "lookup_overflow"  # more related rows than the lookup's limit
    LOOKUP_TIMEOUT = "lookup_timeout"
    LOOKUP_ERROR = "lookup_error"
    CAPTURE_FAILED = "capture_failed"  # a trigger could not write down what changed
    CATALOG_CHANGED = "catalog_changed"  # DDL that says nothing of rows


AFTER_GAP: Final = "gap"
"""Counted beside the reasons of rows: changes are missing, or may be, and the coarse form made up for them."""


class GapReason(StrEnum):
    """How changes went missing, or what makes us unsure."""

    FIRST_START = "first_start"  # nobody knows how old the caches are; only with ``on_first_start: widen``
    SLOT_MISSING = "slot_missing"
    WAL_REMOVED = "wal_removed"  # the slot was lost: size limit, or a reason that the server does not tell
    IDLE_TIMEOUT = "idle_timeout"  # the slot was lost: ``idle_replication_slot_timeout``
    ROWS_REMOVED = "rows_removed"  # the slot was lost: a conflict on a standby
    POSITION_AHEAD = "position_ahead"  # the slot goes on behind what we have applied
    OTHER_HISTORY = "other_history"  # another cluster, or a promoted standby
    TARGET_LOST_WRITES = "target_lost_writes"  # a Redis that forgot what it had answered
    CATALOG_CHANGED = "catalog_changed"  # something happened to tables that the stream says nothing of
    WAL_SKIPPED = "wal_skipped"  # confirmed without a target, because the slot would have been lost
    OUTBOX_EMPTIED = "outbox_emptied"  # somebody else removed rows of the outbox
    NOT_LISTENING = "not_listening"  # notifications of that time went to nobody


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes that never come, or that one target has lost again."""

    reason: GapReason
    detail: str
    """For people: positions, names."""
    target: str | None = None
    """The only one that lost something, and with it those of outer layers, which may have been filled from it; None:
    changes never came, so it concerns all."""
    tables: frozenset[str] | None = None
    """``schema.table`` of the only tables whose changes are missing; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the Relation message names it."""

    name: str
    type_oid: int
    is_identity: bool  # part of the replica identity, so its old value is sent
    base_oid: int | None = None
    """The type that values really are of: under a domain its base type, for any enum ``ENUM_OID``, ``OPAQUE_OID`` for
    types whose equality is not that of their text; None: the type itself, because nobody looked it up."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the stream names it: the names are raw, without quotes.

    ``schema`` and ``table`` are what rules match: of the partition root when the stream names a leaf.
    """

    oid: int
    schema: str
    table: str
    replica_identity: str  # d(efault), n(othing), f(ull), i(ndex)
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """``schema.table``."""
        return f"{self.schema}.{self.table}"


def readings(name: str) -> list[tuple[str, str]]:
    """The schemas and tables that ``schema.table`` may stand for: several where a dot is a part of one of them."""
    return [(name[:at], name[at + 1 :]) for at, character in enumerate(name) if character == "."]


@dataclass(slots=True)
class Transaction:
    """The open transaction, as far as rules may ask for it."""

    final_lsn: int  # start of the commit record (Begin message)
    xid: int
    commit_time: int  # microseconds since 2000-01-01 UTC, as Postgres sends it
    bulk_rows: dict[tuple[int, str], int] = field(default_factory=dict)
    """Rows so far by rule index and relation: a coarse form covers one relation, also of a rule for many."""


@dataclass(slots=True)
class Invalidation:
    """What is stale: sets of distinct names per destination, as bytes ready for the wire.

    Memory follows the number of distinct names, never the number of rows.
    """

    keys: set[bytes] = field(default_factory=set)
    """L2 keys to unlink, exact."""
    tags: set[bytes] = field(default_factory=set)
    """L2 tags, without the target's tag prefix: every key in the tag set is unlinked, then the set."""
    key_patterns: set[bytes] = field(default_factory=set)
    """Globs over L2 keys (found by SCAN). Only coarse forms make them."""
    tag_patterns: set[bytes] = field(default_factory=set)
    """Globs over L2 tags, without the tag prefix. Only coarse forms make them."""
    l1: set[bytes] = field(default_factory=set)
    """Globs for in-process caches; row values in them are escaped as ``[*]``. ``*`` alone clears."""
    cdn: set[bytes] = field(default_factory=set)
    """CDN tags to purge."""
    cdn_soft: set[bytes] = field(default_factory=set)
    """CDN tags to mark stale. A tag that is also in ``cdn`` is purged."""
    cdn_all: bool = False
    """Everything at the CDNs is stale; applied only by targets whose settings consent to it."""
    repeats: dict[tuple[float, ...], Invalidation] = field(default_factory=dict)
    """Delays in seconds -> what is applied again after each of them (a subset of this invalidation)."""
    lookups: dict[Any, set[tuple[bytes | None, ...]]] = field(default_factory=dict)
    """Lookup plan -> the distinct row values that it is to be asked for. Answered, and emptied, before delivery."""
    lookup_transactions: dict[int, int] = field(default_factory=dict)
    """xid -> start of its commit record, of each transaction that asked: a lookup must see what it committed."""

    def __len__(self) -> int:
        return (
            len(self.keys)
            + len(self.tags)
            + len(self.key_patterns)
            + len(self.tag_patterns)
            + len(self.l1)
            + len(self.cdn)
            + len(self.cdn_soft)
            + self.cdn_all
            + (sum(map(len, self.lookups.values())) if self.lookups else 0)
        )

    def __bool__(self) -> bool:
        return len(self) > 0

    def repeated(self, delays: tuple[float, ...]) -> Invalidation:
        """The part that is applied again after these delays (seconds); made on first use."""
        part = self.repeats.get(delays)
        if part is None:
            part = self.repeats[delays] = Invalidation()
        return part


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where a connection to the source begins."""

    system: str
    """``pg_control_system().system_identifier``: names a cluster over all of its life. Of an outbox with the OIDs of
    its database and table behind it."""
    timeline: int
    """Counts the promotions of that cluster."""
    position: Lsn
    """Everything before it is not sent (again)."""
    gap: Gap | None = None
    """What the source knows to be missing before this."""
    end: Lsn | None = None
    """The end of the log when the connection began."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Merged invalidations of consecutive transactions, and how far they reach."""

    invalidation: Invalidation = field(default_factory=Invalidation)
    end: Lsn | None = None
    """What may be confirmed once this batch and all before it are applied; None inside a transaction."""
    oldest_commit_time: float | None = None
    """Unix seconds on the server's clock of the first commit in here; None for an empty batch."""
    heartbeat: float | None = None
    """Unix seconds on our clock at which the newest heartbeat in here was sent, if one came back."""
    is_repeat: bool = False
    """Applied before: a delayed repeat, which is not repeated once more."""
    start: StreamStart | None = None
    """The first batch of a connection says where it begins; it holds nothing else."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What one application of a batch did, for metrics and the demo's view."""

    keys: int = 0
    tags: int = 0
    patterns: int = 0
    cdn_tags: int = 0
    removed: int = 0
    """Entries that really were there: keys unlinked, objects purged (where the target tells)."""
    receivers: int = 0
    """Subscribers that a publication reached (L1)."""
    widened: int = 0
    """Names for which more was dropped than they say, because the target could not express them."""
    is_deferred: bool = False
    """A journal has taken it durably, and works it off by itself: nothing was dropped yet."""
