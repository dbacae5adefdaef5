"""What a database's catalog says, as values: tables, publications, slots, roles and server settings.

facts       the values
relations   tables with their columns, indexes and partitions; ``types`` tells what domains and enums are made of
queries     server, roles, publications and slots

All that ask take an open connection in autocommit mode and change nothing. Imported from their own files are

privileges  what a role may do
outbox      the outbox: its tables, functions and triggers
unstreamed  what changes without a word in the stream; ``told`` is what the DDL hook says of it
"""

from __future__ import annotations

from invalidator.postgres.catalog.facts import (
    KINDS,
    ORDINARY,
    PARTITIONED,
    Column,
    Index,
    Publication,
    PublishedTable,
    Role,
    Server,
    Slot,
    Table,
)
from invalidator.postgres.catalog.queries import publications, role, server, session, slot, system, without_identity
from invalidator.postgres.catalog.relations import partition_root, table_names, tables
from invalidator.postgres.catalog.types import BaseType, base_types, completed, described, named

__all__ = [
    "KINDS",
    "ORDINARY",
    "PARTITIONED",
    "BaseType",
    "Column",
    "Index",
    "Publication",
    "PublishedTable",
    "Role",
    "Server",
    "Slot",
    "Table",
    "base_types",
    "completed",
    "described",
    "named",
    "partition_root",
    "publications",
    "role",
    "server",
    "session",
    "slot",
    "system",
    "table_names",
    "tables",
    "without_identity",
]
