from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from invalidator.telemetry.server import StatusServer
from invalidator.telemetry.state import State
from tests.support.processes import DEADLINE_SECONDS
from tests.support.telemetry_state import NOW, busy_state

pytestmark = pytest.mark.usefixtures("quiet_logs")


async def ask(listen: str, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "invalidator.healthcheck", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "INVALIDATOR_HTTP__LISTEN": listen},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_daemon_that_answers_is_healthy() -> None:
    server = StatusServer("127.0.0.1:0", busy_state(), clock=lambda: NOW)
    port = await server.start()
    assert await ask(f"127.0.0.1:{port}") == (0, "/livez: 200 ok\n")
    assert await ask(f"0.0.0.0:{port}") == (0, "/livez: 200 ok\n")
    assert await ask(f":{port}", "/readyz") == (0, "/readyz: 200 ready\n")
    await server.stop()


async def test_a_daemon_that_is_not_ready_is_told_by_the_readiness_path_only() -> None:
    server = StatusServer("127.0.0.1:0", State(), clock=lambda: NOW)
    port = await server.start()
    assert (await ask(f"127.0.0.1:{port}"))[0] == 0
    code, text = await ask(f"127.0.0.1:{port}", "/readyz")
    assert code == 1
    assert "not ready" in text
    await server.stop()


async def test_no_daemon_is_unhealthy() -> None:
    server = StatusServer("127.0.0.1:0", State(), clock=lambda: NOW)
    port = await server.start()
    await server.stop()
    code, text = await ask(f"127.0.0.1:{port}")
    assert code == 1
    assert "refused" in text


async def test_a_misspelled_address_is_unhealthy_with_the_reason() -> None:
    code, text = await ask("localhost")
    assert code == 1
    assert "HOST:PORT" in text


def test_the_probe_loads_nothing_of_the_daemon() -> None:
    heavy = "import invalidator.healthcheck, sys; print([m for m in ('aiohttp', 'pydantic', 'structlog', 'asyncio', 'redis', 'prometheus_client', 'psycopg') if m in sys.modules])"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True
    )
    assert done.stdout.strip() == "[]"
