"""Whether a stream goes on where the one before ended: our record of what was applied, held against the server.

The slot alone decides what is sent. The record only tells whether that is everything: it lies beside the cache that it
vouches for, and lives and dies with it. It is written before the server is told, so it is never behind the slot unless
the cache has forgotten something, somebody else has read from the slot, or the slot is another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from invalidator.model import Gap, GapReason, Lsn, StreamStart

_FORMAT = 1
_FORGOTTEN = "the record of {} is gone from the state file, and with it perhaps purges that were still to be made"


@dataclass(frozen=True, slots=True)
class Record:
    """Everything up to ``applied`` was applied to the cache that this lies beside."""

    slot: str
    system: str
    timeline: int
    applied: Lsn
    rules: str
    """Hash of the rule set in force, for people."""
    new_slots: tuple[int, ...] = ()
    """Unix seconds at which a lost slot was made anew lately."""
    apart: tuple[str, ...] = ()
    """The targets that have a record of their own apart from their cache, which outlives the loss of that record."""
    debts: tuple[str, ...] = ()
    """The targets without which positions were confirmed: everything there is still to be dropped."""

    def encode(self) -> bytes:
        """One line of JSON."""
        fields = {
            "format": _FORMAT,
            "slot": self.slot,
            "system": self.system,
            "timeline": self.timeline,
            "applied": str(self.applied),
            "rules": self.rules,
            "new_slots": self.new_slots,
            "apart": self.apart,
            "debts": self.debts,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    def is_of(self, start: StreamStart) -> bool:
        """Whether what was applied is a part of the history that goes on."""
        is_ahead = start.end is not None and self.applied > start.end
        return (self.system, self.timeline) == (start.system, start.timeline) and not is_ahead

    @classmethod
    def decode(cls, content: bytes | None) -> Self | None:
        """What was encoded; None for anything else: nobody vouches for the cache then."""
        try:
            fields: Any = json.loads(content or b"")
            return cls(
                slot=str(fields["slot"]),
                system=str(fields["system"]),
                timeline=int(fields["timeline"]),
                applied=Lsn.parse(fields["applied"]),
                rules=str(fields["rules"]),
                new_slots=tuple(int(each) for each in fields["new_slots"]),
                apart=tuple(str(each) for each in fields.get("apart", ())),
                debts=tuple(str(each) for each in fields.get("debts", ())),
            )
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return None


def judge(records: Mapping[str, Record | None], start: StreamStart) -> list[Gap]:
    """What is missing between the records and the stream that starts.

    Args:
        records: by target; None where there is none. A cache without a record while the slot stands has lost its
            memory with it, or is new: nothing that we know of is missing there. Unless another record says that its own
            one lay apart from it: then work that it had not done yet may be lost with the record.
        start: where the server goes on. A gap that the source knows already is not judged again.

    Returns:
        One gap for all targets, or one for each that has lost something, or nothing.
    """
    known = {target: record for target, record in records.items() if record is not None}
    if start.gap is not None or not known:
        return []
    here = {target: record for target, record in known.items() if record.is_of(start)}
    if not here:
        newest = max(known.values(), key=lambda record: record.applied)
        return [Gap(GapReason.OTHER_HISTORY, _other_history(newest, start))]
    best = max(here.values(), key=lambda record: record.applied)
    if best.applied < start.position:
        detail = f"the source goes on at {start.position}, and only what came before {best.applied} was applied"
        return [Gap(GapReason.POSITION_AHEAD, detail)]
    others = [target for target in known if target not in here]
    gaps = [Gap(GapReason.OTHER_HISTORY, _other_history(known[each], start), each) for each in others]
    forgotten = [target for target, record in records.items() if record is None and target in best.apart]
    gaps += [Gap(GapReason.TARGET_LOST_WRITES, _FORGOTTEN.format(target), target) for target in forgotten]
    return gaps + [_lost(target, record, start) for target, record in here.items() if record.applied < start.position]


def _other_history(record: Record, start: StreamStart) -> str:
    if record.system.partition("/")[0] != start.system.partition("/")[0]:
        return f"the server is another cluster (system identifier {start.system}, was {record.system})"
    if record.timeline != start.timeline:
        return (
            f"the server is on timeline {start.timeline}, was on {record.timeline}: a standby was promoted, and "
            "commits that it had not received may live on in caches"
        )
    if record.system != start.system:
        return f"the outbox is another one ({start.system}, was {record.system}): made anew, or restored from a dump"
    return f"the server's log ends at {start.end}, and {record.applied} was applied: it is as it was at an earlier time"


def _lost(target: str, record: Record, start: StreamStart) -> Gap:
    detail = f"{target} holds what was applied up to {record.applied}, and the source goes on at {start.position}"
    return Gap(GapReason.TARGET_LOST_WRITES, detail, target)
