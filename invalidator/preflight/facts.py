"""Everything that the checks look at, as one frozen value: the checks themselves ask nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from invalidator.errors import ConfigError
from invalidator.postgres import catalog, provision
from invalidator.postgres.catalog import PARTITIONED, Publication, Table, privileges
from invalidator.postgres.catalog.privileges import Barred
from invalidator.postgres.notify.options import NotifyOptions
from invalidator.postgres.options import DatabaseOptions, StreamOptions
from invalidator.postgres.outbox.options import OutboxOptions
from invalidator.postgres.provision import Need, OutboxFacts, OutboxRequest, Purpose, Request
from invalidator.postgres.provision.words import COLUMN_LISTS

if TYPE_CHECKING:
    from psycopg import AsyncConnection


@dataclass(frozen=True, slots=True)
class Facts:
    """A database as the rules meet it."""

    database: provision.Facts
    """Server, tables with their partitions, publications and slot."""
    request: Request
    """Which publication and slot are ours."""
    role: catalog.Role | None = None
    """Whoever connected; None when that is not known."""
    is_live: bool = True
    """Read from a server. Else from a schema file: then nothing is known of server, slot and role."""
    outbox: OutboxFacts | None = None
    """Changes come from an outbox; None: from a slot."""
    outbox_request: OutboxRequest | None = None
    is_notified: bool = False
    """Changes come from an application's own notifications."""
    barred: tuple[Barred, ...] = ()
    """Functions that daemon and triggers need and may not call."""

    @property
    def needs_log(self) -> bool:
        """Whether changes are read from the WAL."""
        return self.outbox is None and not self.is_notified

    @property
    def publication(self) -> Publication | None:
        """Ours, if it exists."""
        return self.database.publications.get(self.request.publication)

    def table(self, oid: int | None) -> Table | None:
        """The relation of that OID."""
        return next((table for table in self.database.tables if table.oid == oid), None)

    def wanted(self, need: Need) -> list[Table]:
        """The tables that a rule is about, without partitions of one that it is about too."""
        found = [table for table in self.database.tables if need.wants(table)]
        oids = {table.oid for table in found}
        return [table for table in found if table.root_oid not in oids]

    def parts(self, table: Table) -> list[Table]:
        """The relations that hold the rows: the table itself, or the leaves below a partitioned one."""
        if table.kind != PARTITIONED:
            return [table]
        return [part for part in self.database.tables if part.root_oid == table.oid and part.kind != PARTITIONED]

    def is_published(self, table: Table, publication: Publication) -> bool:
        """Whether rows of this relation are sent, be it by its own name or by that of a table over it."""
        if publication.is_for_all_tables:
            return True
        return any(
            publication.table(each.oid) is not None or each.schema in publication.schemas
            for each in self._with_ancestors(table)
        )

    def mending(self, needs: Sequence[Need], table: Table) -> str | None:
        """The SQL that publishes the table as these rules need it; None when no SQL of ours can.

        Without a publication it only makes the table ready for one: that is made once, for all tables.
        """
        own = [replace(need, schema=table.schema, table=table.name) for need in needs if need.wants(table)]
        made = provision.plan(own, self._without_lists(table), self.request)
        wanted = {Purpose.IDENTITY} if self.publication is None else {Purpose.IDENTITY, Purpose.PUBLICATION}
        texts = [_as_one(step.texts) for step in made.to_run if step.purpose in wanted]
        return "\n".join(texts) or None

    def wanted_filter(self, needs: Sequence[Need], table: Table) -> str | None:
        """The condition that ``setup`` would filter the table's rows by for these rules; None: all are needed."""
        own = tuple(need for need in needs if need.wants(table))
        database = replace(self.database, tables=tuple(t for t in self.database.tables if t.oid == table.oid))
        request = replace(self.request, may_filter=True)
        operations = provision.operations(own, database, request)
        decided, _ = provision.entries(own, database, request, operations)
        return decided[0].rows if decided else None

    def _without_lists(self, table: Table) -> provision.Facts:
        """The database; as one that knows no column lists if the table is published whole, so that it stays so."""
        entry = self.publication.table(table.oid) if self.publication is not None else None
        if entry is None or entry.columns is not None or any(column.generated for column in table.columns):
            return self.database
        server = self.database.server
        return replace(self.database, server=replace(server, version=min(server.version, COLUMN_LISTS - 1)))

    def _with_ancestors(self, table: Table) -> Iterator[Table]:
        at: Table | None = table
        while at is not None:
            yield at
            at = self.table(at.parent_oid or at.root_oid)


async def gather(connection: AsyncConnection[Any], needs: Sequence[Need], *, slot: str, publication: str) -> Facts:
    """Read everything from a database; changes nothing.

    Args:
        connection: in autocommit mode, as the role that the daemon has.
        needs: what the rules need; tells which tables are read.
        slot: the name of ours.
        publication: the name of ours.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    request = Request(slot, publication, role=None)
    database = await provision.facts(connection, needs, request)
    database = await provision.with_others(connection, database, publication)
    return Facts(database, request, role=await catalog.role(connection, database.server.user))


async def gather_for(connection: AsyncConnection[Any], needs: Sequence[Need], options: DatabaseOptions) -> Facts:
    """Read what these options of a source are about.

    Raises:
        ConfigError, SourceDisconnected: the catalog cannot be read.
    """
    if isinstance(options, OutboxOptions):
        return await _gather_outbox(connection, needs, options)
    if isinstance(options, NotifyOptions):
        return await _gather_notified(connection, needs)
    if isinstance(options, StreamOptions):
        return await gather(connection, needs, slot=options.slot, publication=options.publication)
    msg = f"a source of type '{options.type}' has nothing to look at"
    raise ConfigError(msg)


async def _gather_outbox(connection: AsyncConnection[Any], needs: Sequence[Need], options: OutboxOptions) -> Facts:
    request = OutboxRequest(None, fires_always=options.fire_always, wakes=options.wake == "notify")
    found = await provision.outbox_facts(connection, needs, request)
    role = await catalog.role(connection, found.server.user)
    database = provision.Facts(found.server, role, found.tables, {}, None, table_names=found.table_names)
    return Facts(
        database,
        Request("", "", role=None),
        role=role,
        outbox=found,
        outbox_request=request,
        barred=await privileges.barred(connection),
    )


async def _gather_notified(connection: AsyncConnection[Any], needs: Sequence[Need]) -> Facts:
    request = Request("", "", role=None)
    database = await provision.facts(connection, needs, request)
    return Facts(database, request, is_notified=True, barred=await privileges.barred(connection))


def _as_one(statements: Sequence[str]) -> str:
    return statements[0] if len(statements) == 1 else "BEGIN; " + " ".join(statements) + " COMMIT;"
