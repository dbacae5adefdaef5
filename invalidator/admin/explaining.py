"""Kept transactions as JSON: each row, and what the rules made of it, found out again for who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from invalidator.model import Invalidation, Lsn, Operation
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from invalidator.model import Transaction
    from invalidator.ports import TagGrammar
    from invalidator.postgres.recent import RecentRow, RecentTransaction
    from invalidator.rules.explicit import ExplicitInvalidation
    from invalidator.rules.rule import RuleSet

MAX_ROWS: Final = 1000
"""Rows of one answer that are explained; the others are counted."""
MAX_EXPLANATIONS: Final = 10_000
"""The same, each row counted once for each rule of its table."""
MAX_VALUE: Final = 200
"""Characters of a row value that are shown."""


class Explaining:
    """Makes one answer, in a thread; what it compiles serves all rows, and it stops when it has explained enough.

    Args:
        ruleset: the rules in force.
        grammars: what the configured CDNs take as a tag.
        explicit: takes messages of applications as the stream does, and counts them in the state that it is given.
        rows: so many are explained for one answer; the others are counted.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        grammars: tuple[TagGrammar, ...],
        explicit: Callable[[MessageState], ExplicitInvalidation],
        *,
        rows: int | None = None,
    ) -> None:
        self._ruleset = ruleset
        self._grammars = grammars
        self._explicit = explicit
        self._engines = Engines(grammars)
        self._most_rows = MAX_ROWS if rows is None else rows
        self._rows = 0
        self._explanations = 0

    def renew(self) -> None:
        """Begin another answer."""
        self._rows = self._explanations = 0

    def document(self, each: RecentTransaction) -> dict[str, Any]:
        """The transaction as JSON holds it."""
        opened = each.transaction
        return {
            "lsn": None if each.end is None else str(each.end),
            "final_lsn": str(Lsn(opened.final_lsn)),
            "xid": opened.xid or None,
            "commit_time": decoder.unix_seconds(opened.commit_time) if opened.commit_time else None,
            "is_whole": each.is_whole,
            "row_count": len(each.changes),
            "rows": list(self._changes(each)),
        }

    def _changes(self, each: RecentTransaction) -> Iterator[dict[str, Any]]:
        for change in each.changes:
            if self._rows >= self._most_rows or self._explanations >= MAX_EXPLANATIONS:
                return
            self._rows += 1
            yield (
                self._message(change)
                if isinstance(change, decoder.LogicalMessage)
                else self._row(each.transaction, change)
            )

    def _row(self, opened: Transaction, row: RecentRow) -> dict[str, Any]:
        concerned = explain_message(
            self._ruleset,
            row.relation,
            row.message,
            opened,
            self._grammars,
            engines=self._engines,
            widened=row.widened,
        )
        self._explanations += len(concerned)
        named = frozenset[str]().union(*(needed_columns(one.rule) for one in concerned))
        return {
            "table": row.relation.name,
            "operation": _operation(row),
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


def _operation(row: RecentRow) -> str:
    if row.message:
        return message_operation(row.message).value
    return Operation.TRUNCATE.value if row.widened is None else "unknown"


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
