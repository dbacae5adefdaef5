"""What the compose file starts, started here without containers: its SQL, settings, rules, origin and VCL together."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path

import psycopg
import pytest

from invalidator.demo.servers import PostgresServer, ServerMissing
from invalidator.demo.servers.process import ServerFailed, on_free_port, spawn, wait_until
from invalidator.demo.servers.varnish import VarnishServer
from tests.support.processes import DEADLINE_SECONDS, Program
from tests.support.redis import SharedServer
from tests.support.services import missing
from tests.support.tools import ROOT, find_tool
from tests.support.varnish import VCL

COMPOSE = ROOT / "deploy" / "compose"
SECRET = "purge-secret"  # noqa: S105  (that of the compose file)


@dataclass(slots=True)
class Stack:
    """The running services."""

    shop_dsn: str
    edge_url: str
    origin_url: str
    daemon: Program

    def change_price(self, product: int, price_cents: int) -> None:
        with psycopg.connect(self.shop_dsn) as connection:
            connection.execute("UPDATE products SET price_cents = %s WHERE id = %s", [price_cents, product])

    def read(self, product: int, url: str) -> tuple[int, HTTPMessage]:
        """The price on the page, and the headers that came with it."""
        with urllib.request.urlopen(f"{url}/products/{product}", timeout=DEADLINE_SECONDS) as answer:  # noqa: S310  (loopback)
            return json.load(answer)["price_cents"], answer.headers


def make_shop(server: PostgresServer) -> str:
    """Run the compose file's SQL, in the order in which the image does; the DSN of the database's owner."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    for script in sorted((COMPOSE / "postgres").glob("*.sql")):
        with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
            connection.execute(script.read_bytes())
    return server.dsn("shop")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):  # noqa: S310  (loopback)
            return True
    except OSError:
        return False


class ShopOrigin:
    """The compose file's origin on a free port."""

    def __init__(self, folder: Path, dsn: str, redis_url: str) -> None:
        self._script = folder / "origin.py"
        self._env = {"DATABASE_URL": dsn, "REDIS_URL": redis_url, "PATH": os.environ.get("PATH", "")}
        self.port = on_free_port(self._start)

    def _start(self, port: int) -> None:
        source = (COMPOSE / "origin" / "origin.py").read_text()
        assert "port=8080" in source
        self._script.write_text(source.replace("port=8080", f"host='127.0.0.1', port={port}"))
        self._process = spawn([sys.executable, self._script], env=self._env)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), what="the origin")
        except ServerFailed:
            self.close()
            raise

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def stack(redis_server: SharedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    find_tool("varnishd", "varnish")
    with ExitStack() as started:
        try:
            postgres = started.enter_context(PostgresServer())
        except ServerMissing as error:
            missing(str(error))
        shop_dsn = make_shop(postgres)
        origin = started.enter_context(
            closing(ShopOrigin(tmp_path_factory.mktemp("origin"), shop_dsn, redis_server.url))
        )
        varnish = started.enter_context(VarnishServer(origin.port, VCL, secret=SECRET))
        environment = {
            "INVALIDATOR_RULES": str(COMPOSE / "rules.yaml"),
            "INVALIDATOR_SOURCE__DSN": postgres.dsn("shop").replace(
                shop_dsn.partition("@")[0], "postgresql://invalidator:invalidator"
            ),
            "INVALIDATOR_TARGETS__CACHE__URL": redis_server.url,
            "INVALIDATOR_TARGETS__PROCESSES__URL": redis_server.url,
            "INVALIDATOR_TARGETS__EDGE__URL": varnish.url,
            "INVALIDATOR_TARGETS__EDGE__SECRET": SECRET,
            "INVALIDATOR_HTTP__LISTEN": "127.0.0.1:0",
        }
        daemon = started.enter_context(
            closing(Program("run", "--settings", COMPOSE / "settings.yaml", env=environment))
        )
        daemon.wait_for_event("stream.connected")
        yield Stack(shop_dsn, varnish.url, f"http://127.0.0.1:{origin.port}", daemon)


def test_a_changed_price_reaches_the_edge_and_other_pages_stay_cached(stack: Stack) -> None:
    before, _ = stack.read(1, stack.edge_url)
    other, _ = stack.read(2, stack.edge_url)
    assert stack.read(1, stack.edge_url)[1]["X-Cache"] == "HIT"

    stack.change_price(1, before + 1)
    wait_until(lambda: stack.read(1, stack.edge_url)[0] == before + 1, what="the new price at the edge")

    assert stack.read(1, stack.origin_url)[0] == before + 1
    price, headers = stack.read(2, stack.edge_url)
    assert (price, headers["X-Cache"]) == (other, "HIT")


def test_the_first_two_layers_forget_before_the_edge_does(stack: Stack) -> None:
    before, _ = stack.read(3, stack.edge_url)
    assert stack.read(3, stack.origin_url)[1]["X-Answered-By"] in {"memory", "redis"}

    stack.change_price(3, before + 1)

    # When the edge asks again, Redis has forgotten, and the origin's own process has been told to: on a busy machine it
    # may not have come to that yet, for which there are repeats.
    def purged() -> bool:
        price, headers = stack.read(3, stack.edge_url)
        if headers["X-Cache"] == "MISS" and price == before:
            assert headers["X-Answered-By"] == "memory"
        return price == before + 1

    wait_until(purged, what="the new price at the edge")


def test_truncating_the_table_empties_every_layer(stack: Stack) -> None:
    stack.read(5, stack.edge_url)
    with psycopg.connect(stack.shop_dsn) as connection:
        rows = connection.execute("SELECT id, name, price_cents FROM products ORDER BY id").fetchall()
        connection.execute("TRUNCATE products")

    def gone() -> bool:
        return not answers(f"{stack.edge_url}/products/5")

    try:
        wait_until(gone, what="the page of a product that is gone")
    finally:
        with psycopg.connect(stack.shop_dsn) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO products (id, name, price_cents) OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s)", rows
            )
