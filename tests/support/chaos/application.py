"""What the application does all the time: change rows, and fill the caches with what is committed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import psycopg
import redis
import redis.asyncio

if TYPE_CHECKING:
    from tests.support.chaos.world import World

ROWS: Final = 40
_PUT: Final = (
    "INSERT INTO item VALUES (%(id)s, %(slug)s, %(version)s) ON CONFLICT (id) DO UPDATE SET version = excluded.version"
)
_CHANGES: Final = (
    _PUT,
    _PUT,
    "UPDATE item SET version = %(version)s WHERE id = %(id)s",
    "UPDATE item SET version = %(version)s, slug = %(slug)s WHERE id = %(id)s",
    "DELETE FROM item WHERE id = %(id)s",
)


class Application:
    """Several writers that are also readers.

    Nobody fills a row's entries while somebody writes it, and nothing is in anybody's hands while a server is replaced:
    a cached value that is not the row's can have one reason only.

    Args:
        world: where the servers are.
        seed: of every choice.
        truncates: the part of all that they do. One makes everything fresh, whatever was forgotten before.
    """

    def __init__(self, world: World, seed: int, *, truncates: float) -> None:
        self._world = world
        self._seed = seed
        self._truncates = truncates
        self._locks = [asyncio.Lock() for _ in range(ROWS)]
        self._everything = asyncio.Lock()
        self._version = 0
        self.writes = 0
        self.fills = 0
        self.is_over = False

    @contextlib.asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """Nobody writes or fills."""
        async with self._everything, contextlib.AsyncExitStack() as stack:
            for lock in self._locks:
                await stack.enter_async_context(lock)
            yield

    async def work(self, number: int) -> None:
        """Be one of its clients until it is over."""
        choice = random.Random(f"{self._seed}/{number}")  # noqa: S311  (a seed that replays, no secret)
        connections = _Connections(self._world)
        while not self.is_over:
            await asyncio.sleep(choice.uniform(0, 0.03))
            kind = choice.random()
            try:
                if kind < self._truncates:
                    await self._truncate(connections)
                elif kind < 0.5:
                    await self._change(connections, choice)
                else:
                    await self._fill(connections, choice)
            except (psycopg.Error, redis.RedisError, OSError):
                continue  # a server is away: whether the transaction was committed does not matter to the check
        await connections.close()

    async def _change(self, connections: _Connections, choice: random.Random) -> None:
        row, number, statement = choice.randrange(ROWS), choice.randrange(3), choice.choice(_CHANGES)
        async with self._locks[row]:
            self._version += 1  # a version that no row had before
            values = {"id": row, "slug": f"s{row}-{number}", "version": self._version}
            await (await connections.database()).execute(statement, values)
            self.writes += 1

    async def _truncate(self, connections: _Connections) -> None:
        async with self.at_rest():
            await (await connections.database()).execute("TRUNCATE item")
            self.writes += 1

    async def _fill(self, connections: _Connections, choice: random.Random) -> None:
        row = choice.randrange(ROWS)
        async with self._locks[row]:
            cursor = await (await connections.database()).execute("SELECT slug, version FROM item WHERE id = %s", [row])
            found = await cursor.fetchone()
            if found is None:
                return
            slug, version = found
            self._world.processes.cache[f"item:{row}"] = str(version)
            self._world.edge.store(f"/item/{row}", str(version), f"item-{row}", "items")
            await (await connections.cache()).mset({f"item:{row}": version, f"slug:{slug}": row})
            self.fills += 1


class _Connections:
    """One client's, to the servers that are the primaries now; not through the network that is broken on purpose.

    A connection that breaks under a transaction leaves open whether it will still be committed, perhaps behind the
    reader that comes next: that would be a stale fill of the application's own.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._database: tuple[str, psycopg.AsyncConnection[Any]] | None = None
        self._cache: tuple[str, redis.asyncio.Redis] | None = None

    async def database(self) -> psycopg.AsyncConnection[Any]:
        dsn = self._world.postgres.dsn()
        if self._database is None or self._database[0] != dsn or self._database[1].closed:
            if self._database is not None:
                await self._database[1].close()
            made = await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=2)
            self._database = dsn, made
        return self._database[1]

    async def cache(self) -> redis.asyncio.Redis:
        url = self._world.redis.url
        if self._cache is None or self._cache[0] != url:
            if self._cache is not None:
                await self._cache[1].aclose()
            self._cache = url, redis.asyncio.Redis.from_url(url, socket_timeout=60)
        return self._cache[1]

    async def close(self) -> None:
        if self._cache is not None:
            await self._cache[1].aclose()
        if self._database is not None:
            await self._database[1].close()
