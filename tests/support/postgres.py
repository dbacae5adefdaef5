"""Real Postgres servers and a fresh database per test."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from invalidator.demo.servers import PostgresServer, ServerMissing, find_postgres
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import docker_answers, missing, wants_docker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TEMPLATE = "invalidator_template"
_DROP_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
_numbers = itertools.count(1)
_DOCKER_COMMAND = (
    "postgres -c wal_level=logical -c fsync=off -c max_wal_senders=20 -c max_replication_slots=20 "
    "-c max_connections=100"
)


@dataclass(frozen=True, slots=True)
class Server:
    """A Postgres that the whole session shares: do not stop it, do not change its settings."""

    admin_dsn: str

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URI of the superuser for one database."""
        parts = urlsplit(self.admin_dsn)
        if not parts.scheme:  # POSTGRES_DSN may also be key=value
            return psycopg.conninfo.make_conninfo(self.admin_dsn, dbname=database)
        return urlunsplit(parts._replace(path=f"/{database}"))


class Database:
    """An empty database of one test; slots in it are dropped with it."""

    def __init__(self, server: Server, name: str) -> None:
        self.name = name
        self.dsn = server.dsn(name)
        self._connection = psycopg.connect(self.dsn, autocommit=True)

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement in autocommit (several, when there are no parameters); rows, if it gives any."""
        cursor = self._connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description is not None else []

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Another connection, for transactions; the caller closes it."""
        return psycopg.connect(self.dsn)

    def close(self) -> None:
        """End this object's connection."""
        self._connection.close()


class CopiedServer(PostgresServer):
    """A cluster of its own, copied in half the time that making one takes.

    All copies in a process have the same password and the same system identifier, as a cluster and its standby have.

    Args:
        settings: server settings, over those for tests and demo.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings=settings)

    def _initialise(self) -> None:
        self._password = _pattern()._password
        subprocess.run(["cp", "-a", _pattern()._data, self._data], check=True)


@functools.cache
def _pattern() -> PostgresServer:
    """A cluster that was shut down in order; it goes with this process."""
    server = PostgresServer()
    atexit.register(server.close)
    server.stop()
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One server for the session with ``wal_level=logical``."""
    if given := os.environ.get("POSTGRES_DSN"):
        yield Server(given)
        return
    local = _is_local()
    if wants_docker(local=local):
        yield from _from_docker()
    elif local:
        with PostgresServer() as server:
            yield Server(server.dsn())
    else:
        missing("no PostgreSQL: pip install '.[test]', or set POSTGRES_DSN")


@pytest.fixture(scope="session")
def _template(postgres_server: Server) -> Iterator[str]:
    """The database that every test's database is copied from: as empty as template0, and not in use by anybody."""
    name = f"{_TEMPLATE}_{os.getpid()}"
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@pytest.fixture
def database(postgres_server: Server, _template: str) -> Iterator[Database]:
    """A fresh database, dropped afterwards together with its slots and whoever is connected to it."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(_template)))
        made = Database(postgres_server, name)
        try:
            yield made
        finally:
            made.close()
            drop_database(admin, name)


@contextlib.contextmanager
def own_database(server: Server, options: str) -> Iterator[Database]:
    """A database made with these options of CREATE DATABASE from template0; dropped afterwards with its slots."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        made = Database(server, name)
        try:
            yield made
        finally:
            made.close()
            drop_database(admin, name)


@pytest.fixture
def crashable_postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, to be stopped, killed and restarted; local binaries only."""
    if not _is_local():
        missing("no local PostgreSQL to crash: pip install '.[test]'")
    with CopiedServer() as server:
        yield server


def drop_database(admin: psycopg.Connection[Any], name: str) -> None:
    """Drop the database and the slots in it, ending the walsenders that hold them.

    A daemon that still runs may come back, and make a slot anew, at any moment before the database is gone.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            admin.execute(_DROP_SLOTS, [name])
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):  # a walsender is still on its way out
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _is_local() -> bool:
    try:
        find_postgres()
    except ServerMissing:
        return False
    return True


def _from_docker() -> Iterator[Server]:
    if not docker_answers():
        missing("SERVICES=docker, but no Docker engine answers")
    from testcontainers.community.postgres import PostgresContainer

    image = f"postgres:{os.environ.get('POSTGRES_VERSION', '18')}"
    with PostgresContainer(image, driver=None).with_command(_DOCKER_COMMAND) as container:
        yield Server(container.get_connection_url())
