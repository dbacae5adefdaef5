"""What the daemon does, while it does it: for ``invalidator tail``.

Nothing is pushed. The daemon keeps its newest transactions and, while somebody watches, its newest happenings in two
rings of fixed size. Each watcher looks at them ten times a second, remembers the number up to which it has seen them,
and is told how many it missed: a slow one, or one that has stopped reading, costs nobody anything.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from invalidator.admin.explaining import Explaining
from invalidator.postgres.recent import RecentRow
from invalidator.rules.rule import RuleSet

if TYPE_CHECKING:
    from invalidator.ports import TagGrammar
    from invalidator.postgres.recent import RecentTransaction
    from invalidator.rules.explicit import ExplicitInvalidation
    from invalidator.telemetry.happenings import Happenings
    from invalidator.telemetry.state import MessageState

Record = dict[str, Any]

LOOK_SECONDS: Final = 0.1
ROWS_PER_LOOK: Final = 100
"""Explained for one watcher at once: each costs about 0.1 ms of a CPU."""
MAX_WATCHERS: Final = 8
MAX_LAST: Final = 1000

KINDS: Final = {
    "keys": ("keys",),
    "tags": ("tags",),
    "patterns": ("key_patterns", "tag_patterns"),
    "l1": ("l1",),
    "cdn": ("cdn", "cdn_soft", "cdn_all"),
}
"""What may be asked for → what it is in an invalidation."""


@runtime_checkable
class Recalling(Protocol):
    """A source that keeps its newest transactions, numbered over all its connections."""

    def recent(self) -> Sequence[RecentTransaction]:
        """What is kept, the oldest first."""
        ...

    def recent_number(self, count: int) -> int:
        """The number after which so many whole ones are kept."""
        ...

    def recent_after(self, number: int, rows: int) -> Sequence[RecentTransaction]:
        """Whole ones with a higher number, about so many rows of them, the oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Filter:
    """What a watcher wants to see; of each field: None means all."""

    tables: re.Pattern[str] | None = None
    rules: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    names: re.Pattern[str] | None = None
    targets: frozenset[str] | None = None
    wants_unfired: bool = False
    """Also rows for which no rule fired, with the reason."""

    @classmethod
    def of(cls, query: Mapping[str, Sequence[str]]) -> Filter:
        """Read it.

        Raises:
            ValueError: there is no such field, or no such kind.
        """
        if unknown := sorted(query.keys() - {"table", "rule", "kind", "name", "target", "all", "last"}):
            msg = f"'{unknown[0]}' is nothing that can be asked for"
            raise ValueError(msg)
        kinds = query.get("kind")
        if wrong := [kind for kind in kinds or () if kind not in KINDS]:
            msg = f"'{wrong[0]}' is no kind of name: there are {', '.join(KINDS)}"
            raise ValueError(msg)
        return cls(
            tables=_globs(query.get("table")),
            rules=_set(query.get("rule")),
            kinds=None if kinds is None else frozenset(each for kind in kinds for each in KINDS[kind]),
            names=_globs(query.get("name")),
            targets=_set(query.get("target")),
            wants_unfired="all" in query,
        )

    @property
    def is_about_rows(self) -> bool:
        """Whether it asks for something that only rows have."""
        return self.tables is not None or self.rules is not None

    @property
    def is_about_names(self) -> bool:
        """Whether only some names are wanted."""
        return self.kinds is not None or self.names is not None

    def ruleset(self, ruleset: RuleSet) -> RuleSet:
        """The rules that are wanted."""
        if self.rules is None:
            return ruleset
        return RuleSet(tuple(rule for rule in ruleset.rules if rule.name in self.rules), ruleset.hash)

    def transaction(self, each: RecentTransaction) -> RecentTransaction:
        """The transaction with the changes of wanted tables only."""
        if not self.is_about_rows:
            return each
        wanted: list[Any] = [
            change
            for change in each.changes
            if isinstance(change, RecentRow) and (self.tables is None or self.tables.fullmatch(change.relation.name))
        ]
        return replace(each, changes=wanted)

    def rows(self, rows: Iterable[Record]) -> Iterator[Record]:
        """The rows that made a wanted name stale, with those names."""
        for row in rows:
            if row["operation"] == "message":
                named = self._named(row["invalidation"])
                if named or not self.is_about_names:
                    yield row | {"invalidation": named}
                continue
            rules = [rule for each in row["rules"] if (rule := self._rule(each)) is not None]
            if rules:
                yield row | {"rules": rules}

    def happening(self, record: Record) -> Record | None:
        """The record with its wanted names; None: it is not wanted."""
        target = record.get("target") or record.get("facts", {}).get("target")
        if self.is_about_rows or (self.targets is not None and target not in self.targets):
            return None
        if not self.is_about_names:
            return record
        named = self._named(record.get("invalidation", {}))
        return record | {"invalidation": named} if named else None

    def _rule(self, rule: Record) -> Record | None:
        if rule["outcome"] != "fired":
            return rule if self.wants_unfired else None
        named = self._named(rule["invalidation"])
        if self.is_about_names and not named:
            return None
        return rule | {"invalidation": named}

    def _named(self, invalidation: Record) -> Record:
        if not self.is_about_names:
            return invalidation
        kept = {kind: self._matching(names) for kind, names in invalidation.items() if self._wants(kind)}
        return {kind: names for kind, names in kept.items() if names}

    def _wants(self, kind: str) -> bool:
        return self.kinds is None or kind in self.kinds

    def _matching(self, names: Any) -> Any:
        if self.names is None:
            return names
        return [] if names is True else [name for name in names if self.names.fullmatch(name)]


