"""What a database's catalog says, as values: tables, publications, slots, roles and server settings.

facts      the values
queries    how they are asked for; each takes an open connection in autocommit mode and changes nothing
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
from invalidator.postgres.catalog.queries import (
    partition_root,
    publications,
    role,
    server,
    session,
    slot,
    system,
    table_names,
    tables,
    without_identity,
)
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
