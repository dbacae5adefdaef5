"""Several hosts in a DSN: the one that is there, and that can be written to, is taken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from invalidator.demo.servers import PostgresServer
from invalidator.errors import SourceDisconnected
from invalidator.postgres.connection import connect, connect_pooled
from invalidator.postgres.replication import ReplicationStream
from invalidator.postgres.side import SideConnection
from tests.support.postgres import CopiedServer
from tests.support.processes import DEADLINE_SECONDS
from tests.support.standby import Standby


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, Standby]]:
    """A primary and its standby, with the same password."""
    with CopiedServer() as primary, Standby(primary) as standby:
        with psycopg.connect(primary.dsn(), autocommit=True) as admin:
            admin.execute("CREATE PUBLICATION p")
            admin.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        yield primary, standby


@pytest.fixture
async def dead() -> AsyncIterator[int]:
    """A port at which nobody answers, and which nobody else takes meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """A port that takes connections and never answers, as behind a network that swallows everything."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def listed(server: PostgresServer, *ports: int, **more: str) -> str:
    """The server's DSN with these ports, one after the other."""
    known = conninfo_to_dict(server.dsn())
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    options = "?" + "&".join(f"{name}={value}" for name, value in more.items()) if more else ""
    return f"postgresql://{known['user']}:{known['password']}@{hosts}/postgres{options}"


async def ports(dsn: str) -> set[int]:
    """Where the stream and the side connection lead to."""
    side = await SideConnection.open(dsn, slot="s")
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):  # the walsender of the time before may still be on its way out
            while await side.fetch("SELECT 1 FROM pg_replication_slots WHERE active"):
                pass
        stream = await ReplicationStream.open(dsn, slot="s", publication="p")
        with socket.socket(fileno=stream.socket) as borrowed:
            found = {borrowed.getpeername()[1], side.connection.info.port}
            borrowed.detach()
        await stream.close()
    finally:
        await side.close()
    return found


async def test_a_host_that_is_dead_is_passed_over(pair: tuple[PostgresServer, Standby], dead: int) -> None:
    primary, _ = pair
    assert await ports(listed(primary, dead, primary.port)) == {primary.port}
    async with await connect_pooled(listed(primary, dead, primary.port), application_name="lookups") as lookups:
        assert lookups.info.port == primary.port


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports at which somebody knocks."""
    ports: list[int] = []
    knock = psycopg.AsyncConnection._connect_gen

    def noted(conninfo: str, **more: Any) -> Any:
        ports.append(int(str(conninfo_to_dict(conninfo)["port"])))
        return knock(conninfo, **more)

    monkeypatch.setattr(psycopg.AsyncConnection, "_connect_gen", noted)
    return ports


async def test_a_host_that_never_answers_is_waited_for_once_and_not_for_each_connection(
    pair: tuple[PostgresServer, Standby], silent: int, tried: list[int]
) -> None:
    primary, _ = pair
    dsn = listed(primary, silent, primary.port, connect_timeout="4")
    assert await ports(dsn) == {primary.port}
    async with await connect_pooled(dsn, application_name="lookups") as lookups:
        assert lookups.info.port == primary.port
    assert tried == [silent, primary.port, primary.port, primary.port]


async def test_who_does_not_wait_for_the_first_host_reaches_the_next_one_all_the_same(
    pair: tuple[PostgresServer, Standby], silent: int, tried: list[int]
) -> None:
    """Lookups wait two seconds, and a host may be silent for ten."""
    primary, _ = pair
    dsn = listed(primary, silent, primary.port)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await connect_pooled(dsn, application_name="lookups")
    async with await connect_pooled(dsn, application_name="lookups") as lookups:
        assert lookups.info.port == primary.port
    assert tried == [silent, primary.port]


async def test_what_each_host_said_is_told(pair: tuple[PostgresServer, Standby], dead: int) -> None:
    _, standby = pair
    text = f"127.0.0.1:{dead}: .*; 127.0.0.1:{standby.port}: .*standby"
    with pytest.raises(SourceDisconnected, match=text):
        await connect(listed(standby, dead, standby.port), application_name="x")


@pytest.mark.parametrize("more", [{}, {"target_session_attrs": "primary"}])
async def test_of_a_standby_and_a_primary_the_primary_is_taken_whatever_their_order(
    pair: tuple[PostgresServer, Standby], more: dict[str, str]
) -> None:
    primary, standby = pair
    for order in ((standby.port, primary.port), (primary.port, standby.port)):
        assert await ports(listed(primary, *order, **more)) == {primary.port}


async def test_a_primary_whose_sessions_begin_read_only_is_the_primary_all_the_same(
    pair: tuple[PostgresServer, Standby],
) -> None:
    primary, standby = pair
    dsn = listed(primary, standby.port, primary.port, options="-c%20default_transaction_read_only%3Don")
    async with await connect(dsn, application_name="x") as connection:
        assert connection.info.port == primary.port


@pytest.mark.parametrize(
    ("wanted", "is_standby"), [("standby", True), ("prefer-standby", True), ("read-write", False), (None, True)]
)
async def test_lookups_ask_the_kind_of_server_that_they_are_told_to(
    pair: tuple[PostgresServer, Standby], wanted: str | None, is_standby: bool
) -> None:
    primary, standby = pair
    order = (standby.port, primary.port) if wanted is None else (primary.port, standby.port)
    dsn = listed(primary, *order, **({} if wanted is None else {"target_session_attrs": wanted}))
    async with await connect_pooled(dsn, application_name="lookups") as lookups:
        assert lookups.info.port == (standby.port if is_standby else primary.port)


async def test_only_standbys_in_a_list_are_waited_for_and_one_that_is_named_alone_is_connected(
    pair: tuple[PostgresServer, Standby], dead: int
) -> None:
    _, standby = pair
    with pytest.raises(SourceDisconnected):
        await connect(listed(standby, dead, standby.port), application_name="x")
    async with await connect(standby.dsn(), application_name="x") as alone:
        assert alone.info.port == standby.port
