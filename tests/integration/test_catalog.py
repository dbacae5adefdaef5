from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from invalidator.errors import ConfigError, InvalidatorError
from invalidator.postgres import catalog
from invalidator.postgres.connection import connect

if TYPE_CHECKING:
    from tests.support.postgres import Database


async def tables(database: Database, *patterns: tuple[str, str]) -> dict[str, catalog.Table]:
    async with await connect(database.dsn, application_name="test") as connection:
        return {table.full_name: table for table in await catalog.tables(connection, patterns)}


async def test_names_are_raw_and_only_a_star_is_a_glob(database: Database) -> None:
    for name in ("Order.Items", "a_b", "axb", "a%b", "a!b", 'quo"te'):
        database.execute('CREATE TABLE "{}" (id int)'.format(name.replace('"', '""')))
    assert set(await tables(database, ("public", "Order.Items"))) == {"public.Order.Items"}
    assert set(await tables(database, ("public", "a_b"))) == {"public.a_b"}
    assert set(await tables(database, ("public", "a%b"), ("public", "a!b"))) == {"public.a%b", "public.a!b"}
    assert set(await tables(database, ("pub*", 'q*"te'))) == {'public.quo"te'}


async def test_system_tables_are_never_found(database: Database) -> None:
    database.execute("CREATE TABLE t (id int, body text)")
    assert set(await tables(database, ("*", "*"))) == {"public.t"}


async def test_columns_come_in_order_without_dropped_ones(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (b int NOT NULL, gone int, a varchar(3), g int GENERATED ALWAYS AS (b * 2) STORED)"
    )
    database.execute("ALTER TABLE t DROP COLUMN gone")
    (table,) = (await tables(database, ("public", "t"))).values()
    assert [(c.name, c.type_name, c.is_not_null, c.generated) for c in table.columns] == [
        ("b", "integer", True, ""),
        ("a", "character varying(3)", False, ""),
        ("g", "integer", False, "s"),
    ]


@pytest.mark.parametrize(
    ("made", "identity"),
    [
        ("CREATE TABLE t (id int PRIMARY KEY, b int)", {"id"}),
        ("CREATE TABLE t (id int, b int, PRIMARY KEY (b, id))", {"id", "b"}),
        ("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, b int)", None),
        ("CREATE TABLE t (id int, b int)", None),
        ("CREATE TABLE t (id int PRIMARY KEY, b int); ALTER TABLE t REPLICA IDENTITY NOTHING", None),
        ("CREATE TABLE t (id int, b int); ALTER TABLE t REPLICA IDENTITY FULL", {"id", "b"}),
        (
            "CREATE TABLE t (id int PRIMARY KEY, b int NOT NULL UNIQUE);"
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_b_key",
            {"b"},
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY, b int NOT NULL UNIQUE);"
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_b_key; ALTER TABLE t DROP CONSTRAINT t_b_key",
            None,
        ),
    ],
)
async def test_the_identity_is_what_postgres_sends(database: Database, made: str, identity: set[str] | None) -> None:
    database.execute(made)
    (table,) = (await tables(database, ("public", "t"))).values()
    assert table.identity == identity


async def test_only_indexes_that_can_be_the_identity_are_listed(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, b int NOT NULL, c int, d int NOT NULL)")
    database.execute("CREATE UNIQUE INDEX fit ON t (b, id)")
    database.execute("CREATE UNIQUE INDEX including ON t (d) INCLUDE (c)")
    database.execute("CREATE UNIQUE INDEX nullable ON t (c)")
    database.execute("CREATE UNIQUE INDEX partial ON t (b) WHERE b > 0")
    database.execute("CREATE UNIQUE INDEX expression ON t ((b + 1))")
    database.execute("CREATE INDEX plain ON t (b)")
    (table,) = (await tables(database, ("public", "t"))).values()
    assert {index.name: index.columns for index in table.indexes} == {
        "t_pkey": ("id",),
        "fit": ("b", "id"),
        "including": ("d",),
    }


async def test_partitions_come_with_their_root(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE leaf PARTITION OF p FOR VALUES FROM (0) TO (9)")
    found = await tables(database, ("public", "t"))
    root = found["public.t"]
    assert {name: table.root_oid for name, table in found.items()} == {
        "public.t": None,
        "public.p": root.oid,
        "public.leaf": root.oid,
    }
    async with await connect(database.dsn, application_name="test") as connection:
        assert await catalog.partition_root(connection, found["public.leaf"].oid) == ("public", "t")
        assert await catalog.partition_root(connection, root.oid) is None
        assert await catalog.partition_root(connection, 1) is None


async def test_a_publication_tells_tables_operations_and_lists(database: Database) -> None:
    version = int(database.execute("SHOW server_version_num")[0][0])
    database.execute("CREATE SCHEMA s; CREATE TABLE t (id int PRIMARY KEY, b int, c int); CREATE TABLE u (id int)")
    listed = "t (id, b) WHERE (id > 1)" if version >= 150000 else "t"
    database.execute(f"CREATE PUBLICATION p FOR TABLE {listed}, u WITH (publish = 'insert, delete')")
    database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    async with await connect(database.dsn, application_name="test") as connection:
        found = await catalog.publications(connection)
        by_name = {table.name: table.oid for table in await catalog.tables(connection, [("public", "*")])}
    assert found["p"].operations == {"insert", "delete"}
    entry = found["p"].table(by_name["t"])
    assert entry is not None
    assert entry.columns == ({"id", "b"} if version >= 150000 else None)
    assert entry.has_row_filter == (version >= 150000)
    assert found["p"].table(by_name["u"]) is not None
    assert found["everything"].is_for_all_tables
    assert found["everything"].table(by_name["t"]) is None


async def test_slot_role_and_server_are_told(database: Database) -> None:
    name = f"s_{database.name}"
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", name)
    async with await connect(database.dsn, application_name="test") as connection:
        slot = await catalog.slot(connection, name)
        assert slot is not None
        assert (slot.plugin, slot.database, slot.active_pid) == ("pgoutput", database.name, None)
        assert slot.confirmed_flush_lsn is not None
        assert await catalog.slot(connection, "nowhere") is None
        server = await catalog.server(connection)
        assert (server.database, server.wal_level, server.is_standby) == (database.name, "logical", False)
        role = await catalog.role(connection, server.user)
        assert role is not None
        assert role.can_login
        assert await catalog.role(connection, "nobody there") is None


async def test_driver_errors_become_ours(database: Database) -> None:
    async with await connect(database.dsn, application_name="test") as connection:
        database.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(InvalidatorError) as caught:
            await catalog.server(connection)
        assert not isinstance(caught.value, ConfigError)
