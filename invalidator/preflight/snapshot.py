"""Facts ↔ a schema file, so that rules can be checked where no database can be reached.

The file holds the tables that the rules name and the publications that send them: no rows, no secrets, no numbers that
differ from one database to the next. Two databases of the same schema give the same bytes.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from invalidator import yamlfile
from invalidator.postgres import provision
from invalidator.postgres.catalog import Column, Index, Publication, PublishedTable, Server, Table
from invalidator.postgres.provision import filters
from invalidator.preflight.facts import Facts

FORMAT: Final = 1
"""Of the file; another number means that something in it has another meaning."""

_FIRST_USER_OID: Final = 16384
"""Types of Postgres itself have smaller numbers, which are the same everywhere: src/include/access/transam.h."""
_COLLATIONS: Final[dict[int, Literal["none", "default"]]] = {0: "none", 100: "default"}
_OTHER_COLLATION: Final = 1  # the numbers of all others differ from one server to the next
_REWRITE: Final = "invalidator snapshot-schema -o FILE"

Name = tuple[str, str]
"""Schema and table, raw."""


def _sorted(names: object) -> object:
    return sorted(names) if isinstance(names, (set, frozenset)) else names


Names = Annotated[list[str], BeforeValidator(_sorted)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Column(_Part):
    name: str
    type: str
    type_oid: int | None
    is_not_null: bool
    generated: str
    is_toastable: bool
    collation: Literal["none", "default", "other"]
    base_oid: int | None
    enum_labels: list[str]


class _Index(_Part):
    name: str
    columns: list[str]
    is_primary: bool
    is_replica_identity: bool


class _Table(_Part):
    table: Name
    kind: str
    is_permanent: bool
    partition_of: Name | None
    root: Name | None
    replica_identity: str
    has_children: bool
    columns: list[_Column]
    indexes: list[_Index]


class _Published(_Part):
    table: Name
    columns: Names | None
    has_row_filter: bool
    row_filter: str | None = None
    filter_columns: Names = []
    made_of: str | None = None
    """What ``setup`` made the filter of."""


class _Publication(_Part):
    name: str
    is_for_all_tables: bool
    operations: Names
    is_via_root: bool
    sends_generated: bool
    schemas: Names
    tables: list[_Published]


class _File(_Part):
    format: Literal[1]
    postgres: int
    publication: str
    tables: list[_Table]
    publications: list[_Publication]


class _Format(BaseModel):
    format: int


def write(facts: Facts) -> str:
    """The file's text; the same facts give the same text."""
    names = {table.oid: (table.schema, table.name) for table in facts.database.tables}
    publications = (_publication(each, names) for _, each in sorted(facts.database.publications.items()))
    file = _File(
        format=FORMAT,
        postgres=facts.database.server.version // 10000,
        publication=facts.request.publication,
        tables=[
            _table(each, names) for each in sorted(facts.database.tables, key=lambda table: (table.schema, table.name))
        ],
        publications=[each for each in publications if _concerns(each, names, ours=facts.request.publication)],
    )
    return file.model_dump_json(indent=2) + "\n"


def read(text: str, name: str) -> Facts:
    """The facts in a file.

    Args:
        text: its content.
        name: of the file, for messages.

    Raises:
        yamlfile.Invalid: it is no schema file that this version understands.
    """
    try:
        number = _Format.model_validate_json(text).format
        if number != FORMAT:
            raise _invalid(name, f"this schema file has format {number}, and this version reads format {FORMAT}")
        file = _File.model_validate_json(text)
        TopologicalSorter({each.table: filter(None, (each.partition_of, each.root)) for each in file.tables}).prepare()
        return _facts(file)
    except CycleError as error:
        table = ".".join(error.args[1][0])
        raise _invalid(name, f"this is no schema file: table {table} is a partition of itself") from None
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise _invalid(name, f"this is no schema file: {at + ': ' if at else ''}{first['msg']}") from None


def _invalid(name: str, message: str) -> yamlfile.Invalid:
    said = yamlfile.Diagnostic(name, 0, 0, 1, "bad-schema-file", message, fix=_REWRITE)
    return yamlfile.Invalid([said], {})


def _table(table: Table, names: dict[int, Name]) -> _Table:
    return _Table(
        table=(table.schema, table.name),
        kind=table.kind,
        is_permanent=table.is_permanent,
        partition_of=names.get(table.parent_oid or 0),
        root=names.get(table.root_oid or 0),
        replica_identity=table.replica_identity,
        has_children=table.has_children,
        columns=[_column(column) for column in table.columns],
        indexes=[
            _Index(
                name=index.name,
                columns=list(index.columns),
                is_primary=index.is_primary,
                is_replica_identity=index.is_replica_identity,
            )
            for index in table.indexes
        ],
    )


