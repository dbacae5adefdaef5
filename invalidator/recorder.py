"""One target that keeps our record, and what we know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from invalidator.checkpoint.continuity import Record

if TYPE_CHECKING:
    from invalidator.model import Lsn, StreamStart
    from invalidator.ports import Kept, Recording


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
            "slot, or source.name, of its own"
        )
