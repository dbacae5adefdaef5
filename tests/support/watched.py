"""What a running daemon says of itself over its public listener."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import DEADLINE_SECONDS, Program


class Watched:
    """A running daemon's listener."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._address = program.wait_for_event("daemon.started")["http"]

    async def text(self, path: str, *, status: int = 200) -> str:
        """The body, as soon as the path answers with this status."""
        url = f"http://{self._address}{path}"
        return await asyncio.to_thread(self._program.wait_for_http, url, status=status)

    async def status(self) -> dict[str, Any]:
        """/status."""
        answer: dict[str, Any] = json.loads(await self.text("/status"))
        return answer

    async def value(self, name: str, **labels: str) -> float:
        """The metric's value."""
        found = await self._value(name, labels)
        if found is None:
            pytest.fail(f"no sample {name} {labels}")
        return found

    async def until_value(self, wanted: float, name: str, **labels: str) -> None:
        """Return when the metric has this value; the daemon renders its metrics at most once a second."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := await self._value(name, labels)) != wanted:
            if time.monotonic() > deadline:
                pytest.fail(f"{name} {labels} is {found}, not {wanted}")
            await asyncio.sleep(0.05)

    async def until_above(self, bound: float, name: str, **labels: str) -> float:
        """Return the metric's value when it is greater than this."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := await self._value(name, labels)) is None or found <= bound:
            if time.monotonic() > deadline:
                pytest.fail(f"{name} {labels} is {found}, not above {bound}")
            await asyncio.sleep(0.05)
        return found

    async def _value(self, name: str, labels: dict[str, str]) -> float | None:
        for family in text_string_to_metric_families(await self.text("/metrics")):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    async def until_problems(self, *codes: str) -> dict[str, Any]:
        """The status, as soon as these are its problems above information."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            answer = await self.status()
            if [problem["code"] for problem in answer["problems"] if problem["severity"] != "info"] == list(codes):
                return answer
            if time.monotonic() > deadline:
                pytest.fail(f"not {codes}: {answer['problems']}")
            await asyncio.sleep(0.05)

    async def problem(self, subject: str) -> dict[str, Any] | None:
        """The problem about this subject, if there is one."""
        found: list[dict[str, Any]] = [each for each in (await self.status())["problems"] if each["subject"] == subject]
        return found[0] if found else None

    async def until(self, subject: str, *, is_there: bool) -> dict[str, Any]:
        """Return when the problem about this subject has come, or gone; fail after a while."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            problem = await self.problem(subject)
            if (problem is not None) is is_there:
                return problem or {}
            await asyncio.sleep(0.05)
        pytest.fail(f"{subject}: not {'there' if is_there else 'gone'}: {await self.text('/status')}")

    async def until_failing(self, target: str, result: str) -> None:
        """Return when deliveries to a target have failed in this way since now."""
        name, labels = "invalidator_deliveries_total", {"target": target, "result": result}
        before = await self._value(name, labels) or 0
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (await self._value(name, labels) or 0) <= before:
            if time.monotonic() > deadline:
                pytest.fail(f"no delivery to {target} has ended as {result}: {await self.text('/status')}")
            await asyncio.sleep(0.05)
