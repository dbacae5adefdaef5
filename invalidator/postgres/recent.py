"""The newest transactions of the stream that concern rules, as they came, for who wants to look at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from invalidator.model import Lsn, Relation, Transaction, WidenReason
from invalidator.postgres import decoder

MAX_MESSAGE_BYTES: Final = 8192
"""Of longer ones only the head is kept: few of them would hold as much memory as all the others."""

HEAD_BYTES: Final = 30
"""XLogData's header, the kind and the relation: less than any message that says something has."""


@dataclass(frozen=True, slots=True)
class RecentRow:
    """One row message, and the relation that it is of."""

    relation: Relation
    message: bytes
    """XLogData; empty for a TRUNCATE, and when nobody knows how the table changed."""
    widened: WidenReason | None = None
    """Why nobody knows."""


@dataclass(slots=True)
class RecentTransaction:
    """A transaction, as far as it is still kept."""

    transaction: Transaction
    changes: list[RecentRow | decoder.LogicalMessage]
    """Rows and TRUNCATEs that a rule is for, and messages with which the application invalidated itself."""
    end: Lsn | None = None
    """None: its Commit has not come yet."""
    is_whole: bool = True
    """False: its first changes are not kept any more, or some were too long."""
    number: int | None = None
    """Counts the transactions that were kept, over all connections; None: it is still open."""


@dataclass(slots=True)
class Numbers:
    """Counts the transactions that were kept; of the source, so that the numbers go on over its connections."""

    newest: int = 0


class Recent:
    """Keeps references to the newest messages; reading them back costs only who asks.

    A transaction comes in with its first message that is kept: heartbeats and changes of other tables push nothing out.

    Args:
        rows: how many messages of whole transactions are kept, and of the open one.
        numbers: gives each transaction its number.
    """

    def __init__(self, rows: int, numbers: Numbers | None = None) -> None:
        self._numbers = Numbers() if numbers is None else numbers
        self._rows = rows
        self._count = 0
        self._begin: bytes | Transaction = b""
        self._whole: deque[tuple[bytes | Transaction, deque[bytes | RecentRow], Lsn, int]] = deque()
        self._open: deque[bytes | RecentRow] = deque(maxlen=rows + 1)  # one more tells that some are gone
        self.relations: Mapping[bytes, Relation] = {}
        """By the four bytes of their OID, as the stream has announced them last."""
        self.keep: Callable[[bytes], None] = self._open.append
        """Called once per message of interest, in the hot loop; another one after each ``commit``."""

    def begin(self, opened: bytes | Transaction) -> None:
        """A transaction begins: its Begin message, or what stands for it where no stream announces anything."""
        self._begin = opened

    def keep_row(self, relation: Relation, message: bytes, widened: WidenReason | None = None) -> None:
        """Keep one of a relation that no stream has announced."""
        self._open.append(
            RecentRow(relation, message, widened) if len(message) < MAX_MESSAGE_BYTES else message[:HEAD_BYTES]
        )

    def commit(self, end: int) -> None:
        """The open transaction ends: the oldest make room for it."""
        if not self._open:
            return
        self._numbers.newest += 1
        self._whole.append((self._begin, self._open, Lsn(end), self._numbers.newest))
        self._count += len(self._open)
        while self._count > self._rows and len(self._whole) > 1:
            self._count -= len(self._whole.popleft()[1])
        self._open = deque(maxlen=self._rows + 1)
        self.keep = self._open.append

    def transactions(self) -> list[RecentTransaction]:
        """What is kept, the oldest first; the open one last."""
        found = [self._read(begin, messages, end) for begin, messages, end, _ in self._whole]
        if self._open:
            found.append(self._read(self._begin, self._open, None))
        return found

    def number_before(self, count: int) -> int:
        """The number after which so many transactions are kept, if there are so many."""
        newest = self._numbers.newest
        return max(newest - count, self._whole[0][3] - 1) if self._whole else newest

    def whole_after(self, number: int, *, rows: int) -> list[RecentTransaction]:
        """Whole transactions with a higher number, the oldest first: so many that they hold this many rows."""
        found: list[RecentTransaction] = []
        for begin, messages, end, own in self._whole:
            if own <= number:
                continue
            if rows <= 0:
                break
            rows -= len(messages)
            read = self._read(begin, messages, end)
            read.number = own
            found.append(read)
        return found

    def _read(
        self, begin: bytes | Transaction, messages: deque[bytes | RecentRow], end: Lsn | None
    ) -> RecentTransaction:
        opened = begin if isinstance(begin, Transaction) else decoder.begin(begin)
        made = RecentTransaction(opened, [], end, is_whole=len(messages) <= self._rows)
        for message in list(messages)[-self._rows :]:
            if isinstance(message, RecentRow):
                made.changes.append(message)
            elif len(message) <= HEAD_BYTES:
                made.is_whole = False
            else:
                made.changes += self._announced(message)
        return made

    def _announced(self, message: bytes) -> Iterator[RecentRow | decoder.LogicalMessage]:
        kind = message[decoder.PAYLOAD]
        if kind == decoder.TRUNCATE:
            yield from (RecentRow(relation, b"") for relation in truncated(message, self.relations))
        elif kind == decoder.MESSAGE:
            yield decoder.logical_message(message)
        elif (relation := self.relations.get(message[26:30])) is not None:
            yield RecentRow(relation, message)


def truncated(message: bytes, relations: Mapping[bytes, Relation]) -> list[Relation]:
    """The tables of a Truncate message that are known; a partitioned one comes with its partitions, and counts once."""
    by_name: dict[tuple[str, str], Relation] = {}
    for oid in decoder.truncate(message).relation_oids:
        if oid in relations:
            by_name.setdefault((relations[oid].schema, relations[oid].table), relations[oid])
    return list(by_name.values())
