"""What provisioning is asked for, what it finds, and what it answers, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from psycopg import sql

from invalidator.postgres.catalog import Publication, Role, Server, Slot, Table

COLUMN_LISTS = 150000
"""The server version that brought column lists and row filters."""
GENERATED_COLUMNS = 180000
"""The server version from which stored generated columns can be sent."""


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
    """Those of ``changed:``; without their old values the rule fires for every UPDATE."""

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


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there."""

    server: Server
    role: Role | None
    tables: tuple[Table, ...]
    """All that the rules' patterns match, and their partitions."""
    publications: dict[str, Publication]
    slot: Slot | None


class Purpose(StrEnum):
    """What a step is for."""

    ROLE = "role"
    GRANT = "grant"
    IDENTITY = "replica identity"
    PUBLICATION = "publication"
    SLOT = "slot"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Step:
    """Statements that stand or fall together."""

    purpose: Purpose
    statements: tuple[sql.Composed, ...]
    why: str = ""
    is_advice: bool = False
    """Shown as a comment and never run: it is the operator's decision."""

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