def _column(column: Column) -> _Column:
    return _Column(
        name=column.name,
        type=column.type_name,
        type_oid=column.type_oid if 0 < column.type_oid < _FIRST_USER_OID else None,
        is_not_null=column.is_not_null,
        generated=column.generated,
        is_toastable=column.is_toastable,
        collation=_COLLATIONS.get(column.collation_oid, "other"),
        base_oid=column.base_oid,
        enum_labels=list(column.enum_labels),
    )


def _publication(publication: Publication, names: dict[int, Name]) -> _Publication:
    conditions = filters.recorded(publication)
    entries = [(names[entry.oid], entry) for entry in publication.tables if entry.oid in names]
    return _Publication(
        name=publication.name,
        is_for_all_tables=publication.is_for_all_tables,
        operations=sorted(publication.operations),
        is_via_root=publication.is_via_root,
        sends_generated=publication.sends_generated,
        schemas=sorted(publication.schemas & {schema for schema, _ in names.values()}),
        tables=[
            _Published(
                table=name,
                columns=None if entry.columns is None else sorted(entry.columns),
                has_row_filter=entry.has_row_filter,
                row_filter=entry.row_filter,
                filter_columns=sorted(entry.filter_columns),
                made_of=conditions.get(".".join(name)),
            )
            for name, entry in sorted(entries, key=lambda pair: pair[0])
        ],
    )


def _concerns(publication: _Publication, names: dict[int, Name], *, ours: str) -> bool:
    """Whether it sends one of the tables; what else is published in that database is nobody's business."""
    sends = publication.is_for_all_tables and bool(names)
    return publication.name == ours or sends or bool(publication.schemas or publication.tables)


def _facts(file: _File) -> Facts:
    oids = {table.table: number for number, table in enumerate(file.tables, 1)}
    server = Server(
        version=file.postgres * 10000,
        database="",
        user="",
        is_superuser=False,
        is_standby=False,
        encoding="UTF8",
        wal_level="logical",
        max_slot_wal_keep_size="",
        max_replication_slots=0,
        max_wal_senders=0,
        has_rds_replication=False,
    )
    tables = tuple(_read_table(table, oids) for table in file.tables)
    publications = {each.name: _read_publication(each, oids) for each in file.publications}
    request = provision.Request("invalidator", file.publication, role=None)
    return Facts(provision.Facts(server, None, tables, publications, None), request, is_live=False)


def _read_table(table: _Table, oids: dict[Name, int]) -> Table:
    schema, name = table.table
    return Table(
        oid=oids[table.table],
        schema=schema,
        name=name,
        kind=table.kind,
        is_permanent=table.is_permanent,
        root_oid=None if table.root is None else oids.get(table.root, 0),
        replica_identity=table.replica_identity,
        has_children=table.has_children,
        columns=tuple(map(_read_column, table.columns)),
        indexes=tuple(
            Index(each.name, tuple(each.columns), each.is_primary, each.is_replica_identity) for each in table.indexes
        ),
        parent_oid=None if table.partition_of is None else oids.get(table.partition_of, 0),
    )


def _read_column(column: _Column) -> Column:
    return Column(
        name=column.name,
        type_oid=column.type_oid or 0,
        type_name=column.type,
        is_not_null=column.is_not_null,
        generated=column.generated,
        is_toastable=column.is_toastable,
        collation_oid=next((oid for oid, name in _COLLATIONS.items() if name == column.collation), _OTHER_COLLATION),
        base_oid=column.base_oid,
        enum_labels=tuple(column.enum_labels),
    )


def _read_publication(publication: _Publication, oids: dict[Name, int]) -> Publication:
    return Publication(
        name=publication.name,
        owner="",
        is_for_all_tables=publication.is_for_all_tables,
        operations=frozenset(publication.operations),
        is_via_root=publication.is_via_root,
        sends_generated=publication.sends_generated,
        schemas=frozenset(publication.schemas),
        tables=tuple(
            PublishedTable(
                oids[each.table],
                None if each.columns is None else frozenset(each.columns),
                each.has_row_filter,
                each.row_filter,
                filter_columns=frozenset(each.filter_columns),
            )
            for each in publication.tables
            if each.table in oids
        ),
        comment=filters.record(
            {".".join(each.table): each.made_of for each in publication.tables if each.made_of is not None},
            is_made=False,
        ),
    )
