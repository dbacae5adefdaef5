"""One target that keeps our record, and what we know of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from invalidator.checkpoint.record import Record
from invalidator.errors import RecordTaken

if TYPE_CHECKING:
    from invalidator.model import Lsn, StreamStart
    from invalidator.ports import Kept, Recording

CLAIM_SECONDS: Final = 10.0
"""So long after its last word is a record still a daemon's."""
_RENEW_SECONDS: Final = 2.0


@dataclass(slots=True, eq=False)
class Recorder:
    """One target that keeps our record."""

    name: str
    target: Recording
    required: bool
    kept: Kept | None = None
    """What it holds, as far as we know; None: not looked at since the connection to the source began."""
    incarnation: str | None = None
    """As it was last, over connections to the source too."""
    recorded: Lsn | None = None
    """What our record there says, as far as we wrote it on this connection."""
    is_judged: bool = False
    """Its record was held against the start of this connection."""
    has_record: bool = False
    """It held one when it answered last, over connections to the source too."""
    is_unusable: bool = False
    """The last try to read or to write failed."""
    claimed_as: str = ""
    """The database that we have said the record is of; empty: it is not ours."""
    _asked_as: str = ""
    _ask_at: float = -math.inf
    _said_until: float = -math.inf
    _owner: str = ""
    _other: str = ""

    @property
    def record(self) -> Record | None:
        """What it holds, taken apart."""
        return None if self.kept is None else Record.decode(self.kept.content)

    def record_before(self, end: Lsn | None) -> Record | None:
        """Its record for a judgement on a log that ended there: one that was judged has gone on with the stream."""
        record = self.record
        if record is None or end is None or not self.is_judged:
            return record
        return replace(record, applied=min(record.applied, end))

    def begin(self) -> None:
        """A connection to the source begins: look anew."""
        self.kept = self.recorded = None
        self.is_judged = False
        self._ask_at = -math.inf

    def look(self, kept: Kept) -> bool:
        """Take in what it holds; whether it may be another server than before."""
        was, self.kept, self.incarnation = self.incarnation, kept, kept.incarnation
        self.has_record = self.record is not None
        is_another = was is not None and was != kept.incarnation
        if is_another or kept.content is None:
            self._ask_at = -math.inf  # it may have forgotten whose the record is
        return is_another

    async def claim(self, name: str, system: str, now: float) -> None:
        """See that the record is ours: two databases under one name would take turns in finding each other's.

        Args:
            name: of the record.
            system: whose changes this is about; see ``StreamStart``.
            now: seconds that never go back.

        Raises:
            RecordTaken: a daemon of another database keeps it, or did a moment ago.
            TargetError: it could not be asked.
        """
        ours = database(system)
        if now >= self._said_until:
            self.claimed_as = ""  # by now that may be the word of another daemon of the same database
        if ours != self._asked_as or now >= self._ask_at:
            # One who waits asks rarely, and takes what it has found free before: a cache that was flushed, or that hung
            # for longer than a word counts, gives the owner the time to say it again.
            is_waiting = not self.claimed_as and self._owner not in ("", ours)
            seconds = 0.0 if is_waiting else CLAIM_SECONDS
            self._owner = await self.target.claim_record(name, ours, before=self.claimed_as, seconds=seconds)
            self.claimed_as, self._asked_as = ours if self._owner == ours else "", ours
            self._said_until = now + CLAIM_SECONDS
            self._other = self._owner if self._owner not in ("", ours) else self._other
            self._ask_at = now + (_RENEW_SECONDS if self.claimed_as else CLAIM_SECONDS / 2)
        if not self.claimed_as:
            msg = f"a daemon of another database ({_described(self._other)}) keeps its record there as '{name}', and "
            msg += "two need a record_prefix each"
            raise RecordTaken(msg)

    @property
    def holds(self) -> bool:
        """Whether positions wait for its record: not for one apart from its cache that cannot be written."""
        return self.required and not (self.is_unusable and self.target.lies_apart)

    def whose(self, start: StreamStart) -> str:
        """What a record that somebody else wrote tells of them, to be put behind a sentence; may be empty."""
        record = self.record
        if record is None or record.system == start.system:
            return ""
        return (
            f", of another database (system identifier {record.system}): if two daemons use this Redis, give each a "
            "record_prefix of its own"
        )


def database(system: str) -> str:
    """Names the database of ``StreamStart.system``, and of no more: an outbox that is made anew is of the same one."""
    return "/".join(system.split("/")[:2])


def _described(owner: str) -> str:
    cluster, _, database = owner.partition("/")
    return f"system identifier {cluster}" + (f", OID {database}" if database else "")
