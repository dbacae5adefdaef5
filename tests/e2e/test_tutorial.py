"""What docs/tutorial/first-steps.md tells readers to do is done here, with the texts taken out of the page."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.processes import DEADLINE_SECONDS

if TYPE_CHECKING:
    from tests.support.postgres import Database
    from tests.support.processes import Program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial" / "first-steps.md").read_text(encoding="utf-8")
OWN_TABLE = PAGE.split("## 4.", 1)[1]


def _blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _file(name: str) -> str:
    found = re.search(rf"`{re.escape(name)}`:\n\n```yaml\n(.*?)^```", OWN_TABLE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def environment(tmp_path: Path, database: Database, redis_url: str) -> dict[str, str]:
    """The reader's files, with the addresses of our servers, and the variables that the page sets."""
    (tmp_path / "rules.yaml").write_text(_file("first/rules.yaml"), encoding="utf-8")
    settings = tmp_path / "invalidator.yaml"
    settings.write_text(_file("first/invalidator.yaml").replace("redis://localhost:6379/0", redis_url), "utf-8")
    assert "export INVALIDATOR_SETTINGS=" in OWN_TABLE
    assert "export INVALIDATOR_SOURCE__DSN=" in OWN_TABLE
    # The listener's port may be taken on the machine of the tests; slots are of the whole server.
    return {
        "INVALIDATOR_SETTINGS": str(settings),
        "INVALIDATOR_SOURCE__DSN": database.dsn,
        "INVALIDATOR_SOURCE__SLOT": f"tutorial_{database.name}",
        "INVALIDATOR_HTTP__LISTEN": "127.0.0.1:0",
        "INVALIDATOR_LOG__FORMAT": "json",
    }


def test_the_readers_own_rule_drops_the_key_of_the_old_and_the_new_address(
    environment: dict[str, str], database: Database, redis_url: str, run_program: Callable[..., Program]
) -> None:
    (create,) = _blocks("sql", OWN_TABLE)
    database.execute(create)
    for verb in (["check"], ["setup"], ["setup", "--apply"]):
        assert f"$ .venv/bin/invalidator {' '.join(verb)}\n" in OWN_TABLE
        program = run_program(*verb, env=environment)
        assert program.wait() == 0, program.output
        assert verb != ["setup"] or "REPLICA IDENTITY FULL" in program.output, program.output
    daemon = run_program("run", env=environment)
    daemon.wait_for_event("stream.connected")
    (update,) = re.findall(r'-c "(UPDATE.*)"', OWN_TABLE)

    with redis.Redis.from_url(redis_url) as client:
        client.mset({"post:hello": "old", "post:welcome": "not found", "post:1:title": "Hello", "post:2:title": "kept"})
        database.execute(update)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while client.exists("post:hello", "post:welcome", "post:1:title"):
            assert time.monotonic() < deadline, daemon.output
            time.sleep(0.01)
        assert client.exists("post:2:title")
    daemon.terminate()
    assert daemon.wait() == 0, daemon.output
    assert "$ .venv/bin/invalidator teardown --apply\n" in OWN_TABLE
    program = run_program("teardown", "--apply", env=environment)
    assert program.wait() == 0, program.output
    assert "REPLICA IDENTITY DEFAULT" in program.output
    slot = environment["INVALIDATOR_SOURCE__SLOT"]
    assert database.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", slot) == []


def test_explain_answers_as_the_page_shows() -> None:
    (block,) = [block for block in _blocks("console", PAGE) if "invalidator explain" in block]
    command, _, shown = block.partition("\n")
    arguments = re.fullmatch(r"\$ \.venv/bin/invalidator (.*?) '(.*)'", command)
    assert arguments is not None
    answer = subprocess.run(
        [sys.executable, "-m", "invalidator", *arguments[1].split(), arguments[2]],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert answer.stdout.splitlines() == shown.splitlines(), answer.stderr
