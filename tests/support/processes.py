"""The program as users run it: a child process with its output collected."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from invalidator.demo.servers.process import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60
"""For everything that a test waits for. Long, because only a test that fails comes to its end."""


class Program:
    """A running ``python -m invalidator …``; its output is read by a thread, so the pipe never fills.

    It ends with this process, also when this process is killed (Linux).
    """

    def __init__(
        self,
        *arguments: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
        module: str = "invalidator",
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INVALIDATOR_")}
        environment = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        self.process = spawn(
            [sys.executable, "-m", module, *arguments], env=environment, cwd=cwd, stdout=subprocess.PIPE
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process, for signals."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What it wrote to both streams so far."""
        return "\n".join(self.lines)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The JSON log lines so far, of one event name or of all."""
        found = [event for event in map(_parse, tuple(self.lines)) if event is not None]
        return [event for event in found if name is None or event.get("event") == name]

    def wait_for_event(
        self, name: str, *, count: int = 1, deadline_seconds: float = DEADLINE_SECONDS
    ) -> dict[str, Any]:
        """The ``count``-th log line with this event name, as soon as it is there."""
        self.wait_for(lambda: len(self.events(name)) >= count, what=name, deadline_seconds=deadline_seconds)
        return self.events(name)[count - 1]

    def wait_for_line(self, part: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> str:
        """The first line that contains this text, as soon as it is there."""
        self.wait_for(
            lambda: any(part in line for line in self.lines), what=repr(part), deadline_seconds=deadline_seconds
        )
        return next(line for line in self.lines if part in line)

    def wait_for(self, condition: Callable[[], bool], *, what: str, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Return once the condition on the output holds; fail with the output when it never will."""
        deadline = time.monotonic() + deadline_seconds
        with self._changed:
            while not condition():
                ended = self.process.poll() is not None and not self._reader.is_alive()
                if ended or time.monotonic() > deadline:
                    state = f"ended with code {self.process.returncode}" if ended else "still runs"
                    pytest.fail(f"waited for {what}; the program {state}:\n{self.output}")
                self._changed.wait(0.1)

    async def event(self, name: str, *, count: int = 1, deadline_seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
        """:meth:`wait_for_event` for tests whose event loop has to go on meanwhile."""
        return await asyncio.to_thread(self.wait_for_event, name, count=count, deadline_seconds=deadline_seconds)

    def wait_for_http(self, url: str, *, status: int = 200, deadline_seconds: float = DEADLINE_SECONDS) -> str:
        """The body of the URL, as soon as it answers with this status."""
        seen = "nothing"
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                code, body = _get(url)
            except (OSError, HTTPException) as error:  # not there yet, or ended in the middle
                seen = repr(error)
            else:
                if code == status:
                    return body
                seen = f"{code} {body}"
            time.sleep(0.02)
        pytest.fail(f"{url} did not answer {status} (last: {seen}):\n{self.output}")

    def kill(self) -> None:
        """SIGKILL, as a crash or the OOM killer does; returns when it is gone."""
        self.process.kill()
        self.wait()

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self.process.terminate()

    def wait(self, deadline_seconds: float = DEADLINE_SECONDS) -> int:
        """The exit code, once it has ended and all output was read."""
        try:
            code = self.process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the program did not end within {deadline_seconds:g} s:\n{self.output}")
        self._reader.join(deadline_seconds)
        return code

    def close(self) -> None:
        """Kill what still runs and release the pipe."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()


@pytest.fixture
def run_program() -> Iterator[Callable[..., Program]]:
    """Starts programs (``run_program("run", "--settings", file)``) and ends them with the test."""
    started: list[Program] = []

    def run(*arguments: str | Path, env: dict[str, str] | None = None, module: str = "invalidator") -> Program:
        program = Program(*arguments, env=env, module=module)
        started.append(program)
        return program

    yield run
    for program in started:
        program.close()


def _get(url: str) -> tuple[int, str]:
    """Status and body, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (the test's own URL)
            return answer.status, str(answer.read(), "utf-8")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.read(), "utf-8")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def pytest_configure() -> None:
    """Take Ctrl-C: what a shell runs in the background ignores it, and so does everything that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
