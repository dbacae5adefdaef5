from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from invalidator.errors import TargetUnavailable
from invalidator.net.http import Answer, HttpClient, Request
from tests.support.http import Reply, ScriptedServer
from tests.support.processes import DEADLINE_SECONDS


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(timeout_seconds=DEADLINE_SECONDS, max_body_bytes=1000)
    yield client
    await client.close()


async def test_a_request_arrives_as_it_was_written(client: HttpClient, http_server: ScriptedServer) -> None:
    http_server.script(Reply(201, {"X-Thing": "1"}, b"hello"))
    answer = await client.send(Request("PURGE", f"{http_server.url}/a%20b?c", {"X-A": "b c"}, b"body"))
    assert (answer.status, answer.headers["x-thing"], answer.body) == (201, "1", b"hello")
    (received,) = http_server.requests
    assert (received.method, received.path, received.body) == ("PURGE", "/a%20b?c", b"body")
    assert received.headers["x-a"] == "b c"
    assert received.headers["user-agent"].startswith("invalidator/")


@pytest.mark.parametrize("size", [999, 1000])
async def test_a_body_up_to_the_bound_is_kept_whole(client: HttpClient, http_server: ScriptedServer, size: int) -> None:
    http_server.otherwise = Reply(200, body=b"x" * size)
    assert len((await client.send(Request("GET", http_server.url))).body) == size


async def test_a_huge_body_is_cut_at_the_bound_and_its_connection_closed(
    client: HttpClient, http_server: ScriptedServer
) -> None:
    http_server.script(Reply(200, body=b"x" * 50_000_000))
    answer = await client.send(Request("GET", http_server.url))
    assert (answer.status, len(answer.body)) == (200, 1000)
    await http_server.idle()
    http_server.script(Reply(200, body=b"next"))
    assert (await client.send(Request("GET", http_server.url))).body == b"next"


async def test_cookies_are_not_kept(client: HttpClient, http_server: ScriptedServer) -> None:
    http_server.script(Reply(200, {"Set-Cookie": "a=b"}))
    for _ in range(2):
        await client.send(Request("GET", http_server.url))
    assert "cookie" not in http_server.requests[1].headers


async def test_proxies_and_netrc_of_the_machine_are_not_used(
    client: HttpClient, http_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await client.send(Request("GET", http_server.url))).status == 200
    assert "authorization" not in http_server.requests[0].headers


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_server_that_speaks_something_else_is_unavailable(client: HttpClient, scheme: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"SSH-2.0-OpenSSH_9.2 a-secret\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TargetUnavailable) as caught:
            await client.send(Request("GET", f"{scheme}://127.0.0.1:{port}"))
    assert caught.value.result == "connection"
    assert "SSH" not in str(caught.value)


async def test_a_name_that_does_not_resolve_is_said(client: HttpClient, unresolvable: None) -> None:
    with pytest.raises(TargetUnavailable, match=r"GET nowhere\.invalid: the host name cannot be resolved"):
        await client.send(Request("GET", "http://nowhere.invalid/"))


async def test_a_closed_client_opens_again(client: HttpClient, http_server: ScriptedServer) -> None:
    await client.close()
    await client.send(Request("GET", http_server.url))
    await client.close()
    await client.send(Request("GET", http_server.url))
    assert len(http_server.requests) == 2


def test_headers_and_bodies_are_not_in_the_repr() -> None:
    request = Request("POST", "http://host/", {"Authorization": "secret"}, b"secret")
    assert "secret" not in repr(request)
    assert "secret" not in repr(Answer(200, {}, b"secret"))


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"{", b'"x"', b"\xff", b"[" * 100_000, b"NaN"])
def test_a_body_that_is_no_json_object_reads_as_an_empty_one(body: bytes) -> None:
    assert Answer(200, {}, body).json_object() == {}
