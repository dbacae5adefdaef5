"""A checked rule as a value: what the loader makes of a document and the compiler turns into code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from invalidator.model import Operation
from invalidator.rules import globs
from invalidator.rules.condition import Condition
from invalidator.rules.lookup_sql import LookupSql
from invalidator.rules.template import Template


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


GROUPS: Final = ("keys", "tags", "l1", "cdn")
"""The fields of ``invalidate``, in the order in which they are applied."""


@dataclass(frozen=True, slots=True)
class Exact:
    """What one row makes stale: templates over its images, prefixes already applied."""

    keys: tuple[Template, ...] = ()
    tags: tuple[Template, ...] = ()
    l1: tuple[Template, ...] = ()
    cdn: tuple[Template, ...] = ()

    @property
    def templates(self) -> tuple[Template, ...]:
        """Those of all kinds."""
        return (*self.keys, *self.tags, *self.l1, *self.cdn)


@dataclass(frozen=True, slots=True)
class Lookup:
    """A SELECT that finds related rows; templates name their columns as ``{name.column}``."""

    name: str
    sql: LookupSql
    limit: int
    """Rows for one changed row; more widen."""
    timeout_seconds: float | None
    """Replaces the timeout of the settings."""
    place: Place
    """Where the SQL stands."""


@dataclass(frozen=True, slots=True)
class Coarse:
    """What is dropped when it cannot be told exactly what is stale; covers everything the rule can name.

    The templates refer to no row, only to ``{meta.…}``. In ``key_patterns`` and ``tag_patterns`` a ``*`` is a glob.
    """

    keys: tuple[Template, ...] = ()
    key_patterns: tuple[Template, ...] = ()
    tags: tuple[Template, ...] = ()
    tag_patterns: tuple[Template, ...] = ()
    l1: tuple[Template, ...] = ()
    cdn: tuple[Template, ...] = ()
    cdn_all: bool = False
    """No coarse CDN tag was given: everything at the CDN, if its settings consent to that."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, complete: defaults filled in, prefixes applied, coarse form derived where none was written."""

    name: str
    schema: str
    """Name or glob (``*`` only) of the schema."""
    table: str
    """Name or glob (``*`` only) of the table."""
    events: frozenset[Operation]
    changed: frozenset[str] | None
    """UPDATE only: fire if one of these columns changed or may have; None: always."""
    exact: Exact
    coarse: Coarse
    bulk_over: int | None
    """Rows of this rule in one transaction above which the coarse form replaces the exact one."""
    repeat_after: tuple[float, ...]
    """Delays in seconds after which the same is applied again."""
    soft: bool
    """CDN tags are marked stale instead of purged."""
    place: Place
    lookups: tuple[Lookup, ...] = ()
    """In the order of the file."""
    when: Condition | None = None
    """Fire only if this holds, or may; None: always."""


@dataclass(frozen=True)
class RuleSet:
    """All rules of all files, and a hash that names this set (first 12 hex digits of SHA-256)."""

    rules: tuple[Rule, ...]
    hash: str

    def for_table(self, schema: str, table: str) -> list[tuple[int, Rule]]:
        """The rules that name this table, for whatever events, each with its index; in order."""
        named, matching = self._by_table
        found = [(index, rule) for index, rule in matching if _matches(rule, schema, table)]
        return sorted([*named.get((schema, table), ()), *found], key=lambda each: each[0])

    @cached_property
    def _by_table(self) -> tuple[dict[tuple[str, str], list[tuple[int, Rule]]], list[tuple[int, Rule]]]:
        """Those that name one table, by schema and table, and those with a glob."""
        named: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
        matching: list[tuple[int, Rule]] = []
        for index, rule in enumerate(self.rules):
            is_glob = "*" in rule.schema or "*" in rule.table
            (matching if is_glob else named.setdefault((rule.schema, rule.table), [])).append((index, rule))
        return named, matching


def _matches(rule: Rule, schema: str, table: str) -> bool:
    return bool(globs.name_matcher(rule.schema).fullmatch(schema) and globs.name_matcher(rule.table).fullmatch(table))
