"""What the admin socket answers: a reload's outcome, and the last transactions with what the rules made of each row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from invalidator.model import Invalidation, Lsn
from invalidator.postgres import decoder
from invalidator.rules.explain import (
    Engines,
    explain_message,
    explanation_document,
    invalidation_document,
    known_rows,
    name_text,
    needed_columns,
)
from invalidator.rules.rows import message_operation
from invalidator.telemetry.state import MessageState
from invalidator.telemetry.status import iso, status

if TYPE_CHECKING:
    from invalidator.model import Transaction
    from invalidator.ports import TagGrammar
    from invalidator.postgres.recent import RecentRow, RecentTransaction
    from invalidator.purging import Purging
    from invalidator.reloading import Reloader
    from invalidator.rules.explicit import ExplicitInvalidation
    from invalidator.rules.rule import RuleSet
    from invalidator.telemetry.admin import Answer, Order
    from invalidator.telemetry.state import State

MAX_LAST: Final = 1000
"""Transactions that may be asked for at once."""
MAX_ROWS: Final = 1000
"""Rows of one answer that are explained; the others are counted."""
MAX_EXPLANATIONS: Final = 10_000
"""The same, each row counted once for each rule of its table."""
MAX_VALUE: Final = 200
"""Characters of a row value that are shown."""


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
    _explaining: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def posts(self) -> dict[str, Order]:
        """What may be asked for."""
        return {"/reload": self.reload, "/purge": self.purging.purge}

    @property
    def gets(self) -> dict[str, Answer]:
        """What may be looked at."""
        return {"/transactions": self.transactions, "/status": self.status}

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
        explaining = _Explaining(self.ruleset(), self.grammars, self.explicit)
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


class _Explaining:
    """Makes one answer, in a thread; what it compiles serves all rows, and it stops when it has explained enough.

    Args:
        ruleset: the rules in force.
        grammars: what the configured CDNs take as a tag.
        explicit: see ``Admin``.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        grammars: tuple[TagGrammar, ...],
        explicit: Callable[[MessageState], ExplicitInvalidation],
    ) -> None:
        self._ruleset = ruleset
        self._grammars = grammars
        self._explicit = explicit
        self._engines = Engines(grammars)
        self._rows = 0
        self._explanations = 0

    def document(self, each: RecentTransaction) -> dict[str, Any]:
        """The transaction as JSON holds it."""
        opened = each.transaction
        return {
            "lsn": None if each.end is None else str(each.end),
            "final_lsn": str(Lsn(opened.final_lsn)),
            "xid": opened.xid,
            "commit_time": decoder.unix_seconds(opened.commit_time) if opened.xid else None,
            "is_whole": each.is_whole,
            "row_count": len(each.changes),
            "rows": list(self._changes(each)),
        }

    def _changes(self, each: RecentTransaction) -> Iterator[dict[str, Any]]:
        for change in each.changes:
            if self._rows >= MAX_ROWS or self._explanations >= MAX_EXPLANATIONS:
                return
            self._rows += 1
            yield (
                self._message(change)
                if isinstance(change, decoder.LogicalMessage)
                else self._row(each.transaction, change)
            )

    def _row(self, opened: Transaction, row: RecentRow) -> dict[str, Any]:
        concerned = explain_message(
            self._ruleset, row.relation, row.message, opened, self._grammars, engines=self._engines
        )
        self._explanations += len(concerned)
        named = frozenset[str]().union(*(needed_columns(one.rule) for one in concerned))
        return {
            "table": row.relation.name,
            "operation": message_operation(row.message).value if row.message else "truncate",
            "columns": _columns(row, named) if row.message else {},
            "rules": [explanation_document(one) for one in concerned],
        }

    def _message(self, message: decoder.LogicalMessage) -> dict[str, Any]:
        named, told = Invalidation(), MessageState()
        taken = self._explicit(told)
        taken(message.content, is_transactional=message.is_transactional, invalidation=named)
        return {
            "operation": "message",
            "invalidation": invalidation_document(named),
            "results": {str(verdict): count for verdict, count in told.counts.items()},
            "refusal": told.refusal,
        }


def _columns(row: RecentRow, named: frozenset[str]) -> dict[str, dict[str, str | None]]:
    """The values of these columns by image, as far as they were sent, long ones cut."""
    try:
        images = known_rows(row.relation, row.message)
    except ValueError:  # the table has other columns by now
        return {}
    return {
        name: {
            image: _shown(known[name])
            for image, known in zip(("old", "new"), images, strict=True)
            if known and name in known
        }
        for name in sorted(named)
    }


def _shown(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = name_text(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"
