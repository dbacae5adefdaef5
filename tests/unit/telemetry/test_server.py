from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from invalidator.errors import ConfigError
from invalidator.telemetry import listen, server
from invalidator.telemetry.metrics import Format, Snapshot, render
from invalidator.telemetry.server import StatusServer
from invalidator.telemetry.state import Role, State
from tests.support.processes import DEADLINE_SECONDS
from tests.support.telemetry_state import NOW, busy_state

pytestmark = pytest.mark.usefixtures("quiet_logs")


class Served:
    """A running server, its state, and a client."""

    def __init__(self, state: State, port: int, client: aiohttp.ClientSession) -> None:
        self.state = state
        self.port = port
        self._client = client

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        async with self._client.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers) as response:
            return response.status, await response.text(), dict(response.headers)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    state = busy_state()
    http = StatusServer("127.0.0.1:0", state, clock=lambda: NOW)
    port = await http.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as client:
        yield Served(state, port, client)
    await http.stop()


async def test_a_free_port_is_taken_and_told() -> None:
    http = StatusServer("127.0.0.1:0", State(), clock=lambda: NOW)
    port = await http.start()
    assert port > 0
    assert http.address == f"127.0.0.1:{port}"
    await http.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_livez_never_looks_at_anything(served: Served) -> None:
    served.state.source.role = Role.RECONNECTING
    served.state.rules_loaded.hash = ""
    status, text, _ = await served.get("/livez")
    assert (status, text) == (200, "ok\n")


async def test_readyz_says_in_one_word_that_it_is_ready(served: Served) -> None:
    status, text, _ = await served.get("/readyz")
    assert (status, text) == (200, "ready\n")


async def test_readyz_lists_its_checks_when_asked_and_when_one_fails(served: Served) -> None:
    _, text, _ = await served.get("/readyz?verbose")
    assert text == "[+] rules: 2 rules\n[+] stream: streaming\n[+] target:redis: answered\nready\n"
    served.state.source.role = Role.STOPPING
    status, text, _ = await served.get("/readyz")
    assert status == 503
    assert "[-] stream: stopping" in text


async def test_metrics_come_as_text_or_as_openmetrics(served: Served) -> None:
    _, text, headers = await served.get("/metrics")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    plain = {family.name for family in parse_text(text)}
    _, text, headers = await served.get(
        "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert {family.name for family in parse_openmetrics(text)} == plain  # type: ignore[no-untyped-call]
    assert {"invalidator_staleness_seconds", "process_cpu_seconds", "python_gc_collections"} <= plain


async def test_an_odd_accept_header_gets_text(served: Served) -> None:
    status, _, headers = await served.get("/metrics", Accept="text/plain;version=x;q=,,;=")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


async def test_many_scrapers_cost_one_rendering(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CACHE_SECONDS", 60.0)
    rendered: list[Format] = []

    def counted(snapshot: Snapshot, form: Format) -> bytes:
        rendered.append(form)
        return render(snapshot, form)

    monkeypatch.setattr(server, "render", counted)
    answers = await asyncio.gather(*(served.get("/metrics") for _ in range(10)))
    assert {status for status, _, _ in answers} == {200}
    assert rendered == ["text"]


async def test_status_is_json_with_problems(served: Served) -> None:
    served.state.targets["redis"].failing_since = NOW - 60
    _, text, headers = await served.get("/status")
    assert headers["Content-Type"].startswith("application/json")
    assert [problem["code"] for problem in json.loads(text)["problems"]] == ["target-failing"]


async def test_the_index_names_the_pages_and_an_unknown_path_is_not_found(served: Served) -> None:
    assert (await served.get("/"))[:2] == (200, "invalidator: /livez /readyz /readyz?verbose /metrics /status\n")
    for path in ("/nowhere", "/livez/", "/..%2f..%2fetc/passwd", "//"):
        assert (await served.get(path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"])
async def test_the_listener_only_reads(served: Served, method: str) -> None:
    status, _, headers = await served.get("/status", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


async def test_head_answers_without_a_body(served: Served) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/status"):
        status, text, _ = await served.get(path, "HEAD")
        assert (status, text) == (200, "")


async def test_every_answer_ends_its_connection_and_is_not_stored(served: Served) -> None:
    _, _, headers = await served.get("/livez")
    assert (headers["Connection"], headers["Cache-Control"]) == ("close", "no-store")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-Many: 1\r\n" * 10_000 + b"\r\n",
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    ],
    ids=["header", "line", "many", "nonsense"],
)
async def test_what_is_too_large_or_no_http_is_refused_and_the_daemon_serves_on(
    served: Served, request_bytes: bytes
) -> None:
    reader, writer = await served.connect()
    writer.write(request_bytes)
    try:
        answer = await asyncio.wait_for(reader.read(), DEADLINE_SECONDS)
    except ConnectionResetError:
        answer = b""  # closed with our bytes unread
    writer.close()
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert (await served.get("/livez"))[0] == 200


async def test_a_client_that_sends_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTION_SECONDS", 0.05)
    http = StatusServer("127.0.0.1:0", State(), clock=lambda: NOW)
    reader, writer = await asyncio.open_connection("127.0.0.1", await http.start())
    writer.write(b"GET /liv")
    with contextlib.suppress(ConnectionResetError):  # closed with our bytes unread
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
    writer.close()
    await http.stop()


async def test_connections_that_only_wait_do_not_keep_a_probe_out(served: Served) -> None:
    waiting = [await served.connect() for _ in range(server.MAX_CONNECTIONS + 20)]
    assert (await served.get("/livez"))[0] == 200
    for _, writer in waiting:
        writer.close()


async def test_an_address_in_use_is_explained() -> None:
    first = StatusServer("127.0.0.1:0", State(), clock=lambda: NOW)
    port = await first.start()
    second = StatusServer(f"127.0.0.1:{port}", State(), clock=lambda: NOW)
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}") as error:
        await second.start()
    assert "ss -ltnp" in str(error.value)
    await second.stop()
    await first.stop()


async def test_a_host_that_does_not_exist_is_explained(unresolvable: None) -> None:
    http = StatusServer("host.invalid:8642", State(), clock=lambda: NOW)
    with pytest.raises(ConfigError, match=r"cannot listen on host\.invalid:8642"):
        await http.start()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8642", ("127.0.0.1", 8642)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),  # noqa: S104
        ("[::1]:8642", ("::1", 8642)),
        (":8642", ("", 8642)),
        ("localhost:8642", ("localhost", 8642)),
    ],
)
def test_an_address_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert listen.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8642", "localhost", "localhost:", "localhost:http", "::1:8642", "x:65536", "x:²"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        listen.parse(text)
