"""A real Prometheus scrapes two daemons' figures and answers every query of the dashboard and of the alerts.

A parser does not see that two sides of a join do not match one to one; the engine does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from invalidator.demo.servers.process import free_port, spawn
from invalidator.model import Applied, Operation
from invalidator.telemetry import label_values
from invalidator.telemetry.events import Events
from invalidator.telemetry.server import StatusServer
from invalidator.telemetry.state import Role, State
from tests.support.processes import DEADLINE_SECONDS
from tests.support.telemetry_state import busy_state
from tests.support.tools import ROOT, find_tool

pytestmark = pytest.mark.usefixtures("quiet_logs")

# Without a value here: nothing is wrong with the figures, and the files are in force.
MAY_BE_EMPTY = {"Problems by code", "Rule files that are not in force", "Journal: files that cannot be used"}


def work(state: State) -> None:
    """Everything that is counted counts on."""
    events = Events(state)
    for name in state.targets:
        events.batch_applied(name, Applied(1, 1, 1, 1, 1, 2, 1), seconds=0.001, age_seconds=0.002)
        for result in label_values.RESULTS[1:]:
            events.delivery_failed(name, error="x", result=result, attempt=1, retry_in_seconds=1, now=time.time())
        state.targets[name].failing_since = None
        state.targets[name].rate_limit_wait_seconds += 0.1
        events.delivery_abandoned(name, items=1)
    for rule in state.rules.values():
        rule.matches[Operation.UPDATE] += 1
        rule.null_skips += 1
        rule.widened.update(label_values.WIDEN_REASONS)
        rule.errors.update(label_values.RULE_ERROR_REASONS)
        rule.condition_false += 1
        if rule.has_lookup:
            rule.lookups["ok"] += 1
            rule.lookup_duration.observe(0.002)
    state.source.messages.counts.update(label_values.MESSAGE_RESULTS)
    state.source.notifications.counts.update(label_values.NOTIFICATION_RESULTS)
    state.source.notification_queue_usage = 0.01
    state.rules_loaded.reloads["refused"] += 1
    state.tables["public.users"].rows[Operation.UPDATE] += 1
    state.source.reconnects.update(label_values.RECONNECT_REASONS)
    state.loop_lag.observe(0.001)
    state.source.heartbeat_sent = time.time()
    events.heartbeat_delivered(sent_at=time.time())


class Prometheus:
    """A server over a configuration, until stopped."""

    def __init__(self, folder: Path, targets: list[int], client: aiohttp.ClientSession) -> None:
        self._client = client
        self._port = free_port()
        scrape = {"job_name": "invalidator", "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in targets]}]}
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "prometheus.log").open("wb")
        self.process = spawn(
            [
                find_tool("prometheus", "prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        self._log.close()

    async def query(self, expression: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/query"
        async with self._client.get(url, params={"query": expression}) as response:
            if response.status == 503:
                raise ConnectionError
            answer = await response.json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        return answer["data"]["result"]

    async def until(self, expression: str, series: int) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                if len(await self.query(expression)) >= series:
                    return
            except (aiohttp.ClientConnectionError, ConnectionError):
                pass  # it starts
            await asyncio.sleep(0.1)
        pytest.fail(f"fewer than {series} series: {expression}")


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[Prometheus]:
    find_tool("prometheus", "prometheus")
    states = [busy_state(time.time()), busy_state(time.time())]
    states[1].source.role = Role.STANDBY
    servers = [StatusServer("127.0.0.1:0", state, clock=time.time) for state in states]
    ports = [await server.start() for server in servers]

    async def keep_working() -> None:
        while True:
            for state in states:
                work(state)
            await asyncio.sleep(0.1)

    worker = asyncio.create_task(keep_working())
    async with aiohttp.ClientSession() as client:
        running = Prometheus(tmp_path, ports, client)
        try:
            await running.until("rate(invalidator_retries_total[30s]) > 0", 6)
            yield running
        finally:
            running.end()
            worker.cancel()
            for server in servers:
                await server.stop()


async def test_prometheus_answers_every_query_of_the_dashboard_and_the_alerts(prometheus: Prometheus) -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "invalidator.json").read_text())
    panels = [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", []))]
    empty = set()
    for panel in panels:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "30s")
            for variable in ("slot", "rule", "target"):
                expression = expression.replace(f"${variable}", ".*")
            if not await prometheus.query(expression):
                empty.add(panel["title"])
    assert empty <= MAY_BE_EMPTY
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    for rule in alerts["groups"][0]["rules"]:
        await prometheus.query(rule["expr"])
