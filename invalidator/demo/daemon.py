"""The daemon of the demo: a child process that runs what users run, ``python -m invalidator run``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import deque
from typing import TYPE_CHECKING

from invalidator.demo.servers.process import ServerFailed, end, spawn

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_LINES = 40


class Daemon:
    """A running daemon with its log collected.

    Args:
        settings: the settings file.
        overrides: dotted settings → values, given as environment variables.
    """

    def __init__(self, settings: Path, overrides: dict[str, str]) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INVALIDATOR_")}
        for dotted, value in overrides.items():
            environment["INVALIDATOR_" + dotted.upper().replace(".", "__")] = value
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._address: str | None = None
        command = [sys.executable, "-m", "invalidator", "run", "--settings", str(settings)]
        # A source checkout that is not installed is found through the directory, as `python -m` found us.
        self._process = spawn(command, env=environment, cwd=os.getcwd(), stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True, name="daemon-log")
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def url(self) -> str | None:
        """Where /status and /metrics answer, once that is known."""
        return None if self._address is None else f"http://{self._address}"

    async def ready(self, deadline_seconds: float = 60) -> None:
        """Return once the daemon streams.

        Raises:
            ServerFailed: it ended, or does not become ready; the message holds its log.
        """
        deadline = asyncio.get_running_loop().time() + deadline_seconds
        while not await asyncio.to_thread(self._is_ready):
            self.check()
            if asyncio.get_running_loop().time() > deadline:
                msg = f"the daemon was not ready within {deadline_seconds:g} s:\n{self.log_tail()}"
                raise ServerFailed(msg)
            await asyncio.sleep(0.01)

    def check(self) -> None:
        """Return if the daemon still runs.

        Raises:
            ServerFailed: it ended; the message holds its log.
        """
        if self._process.poll() is not None:
            self._reader.join(1)
            msg = f"the daemon ended with code {self._process.returncode}:\n{self.log_tail()}"
            raise ServerFailed(msg)

    def log_tail(self) -> str:
        """The last lines that the daemon wrote."""
        return "\n".join(self._lines)

    def stop(self) -> int:
        """SIGTERM, as an orchestrator does; the exit code."""
        end(self._process, signal.SIGTERM)
        self._reader.join(1)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.returncode or 0

    def _is_ready(self) -> bool:
        if self.url is None:
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:  # noqa: S310  (our own child)
                return int(answer.status) == 200
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            if self._address is None and '"http"' in line:
                try:
                    self._address = json.loads(line).get("http")
                except ValueError:
                    continue
