"""Everything that the demo runs, up and connected: servers, shop, edge, and the daemon between them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import aiohttp
import psycopg
from redis.asyncio import Redis

from invalidator.demo.daemon import Daemon
from invalidator.demo.edge import StandInEdge
from invalidator.demo.l1 import L1Cache, subscribe
from invalidator.demo.origin import Origin
from invalidator.demo.servers import KeyValueServer, PostgresServer, ServerFailed, ServerMissing
from invalidator.demo.servers.varnish import VarnishServer
from invalidator.demo.taps import Taps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from invalidator.demo.pages import Connection

EdgeChoice = Literal["auto", "varnish", "stand-in"]
Layer = Literal["redis", "l1", "edge"]

_HERE: Final = Path(__file__).parent
_UNUSED_DATABASE: Final = 1


def resource(name: str) -> Path:
    """A folder of the repository that the package needs: beside us when installed, at the root in a checkout."""
    installed = _HERE / name
    return installed if installed.exists() else _HERE.parents[1] / name


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    edge: EdgeChoice = "auto"
    broken: Layer | None = None
    """This layer hears no invalidations, to see what staleness looks like."""


class Stage:
    """The running demo; made by :func:`raise_curtain`."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.say = say
        self.taps = Taps()
        self.l1 = L1Cache()
        self.versions: dict[str, str] = {}
        self.postgres: PostgresServer
        self.redis_server: KeyValueServer
        self.writer: Connection
        self.reader: Connection
        self.redis: Redis
        self.origin: Origin
        self.edge_url: str
        self.edge_note = ""
        self.daemon: Daemon
        self.http: aiohttp.ClientSession

    async def build(self, stack: AsyncExitStack, background: asyncio.TaskGroup) -> Self:
        """Start everything, inner parts first; the stack undoes it."""
        await self._start_databases(stack)
        await self._start_shop(stack, background)
        await self._start_edge(stack, background)
        self.say("daemon: python -m invalidator run --settings config/demo/invalidator.yaml")
        self.daemon = Daemon(resource("config/demo") / "invalidator.yaml", self._overrides())
        stack.push_async_callback(asyncio.to_thread, self.daemon.stop)
        await self.daemon.ready()
        return self

    async def _start_databases(self, stack: AsyncExitStack) -> None:
        made = await asyncio.gather(
            asyncio.to_thread(PostgresServer), asyncio.to_thread(KeyValueServer), return_exceptions=True
        )
        failures = [result for result in made if isinstance(result, BaseException)]
        for result in made:
            if isinstance(result, PostgresServer):
                self.postgres = result
                stack.callback(result.close)
            elif isinstance(result, KeyValueServer):
                self.redis_server = result
                stack.callback(result.close)
        if failures:
            raise failures[0]
        self.writer = await self._connect(stack)
        self.reader = await self._connect(stack)
        await self.writer.execute((_HERE / "schema.sql").read_bytes())
        self.redis = await stack.enter_async_context(Redis.from_url(self.redis_server.url))
        await self._note_versions()

    async def connect(self) -> Connection:
        """One more connection, in autocommit; the caller closes it."""
        return await psycopg.AsyncConnection.connect(self.postgres.dsn(), autocommit=True)

    async def _connect(self, stack: AsyncExitStack) -> Connection:
        made = await self.connect()
        stack.push_async_callback(made.close)
        return made

    async def _note_versions(self) -> None:
        [(version,)] = await (await self.reader.execute("SHOW server_version")).fetchall()
        info = await self.redis.info("server")
        name, field = ("Valkey", "valkey_version") if "valkey_version" in info else ("Redis", "redis_version")
        self.versions = {"Postgres": version, name: info[field]}
        self.say(f"started Postgres {version} and {name} {info[field]}")

    async def _start_shop(self, stack: AsyncExitStack, background: asyncio.TaskGroup) -> None:
        self.origin = Origin(self.reader, self.redis, self.l1)
        await self.origin.start()
        stack.push_async_callback(self.origin.close)
        self.http = await stack.enter_async_context(aiohttp.ClientSession())
        hears, watches = asyncio.Event(), asyncio.Event()
        url = self.redis_server.url
        _run(stack, background, subscribe(url, self.l1, self._hear, hears))
        _run(stack, background, self.taps.watch_redis(url, watches))
        async with asyncio.timeout(30):
            await hears.wait()
            await watches.wait()

    def _hear(self, message: dict[str, Any]) -> None:
        self.taps.published(message)
        if self.options.broken != "l1":
            self.l1.apply(message)

    async def _start_edge(self, stack: AsyncExitStack, background: asyncio.TaskGroup) -> None:
        if self.options.edge != "stand-in" and self.options.broken != "edge":
            try:
                varnish = await asyncio.to_thread(VarnishServer, self.origin.port, resource("deploy/varnish"))
            except (ServerMissing, ServerFailed) as error:
                if self.options.edge == "varnish":
                    raise
                self.edge_note = str(error).splitlines()[0]
            else:
                stack.callback(varnish.close)
                _run(stack, background, self.taps.watch_varnish(varnish))
                self.edge_url = varnish.url
                self.versions["Varnish"] = varnish.version()
                self.say(f"started Varnish {varnish.version()} with vmod xkey")
                return
        await self._start_stand_in(stack)

    async def _start_stand_in(self, stack: AsyncExitStack) -> None:
        is_broken = self.options.broken == "edge"
        edge = StandInEdge(f"http://127.0.0.1:{self.origin.port}", self.taps.purged, ignore_purges=is_broken)
        await edge.start()
        stack.push_async_callback(edge.close)
        self.edge_url = edge.url
        self.versions["stand-in edge"] = ""
        why = f" ({self.edge_note})" if self.edge_note else ""
        self.say(f"started a stand-in for Varnish: a small cache in this process with the same PURGE protocol{why}")

    def _overrides(self) -> dict[str, str]:
        url = self.redis_server.url
        # A daemon that unlinks in another database of the same server does its work well, and in vain.
        keys_url = f"{url[:-1]}{_UNUSED_DATABASE}" if self.options.broken == "redis" else url
        return {
            "source.dsn": self.postgres.dsn(),
            "targets.redis.url": keys_url,
            "targets.l1.url": url,
            "targets.edge.url": self.edge_url,
        }


@asynccontextmanager
async def raise_curtain(options: Options, say: Callable[[str], None]) -> AsyncIterator[Stage]:
    """The demo, running; everything is ended and removed afterwards, whatever happened.

    Raises:
        ServerMissing: Postgres or Valkey is not installed.
        ServerFailed: something does not start, the daemon included; the message holds its log.
    """
    try:
        async with asyncio.TaskGroup() as background, AsyncExitStack() as stack:
            yield await Stage(options, say).build(stack, background)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell of: the first one, as nobody asked for several."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _run(stack: AsyncExitStack, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
    """Run until the stack unwinds; a failure before that ends the demo."""
    task = group.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    stack.push_async_callback(end)
