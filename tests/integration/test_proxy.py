from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.processes import DEADLINE_SECONDS
from tests.support.proxy import Fault, FaultProxy

ProxyTo = Callable[[str], Awaitable[FaultProxy]]


def _client(url: str) -> redis.Redis:
    return redis.from_url(url, socket_timeout=DEADLINE_SECONDS, protocol=2, retry=Retry(NoBackoff(), 0))


async def _becomes(client: redis.Redis, name: str, value: bytes) -> None:
    """Return when the server holds that."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await client.get(name) != value:
            pass


async def test_bytes_pass_and_are_counted(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    async with _client(proxy.through(redis_url)) as client:
        assert await client.incr("n") == 1
    assert proxy.connections == 1
    assert proxy.request_bytes > 0 < proxy.reply_bytes


async def test_a_dropped_reply_leaves_the_command_applied(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    async with _client(proxy.through(redis_url)) as client, _client(redis_url) as direct:
        await client.ping()
        proxy.fault = Fault.DROP_REPLIES
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.incr("n"), 0.3)
        await _becomes(direct, "n", b"1")


async def test_a_refused_connection_is_an_error_until_the_fault_ends(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    proxy.fault = Fault.REFUSE
    async with _client(proxy.through(redis_url)) as client:
        with pytest.raises(RedisConnectionError):
            await client.ping()
        proxy.fault = Fault.NONE
        assert await client.ping()


async def test_a_black_hole_holds_bytes_back_and_lets_them_go(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    async with _client(proxy.through(redis_url)) as client, _client(redis_url) as direct:
        await client.ping()
        proxy.fault = Fault.BLACK_HOLE
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.set("held", "1"), 0.3)
        assert await direct.get("held") is None
        proxy.fault = Fault.NONE
        await _becomes(direct, "held", b"1")


async def test_a_black_hole_that_was_ordered_for_later_lets_so_many_bytes_pass(
    proxy_to: ProxyTo, redis_url: str
) -> None:
    proxy = await proxy_to(redis_url)
    async with _client(proxy.through(redis_url)) as client, _client(redis_url) as direct:
        await client.ping()
        proxy.hold_after(request_bytes=1000)
        await client.set("short", "1")
        assert [proxy.fault] == [Fault.NONE]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.set("long", "x" * 1000), 0.3)
        assert [proxy.fault] == [Fault.BLACK_HOLE]
        await _becomes(direct, "long", b"x" * 1000)


async def test_a_reset_cuts_open_connections(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    async with _client(proxy.through(redis_url)) as client:
        await client.ping()
        proxy.reset_connections()
        with pytest.raises(RedisConnectionError):
            await client.ping()


async def test_a_cut_happens_in_the_middle_of_a_reply_and_once(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    async with _client(proxy.through(redis_url)) as client:
        await client.set("long", "x" * 1000)
        before = proxy.reply_bytes
        proxy.cut_after(reply_bytes=100)
        with pytest.raises(RedisConnectionError):
            await client.get("long")
        assert proxy.reply_bytes == before + 100
        assert await client.get("long") == b"x" * 1000


async def test_latency_is_added_in_both_directions(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to(redis_url)
    proxy.latency_seconds = 0.05
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    begin = loop.time()
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    assert loop.time() - begin >= 0.1
    writer.close()
    await writer.wait_closed()


async def test_a_half_closed_connection_ends_in_one_direction_and_goes_on_in_the_other(proxy_to: ProxyTo) -> None:
    heard = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await heard.put(line)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        proxy = await proxy_to(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"before\n")
        assert await heard.get() == b"before\n"
        proxy.half_close(towards_clients=True)
        assert await reader.read() == b""
        writer.write(b"after\n")
        assert await heard.get() == b"after\n"
        writer.close()
        await writer.wait_closed()


async def test_another_upstream_counts_for_new_connections(proxy_to: ProxyTo, redis_url: str) -> None:
    proxy = await proxy_to("tcp://127.0.0.1:1")
    port = urlsplit(redis_url).port
    assert port is not None
    proxy.upstream = ("127.0.0.1", port)
    async with _client(proxy.through(redis_url)) as client:
        assert await client.ping()
