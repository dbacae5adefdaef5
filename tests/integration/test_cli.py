"""The command line as a process: what only a process shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from invalidator.cli._exits import Exit
from tests.support.processes import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug]
    invalidate:
      keys: ["post:{slug}", "post:id:{id}"]
      cdn: ["post-{id}"]
    coarse: {tags: [posts], keys: [], cdn: [posts]}
    repeat_after: [500ms]
"""
SETTINGS = """\
targets:
  edge: {type: varnish, url: "http://varnish:6081"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "rules.yaml").write_text(RULES)
    (tmp_path / "config" / "invalidator.yaml").write_text(SETTINGS)
    return tmp_path


def run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INVALIDATOR_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", "invalidator", *arguments],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(Path.cwd())} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def test_wrong_settings_end_the_process_with_78_and_no_traceback(project: Path) -> None:
    (project / "config" / "invalidator.yaml").write_text(SETTINGS.replace("varnish,", "varnihs,"))
    result = run(project, "run")
    assert result.returncode == Exit.CONFIG
    assert result.stderr.startswith("config/invalidator.yaml:2:16: error[unknown-type]")
    assert "Traceback" not in result.stderr


def test_help_imports_nothing_heavy(project: Path) -> None:
    script = (
        "import sys; sys.argv = ['invalidator', '--help']\n"
        "from invalidator.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pydantic', 'psycopg', 'aiohttp', 'redis', 'structlog', 'yaml', 'rich', 'asyncio')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS,
    )
    assert result.stdout.rstrip().endswith("[]")


def test_a_reader_that_goes_away_is_no_error(project: Path) -> None:
    command = f"{sys.executable} -m invalidator config | head -1"
    result = subprocess.run(
        ["/bin/sh", "-c", command],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS,
    )
    assert result.stderr == ""


def test_sigterm_is_obeyed_from_the_first_moment() -> None:
    # As PID 1 nothing but a handler ends the process; here it shows by the exit code, which is not -SIGTERM.
    script = (
        "import os, signal, sys\n"
        "from invalidator import cli\n"
        "def verb(*arguments, **options): os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.verbs.main = verb\n"
        "cli.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    assert result.returncode == 128 + signal.SIGTERM


# -- status ----------------------------------------------------------------------------------------------------------


def a_status(**more: object) -> dict[str, object]:
    from invalidator.telemetry.state import State, TargetState
    from invalidator.telemetry.status import status

    state = State(started_at=1000.0, version="9.9")
    state.source.slot = "blog"
    state.targets["edge"] = TargetState("edge", type="varnish", layer="L3")
    return status(state, 5000.0) | {"ready": True, "problems": []} | more


@pytest.fixture
def daemon() -> Iterator[tuple[str, dict[str, object]]]:
    """Something that answers /status with what the test puts into the mapping."""
    answer: dict[str, object] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer).encode() if self.path == "/status" else b""
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answer
        server.shutdown()
        thread.join()


def test_status_of_a_healthy_daemon_exits_0(project: Path, daemon: tuple[str, dict[str, object]]) -> None:
    url, answer = daemon
    answer.update(a_status())
    result = run(project, "status", "--url", url)
    assert result.returncode == 0, result.stderr
    assert "invalidator 9.9  up 1 h 6 min" in result.stdout
    assert "slot   blog" in result.stdout
    assert "target edge" in result.stdout
    assert json.loads(run(project, "status", "--url", url, "--json").stdout)["version"] == "9.9"


def test_status_shows_problems_with_their_fix_and_exits_1(project: Path, daemon: tuple[str, dict[str, object]]) -> None:
    url, answer = daemon
    problem = {"severity": "warning", "code": "slot-wal-high", "text": "5 GB", "fix": "do this", "since": "2026"}
    answer.update(a_status(problems=[problem]))
    result = run(project, "status", "--url", url)
    assert result.returncode == Exit.PROBLEMS
    assert "warning[slot-wal-high]: 5 GB" in result.stdout
    assert "= fix: do this" in result.stdout
    answer.update(a_status(ready=False))
    assert run(project, "status", "--url", url).returncode == Exit.PROBLEMS


def test_status_finds_the_daemon_by_its_settings(project: Path, daemon: tuple[str, dict[str, object]]) -> None:
    url, answer = daemon
    answer.update(a_status())
    listen = url.removeprefix("http://").replace("127.0.0.1", "0.0.0.0")  # noqa: S104
    (project / "config" / "invalidator.yaml").write_text(f"http: {{listen: '{listen}'}}\nbroken: true\n")
    assert run(project, "status").returncode == 0
    assert run(project, "status", environment={"INVALIDATOR_HTTP__LISTEN": "127.0.0.1:1"}).returncode == 69


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "nonsense"])
def test_status_of_nobody_exits_69(project: Path, url: str) -> None:
    result = run(project, "status", "--url", url)
    assert result.returncode == Exit.UNREACHABLE
    assert url in result.stderr
    assert "Traceback" not in result.stderr
