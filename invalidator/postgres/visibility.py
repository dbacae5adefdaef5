"""Whether a snapshot sees a transaction that the stream has told of. No I/O.

Logical decoding reads a commit from the WAL, and a session sees it only once the committing backend has left the list
of running transactions. In between lies at least a moment; with synchronous replication a network round trip to the
standby, or for ever when the standby is away. On a standby lies the time until the record is replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from invalidator.model import Lsn

_HALF: int = 1 << 31
_WHOLE: int = 1 << 32

SEEN_SQL = (
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text, "
    "pg_catalog.pg_current_snapshot()::text"
)
"""What :func:`Seen.parse` reads; a statement after it sees at least as much (READ COMMITTED)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What ``pg_current_snapshot()`` says, with 64-bit transaction numbers."""

    xmax: int
    """The first number that is not yet taken."""
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read ``xmin:xmax:running,running``."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def sees(self, xid: int) -> bool:
        """Whether the transaction with this 32-bit number has ended for this snapshot.

        The stream names transactions by their low 32 bits: the one meant is the nearest to the snapshot.
        """
        full = xid + (self.xmax & ~(_WHOLE - 1))
        if full - self.xmax >= _HALF:
            full -= _WHOLE
        elif self.xmax - full > _HALF:
            full += _WHOLE
        return full < self.xmax and full not in self.running


@dataclass(frozen=True, slots=True)
class Seen:
    """What a session sees at a moment."""

    in_recovery: bool
    replayed: Lsn | None
    snapshot: Snapshot

    @classmethod
    def parse(cls, in_recovery: bytes | None, replayed: bytes | None, snapshot: bytes | None) -> Seen:
        """Read the row of ``SEEN_SQL`` in text form."""
        position = None if replayed is None else Lsn.parse(replayed.decode())
        return cls(in_recovery == b"t", position, Snapshot.parse((snapshot or b"0:0:").decode()))

    def all(self, transactions: Mapping[int, int]) -> bool:
        """Whether all of them are visible.

        A standby does not list running transactions in ``pg_current_snapshot()``, but it applies a commit record before
        its replay position moves beyond it: that is what counts there.

        Args:
            transactions: 32-bit number → start of the commit record.
        """
        if self.in_recovery:
            newest = max(transactions.values(), default=0)
            return self.replayed is not None and self.replayed.value > newest
        return all(map(self.snapshot.sees, transactions))