class Tail:
    """Serves watchers.

    Args:
        source: keeps the newest transactions; None: it keeps none.
        ruleset: the rules in force.
        grammars: what the configured CDNs take as a tag.
        explicit: see ``Explaining``.
        happenings: what targets and the log tell.
        explaining: held by who explains: one at a time, whoever asks.
    """

    def __init__(
        self,
        source: Recalling | None,
        ruleset: Callable[[], RuleSet],
        grammars: tuple[TagGrammar, ...],
        explicit: Callable[[MessageState], ExplicitInvalidation],
        happenings: Happenings,
        explaining: asyncio.Lock,
    ) -> None:
        self._source = source
        self._ruleset = ruleset
        self._grammars = grammars
        self._explicit = explicit
        self._happenings = happenings
        self._lock = explaining

    def watch(self, query: Mapping[str, Sequence[str]]) -> AsyncGenerator[Record | None, None]:
        """Records for ever, from the ``last`` transactions on; None: nothing new at this look.

        Raises:
            ValueError: the query is wrong, or too many watch already.
        """
        wanted = Filter.of(query)
        last = _last(query.get("last", ("0",))[-1])
        if self._happenings.watchers >= MAX_WATCHERS:
            msg = f"{MAX_WATCHERS} are watching already"
            raise ValueError(msg)
        return self._watch(wanted, last)

    async def _watch(self, wanted: Filter, last: int) -> AsyncGenerator[Record | None, None]:
        view = _View(wanted, self)
        with self._happenings.watched():
            seen = self._happenings.number
            number = self._source.recent_number(last) if self._source else 0
            while True:
                number, records = await view.transactions(number)
                happened = self._happenings.after(seen)
                missed = self._happenings.number - seen - len(happened)
                seen = self._happenings.number
                if missed:
                    records.append({"record": "missed", "happenings": missed})
                records += [record for each in happened if (record := wanted.happening(each)) is not None]
                for record in records:
                    yield record
                yield None
                await asyncio.sleep(LOOK_SECONDS)

    def recent(self, number: int) -> Sequence[RecentTransaction]:
        """What one look takes of the kept transactions."""
        return self._source.recent_after(number, ROWS_PER_LOOK) if self._source else ()

    async def explain(self, explaining: Explaining, found: Sequence[RecentTransaction]) -> list[Record]:
        """The transactions as JSON holds them."""
        explaining.renew()
        async with self._lock:
            return await asyncio.to_thread(lambda: [explaining.document(each) for each in found])

    def explaining(self, wanted: Filter, ruleset: RuleSet) -> Explaining:
        """What explains for one watcher as long as these rules are in force."""
        return Explaining(wanted.ruleset(ruleset), self._grammars, self._explicit, rows=ROWS_PER_LOOK)

    def ruleset(self) -> RuleSet:
        """The rules in force."""
        return self._ruleset()


class _View:
    """The transactions as one watcher sees them."""

    def __init__(self, wanted: Filter, tail: Tail) -> None:
        self._wanted = wanted
        self._tail = tail
        self._ruleset = tail.ruleset()
        self._explaining = tail.explaining(wanted, self._ruleset)

    async def transactions(self, number: int) -> tuple[int, list[Record]]:
        """Those after the number, as far as one look goes, and the number that it came to."""
        found = self._tail.recent(number)
        if not found or self._wanted.targets is not None:
            return number, []
        first, newest = found[0].number or 0, found[-1].number or 0
        records: list[Record] = []
        if missed := first - number - 1:
            records.append({"record": "missed", "transactions": missed})
        chosen = [each for each in map(self._wanted.transaction, found) if each.changes]
        if chosen:
            records += self._told(await self._tail.explain(self._explainer(), chosen))
        return newest, records

    def _told(self, documents: Iterable[Record]) -> Iterator[Record]:
        for document in documents:
            rows = list(self._wanted.rows(document["rows"]))
            if rows:
                unexplained = document["row_count"] - len(document["rows"])
                yield {"record": "transaction", **document, "rows": rows, "rows_not_explained": unexplained}

    def _explainer(self) -> Explaining:
        ruleset = self._tail.ruleset()
        if ruleset is not self._ruleset:
            self._ruleset = ruleset
            self._explaining = self._tail.explaining(self._wanted, ruleset)
        return self._explaining


def _last(text: str) -> int:
    if not (text.isdecimal() and int(text[:9]) <= MAX_LAST):
        msg = f"last={text}: not a number from 0 to {MAX_LAST}"
        raise ValueError(msg)
    return int(text)


def _set(given: Sequence[str] | None) -> frozenset[str] | None:
    return None if given is None else frozenset(given)


def _globs(given: Sequence[str] | None) -> re.Pattern[str] | None:
    return None if given is None else re.compile("|".join(fnmatch.translate(glob) for glob in given))
