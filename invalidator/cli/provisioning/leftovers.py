"""What the product leaves outside of the database: records beside caches, and the state file. For ``teardown``.

Nothing is taken away that is not proved to be ours: a record says of which slot of which cluster it is, and the state
file says which program made it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from invalidator.checkpoint.record import Record
from invalidator.continuity.unstreamed import decode
from invalidator.delivery import sqlite_file
from invalidator.errors import JournalUnusable, TargetError
from invalidator.ports import Forgetting
from invalidator.postgres.provision import Finding


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that can be taken away."""

    what: str
    why: str
    take_away: Callable[[], Awaitable[bool]]
    """Whether it is gone. May raise TargetError."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is, and what must be looked at by somebody."""

    leftovers: tuple[Leftover, ...] = ()
    findings: tuple[Finding, ...] = ()
    has_record: bool = False
    """A record vouches for the slot: it was ours, of this very cluster."""


async def records(slot: str, system: str, recorders: Sequence[tuple[str, Forgetting]]) -> Found:
    """Our records of a slot beside each cache.

    Args:
        slot: its name.
        system: what a record of ours begins with that names the cluster: of an outbox with its database behind it.
        recorders: targets that keep records, by name.
    """
    leftovers: list[Leftover] = []
    findings: list[Finding] = []
    has_record = False
    for target, recorder in recorders:
        try:
            for name, is_ours in ((slot, partial(_is_of, slot, system)), (f"{slot}:catalog", _is_catalog)):
                content = (await recorder.load_record(name)).content
                if content is None:
                    continue
                if not is_ours(content):
                    text = f"record '{name}' in target '{target}' stays: it is not about this slot of this cluster"
                    findings.append(Finding(text, "look at it, and delete it there if nothing writes it any more"))
                    continue
                has_record = has_record or name == slot
                forget = partial(recorder.forget_record, name, expected=content)
                leftovers.append(Leftover(f"record '{name}' in target '{target}'", "what was applied last", forget))
        except TargetError as error:
            text = f"target '{target}' cannot be asked for our records: {error}"
            findings.append(Finding(text, "run this again when it answers"))
    return Found(tuple(leftovers), tuple(findings), has_record)


def state_file(path: str) -> Found:
    """The journal's file with all that lies beside it."""
    if not path or not (files := sqlite_file.leftovers(Path(path))):
        return Found()
    try:
        if Path(path).exists():
            sqlite_file.identify(Path(path))
    except JournalUnusable as error:
        return Found((), (Finding(f"the state file stays: {error}"),))
    names = ", ".join(file.name for file in files)
    return Found(
        (Leftover(f"state file {path} ({names})", "purges that wait in it are lost", partial(_unlink, files)),)
    )


async def _unlink(files: Sequence[Path]) -> bool:
    for file in files:
        file.unlink(missing_ok=True)
    return True


def _is_of(slot: str, system: str, content: bytes) -> bool:
    record = Record.decode(content)
    if record is None or record.slot != slot:
        return False
    if not system.endswith("/"):
        return record.system == system
    # Records of notifications did not name the database at first.
    return record.system.startswith(system) or record.system == system.partition("/")[0]


def _is_catalog(content: bytes) -> bool:
    return decode(content) is not None
