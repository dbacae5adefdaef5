"""What provisioning is asked for, what it finds, and what it answers, as values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from psycopg import sql

from invalidator.postgres.catalog import Publication, Role, Server, Slot, Table
from invalidator.postgres.catalog.privileges import Holding, Readable
from invalidator.postgres.provision.providers import Provider

COLUMN_LISTS = 150000
"""The server version that brought column lists and row filters."""
FAILOVER_SLOTS = 170000
"""The server version from which standbys can keep copies of logical slots."""
GENERATED_COLUMNS = 180000
"""The server version from which stored generated columns can be sent."""
OPERATIONS = frozenset({"insert", "update", "delete", "truncate"})


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows a rule can fire for, as far as Postgres itself can tell without losing anything.

    Outside of these rows the rule makes nothing stale; see ``filters`` for what else must hold.
    """

    written: Callable[[Table], str | None]
    """The condition as SQL over one row image of that table, true for every row for which the rule can fire; None: it
    does not fit the table."""
    columns: frozenset[str]
    """The columns in it."""
    survives_updates: bool
    """The rule makes the same stale of an UPDATE across the border as of the INSERT or DELETE that Postgres sends."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A query that a rule runs for its rows."""

    name: str
    texts: tuple[str, ...]
    """The SQL around the values; one more than there are ``columns``."""
    columns: tuple[str | None, ...]
    """What stands between the texts: values of these columns; None is a text that is no column."""

    def query(self, types: Mapping[str, str]) -> str:
        """The query with NULL for each value, of the column's type: for asking what it reads."""
        values = [f"(NULL::{types.get(column or '', 'text')})" for column in self.columns]
        return "".join(part for pair in zip(self.texts, (*values, ""), strict=True) for part in pair)


@dataclass(frozen=True)
class Need:
    """What one rule reads from its table."""

    rule: str
    place: str
    """``file:line``, for messages."""
    schema: str
    table: str
    """Raw names in which ``*`` stands for any text."""
    columns: frozenset[str]
    """All columns that the rule reads."""
    old_columns: frozenset[str] = frozenset()
    """Those whose value before an UPDATE or DELETE must be sent, or else the rule widens each time."""
    compared: frozenset[str] = frozenset()
    """Those of ``changed:`` and ``when:``; without their old values the rule fires for every UPDATE that could be
    meant."""
    operations: frozenset[str] = OPERATIONS
    """What the rule looks at: insert, update, delete, truncate."""
    changed: frozenset[str] | None = None
    """An UPDATE that changes none of these columns is nothing to the rule; None: every UPDATE is."""
    rows: Rows | None = None
    """None: it may fire for every row."""
    lookups: tuple[Lookup, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether it names one table, not a family of them."""
        return "*" not in self.schema + self.table

    @property
    def full_name(self) -> str:
        """``schema.table`` as the rule writes it."""
        return f"{self.schema}.{self.table}"

    def wants(self, table: Table) -> bool:
        """Whether the rule is about this table."""
        return self._pattern.fullmatch(f"{table.schema}\0{table.name}") is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = (re.escape(name).replace(r"\*", "[^\0]*") for name in (self.schema, self.table))
        return re.compile("\0".join(parts), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to stand in the end."""

    slot: str
    publication: str
    role: str | None
    """The daemon's role; None: whoever connects."""
    may_alter_tables: bool = True
    """Whether ALTER TABLE … REPLICA IDENTITY is among the means."""
    may_filter: bool = False
    """Whether row filters may be added; one that was made for other rules is always replaced."""
    wants_failover: bool = False
    """The slot is made so that standbys keep a copy of it, where the server knows that (17 and newer)."""
    wants_hook: bool = False
    """Event triggers tell the stream of DDL."""
    provider: Provider | None = None
    """Whose managed Postgres this is; None: it is told from the roles there."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there."""

    server: Server
    role: Role | None
    tables: tuple[Table, ...]
    """All that the rules' patterns match, and their partitions."""
    publications: dict[str, Publication]
    slot: Slot | None
    table_names: tuple[str, ...] = ()
    """``schema.table`` of what there is, for suggestions; read only if a rule's table is missing."""
    reads: tuple[LookupReads, ...] = ()
    """What the rules' lookups read."""
    holdings: tuple[Holding, ...] = ()
    """What keeps the daemon's role from being dropped; read only for ``--drop``."""
    others: tuple[Table, ...] = ()
    """Tables of our publication that no rule is about, and of which an UPDATE could fail; read only by checks."""
    slot_holder: str = ""
    """Who streams from the slot, as far as we may know; read only for ``--drop``."""
    ties: tuple[str, ...] = ()
    """Signs that the role is somebody's who needs it for more; read only for ``--drop``."""


@dataclass(frozen=True, slots=True)
class LookupReads:
    """What one lookup reads, or why that is not known."""

    rule: str
    place: str
    lookup: str
    readables: tuple[Readable, ...]
    error: str | None = None


class Purpose(StrEnum):
    """What a step is for."""

    ROLE = "role"
    GRANT = "grant"
    IDENTITY = "replica identity"
    PUBLICATION = "publication"
    SLOT = "slot"
    SERVER = "server"
    OUTBOX = "outbox"
    TRIGGER = "triggers"
    HOOK = "ddl hook"


@dataclass(frozen=True, slots=True)
class Mark:
    """How one object stands to what is wanted."""

    sign: str
    """``+`` missing, ``~`` different, ``-`` there but not wanted, ``=`` as wanted."""
    what: str
    """The object, as in ``table public.users in publication invalidator``."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """Statements that stand or fall together."""

    purpose: Purpose
    statements: tuple[sql.Composed, ...]
    why: str = ""
    is_advice: bool = False
    """Shown as a comment and never run: it is the operator's decision."""
    note: str = ""
    """What to know about it afterwards, and how to undo it."""
    marks: tuple[Mark, ...] = ()
    """What it mends."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The statements as SQL, each with its semicolon."""
        return tuple(statement.as_string(None) + ";" for statement in self.statements)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that no step mends."""

    text: str
    fix: str | None = None
    is_problem: bool = True
    """False: worth knowing, but everything works."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they must run, and what they leave open."""

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    kept: tuple[Mark, ...] = ()
    """What stands as wanted, and what is there without being wanted."""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All objects, each with what becomes of it; those that differ first."""
        return (*(mark for step in self.to_run for mark in step.marks), *self.kept)

    @property
    def to_run(self) -> tuple[Step, ...]:
        """The steps without mere advice."""
        return tuple(step for step in self.steps if not step.is_advice)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What keeps rules from working as written."""
        return tuple(finding for finding in self.findings if finding.is_problem)


def published_name(table: Table) -> sql.Composable:
    """The table as publications name it: without the tables that inherit from it.

    Those would be published too, and primary keys are not inherited: UPDATE on them would fail.
    """
    return sql.SQL("ONLY {}").format(identifier(table)) if table.has_children else identifier(table)


def identifier(table: Table) -> sql.Identifier:
    """The table's name, quoted."""
    return sql.Identifier(table.schema, table.name)
