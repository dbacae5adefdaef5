"""What the admin socket answers: a reload's outcome, and the last transactions with what the rules made of each row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from invalidator.model import Lsn
from invalidator.postgres import decoder
from invalidator.rules.explain import Outcome, explain_message, explanation_document
from invalidator.rules.rows import message_operation
from invalidator.telemetry.status import iso, status

if TYPE_CHECKING:
    from invalidator.ports import TagGrammar
    from invalidator.postgres.recent import RecentRow, RecentTransaction
    from invalidator.reloading import Reloader
    from invalidator.rules.rule import RuleSet
    from invalidator.telemetry.admin import Answer
    from invalidator.telemetry.state import State

MAX_ROWS: Final = 1000
"""Rows of one transaction that are explained; the others are counted."""


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
        edited_settings: the settings file, if it holds something else than at the start.
    """

    reloader: Reloader
    recent: Callable[[], Sequence[RecentTransaction]]
    ruleset: Callable[[], RuleSet]
    grammars: tuple[TagGrammar, ...]
    state: State
    clock: Callable[[], float]
    edited_settings: Callable[[], str | None]

    @property
    def posts(self) -> dict[str, Answer]:
        """What may be asked for."""
        return {"/reload": self.reload}

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
        """The newest transactions, the newest first; ``last=N`` or ``lsn=X/Y``.

        Raises:
            ValueError: the query is none of that.
        """
        kept = list(reversed(self.recent()))
        if "lsn" in query:
            wanted = Lsn.parse(query["lsn"])
            found = [each for each in kept if wanted in (each.end, Lsn(each.transaction.final_lsn))]
        else:
            found = kept[: max(1, int(query.get("last", "1")))]
        oldest = kept[-1].end if kept else None
        return {
            "transactions": [self._document(each) for each in found],
            "kept": len(kept),
            "oldest_lsn": None if oldest is None else str(oldest),
        }

    def _document(self, each: RecentTransaction) -> dict[str, Any]:
        opened = each.transaction
        return {
            "lsn": None if each.end is None else str(each.end),
            "final_lsn": str(Lsn(opened.final_lsn)),
            "xid": opened.xid,
            "commit_time": decoder.unix_seconds(opened.commit_time) if opened.xid else None,
            "is_whole": each.is_whole,
            "row_count": len(each.rows),
            "rows": [self._row(each, row) for row in each.rows[:MAX_ROWS]],
        }

    def _row(self, each: RecentTransaction, row: RecentRow) -> dict[str, Any]:
        explanations = explain_message(self.ruleset(), row.relation, row.message, each.transaction, self.grammars)
        concerned = [one for one in explanations if one.outcome is not Outcome.OTHER_TABLE]
        return {
            "table": row.relation.name,
            "operation": message_operation(row.message).value if row.message else "truncate",
            "rules": [explanation_document(one) for one in concerned],
        }
