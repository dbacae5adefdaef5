"""The last messages of the stream as they came, so that somebody can ask what was made of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from invalidator.model import Lsn, Relation, Transaction
from invalidator.postgres import decoder

MAX_MESSAGE_BYTES = 8192
"""Of longer ones only the head is kept: few of them would hold as much memory as all the others."""

HEAD_BYTES = 30
"""XLogData's header, the kind and the relation: less than any row message has."""


@dataclass(frozen=True, slots=True)
class RecentRow:
    """One row message, and the relation that it is of."""

    relation: Relation
    message: bytes
    """XLogData; empty for a TRUNCATE."""


@dataclass(slots=True)
class RecentTransaction:
    """A transaction, as far as it is still kept."""

    transaction: Transaction
    rows: list[RecentRow]
    end: Lsn | None = None
    """None: its Commit has not come yet."""
    is_whole: bool = True
    """False: its first rows are not kept any more, or some were too long."""


class Recent:
    """Keeps references to the newest messages; reading them back costs only who asks.

    Args:
        messages: how many are kept.
    """

    def __init__(self, messages: int) -> None:
        self._kept: deque[bytes] = deque(maxlen=messages)
        self.keep: Callable[[bytes], None] = self._kept.append
        """Called once per message of the stream, in the hot loop."""

    def transactions(self, relations: Mapping[bytes, Relation]) -> list[RecentTransaction]:
        """What is kept, the oldest first.

        Args:
            relations: by the four bytes of their OID, as they were announced last.
        """
        found: list[RecentTransaction] = []
        for message in self._kept:
            kind = message[decoder.PAYLOAD]
            if kind == decoder.BEGIN:
                found.append(RecentTransaction(decoder.begin(message), []))
                continue
            if not found:
                found.append(RecentTransaction(Transaction(0, 0, 0), [], is_whole=False))
            last = found[-1]
            if kind == decoder.COMMIT:
                last.end = Lsn(decoder.commit(message)[1])
            elif kind == decoder.TRUNCATE:
                oids = decoder.truncate(message).relation_oids
                last.rows += [RecentRow(relations[oid], b"") for oid in oids if oid in relations]
            elif kind in b"IUD" and (relation := relations.get(message[26:30])) is not None:
                if len(message) > HEAD_BYTES:
                    last.rows.append(RecentRow(relation, message))
                else:
                    last.is_whole = False
        return [each for each in found if each.rows or each.end is not None]
