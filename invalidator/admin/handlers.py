"""What the admin socket answers: a reload's outcome, and the last transactions with what the rules made of each row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from invalidator.admin.explaining import Explaining
from invalidator.admin.tailing import Tail
from invalidator.model import Lsn
from invalidator.telemetry.status import iso, status

if TYPE_CHECKING:
    from invalidator.admin.purging import Purging
    from invalidator.admin.server import Answer, Order, Watch
    from invalidator.admin.tailing import Recalling
    from invalidator.ports import TagGrammar
    from invalidator.postgres.recent import RecentTransaction
    from invalidator.reloading import Reloader
    from invalidator.rules.explicit import ExplicitInvalidation
    from invalidator.rules.rule import RuleSet
    from invalidator.telemetry.state import MessageState, State

MAX_LAST: Final = 1000
"""Transactions that may be asked for at once."""


@dataclass(frozen=True, slots=True)
class Admin:
    """The handlers of the socket.

    Args:
        reloader: reads the rules again.
        recent: the newest transactions of the stream.
        ruleset: the rules in force.
        grammars: what the configured CDNs take as a tag.
        state: the daemon's figures.
        clock: unix seconds.
        explicit: takes messages of applications as the stream does, and counts them in the state that it is given.
        edited_settings: the settings file, if it holds something else than at the start.
        purging: drops what is named.
        source: keeps the newest transactions by number; None: it keeps none.
    """

    reloader: Reloader
    recent: Callable[[], Sequence[RecentTransaction]]
    ruleset: Callable[[], RuleSet]
    grammars: tuple[TagGrammar, ...]
    state: State
    clock: Callable[[], float]
    explicit: Callable[[MessageState], ExplicitInvalidation]
    edited_settings: Callable[[], str | None]
    purging: Purging
    source: Recalling | None
    _explaining: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def posts(self) -> dict[str, Order]:
        """What may be asked for."""
        return {"/reload": self.reload, "/purge": self.purging.purge}

    @property
    def gets(self) -> dict[str, Answer]:
        """What may be looked at."""
        return {"/transactions": self.transactions, "/status": self.status}

    @property
    def watches(self) -> dict[str, Watch]:
        """What may be watched."""
        tail = Tail(self.source, self.ruleset, self.grammars, self.explicit, self.state.happenings, self._explaining)
        return {"/tail": tail.watch}

    async def reload(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Read the rules again; tell also since when those in force are, and whether settings wait for a restart."""
        outcome = (await self.reloader.reload(trigger="admin")).as_json()
        edited = await asyncio.to_thread(self.edited_settings)
        return outcome | {"in_force_since": iso(self.state.rules_loaded.loaded_at), "edited_settings": edited}

    async def status(self, query: Mapping[str, str]) -> Any:
        """The same as the public listener's."""
        return json.loads(json.dumps(status(self.state, self.clock()), default=str))

    async def transactions(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The newest transactions, the newest first; ``last=N`` (to 1000) or ``lsn=X/Y``.

        Raises:
            ValueError: the query is none of that.
        """
        kept = list(reversed(self.recent()))
        if "lsn" in query:
            wanted = Lsn.parse(query["lsn"])
            found = [each for each in kept if wanted in (each.end, Lsn(each.transaction.final_lsn))]
        else:
            found = kept[: _count(query.get("last", "1"))]
        oldest = kept[-1].end if kept else None
        explaining = Explaining(self.ruleset(), self.grammars, self.explicit)
        async with self._explaining:
            documents = await asyncio.to_thread(lambda: [explaining.document(each) for each in found])
        return {
            "transactions": documents,
            "kept": len(kept),
            "oldest_lsn": None if oldest is None else str(oldest),
        }


def _count(last: str) -> int:
    if not (last.isdecimal() and 1 <= int(last[:9]) <= MAX_LAST):
        message = f"last={last}: not a number from 1 to {MAX_LAST}"
        raise ValueError(message)
    return int(last)
