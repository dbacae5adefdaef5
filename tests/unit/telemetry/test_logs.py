from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from invalidator.telemetry import logs
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State, TargetState
from tests.support.processes import DEADLINE_SECONDS

Read = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def read(restored_logging: None, counts: Counter[str]) -> Iterator[Read]:
    """Logging goes into a pipe; calling this ends it and gives the lines."""
    reading, writing = os.pipe()
    output = logs.configure(counts=counts, descriptor=writing)

    def lines() -> list[dict[str, Any]]:
        output.close()
        os.write(writing, b"\n")  # so that there is something to read
        return [json.loads(line) for line in os.read(reading, 1 << 20).decode().splitlines() if line]

    yield lines
    output.close()
    os.close(reading)
    os.close(writing)


def test_a_line_is_json_that_begins_with_time_level_and_event(read: Read) -> None:
    structlog.get_logger().info("daemon.started", version="0.1.0", targets=["redis", "edge"])
    (line,) = read()
    assert list(line) == ["ts", "level", "event", "version", "targets"]
    assert line["ts"].endswith("Z")
    assert (line["level"], line["event"], line["targets"]) == ("info", "daemon.started", ["redis", "edge"])


def test_control_characters_stay_inside_one_line(read: Read) -> None:
    structlog.get_logger().info("x.y", text='a\nb\r{"level":"error"}\x1b[31m')
    (line,) = read()
    assert line["text"] == 'a\nb\r{"level":"error"}\x1b[31m'


def test_lines_below_the_level_are_not_written(read: Read, counts: Counter[str]) -> None:
    structlog.get_logger().debug("x.y")
    assert read() == []
    assert counts == {}


def test_every_line_is_counted_by_level_also_those_held_back(read: Read, counts: Counter[str]) -> None:
    log = structlog.get_logger()
    log.info("a.b")
    for _ in range(3):
        log.warning("c.d", target="redis")
    log.error("e.f")
    assert [line["event"] for line in read()] == ["a.b", "c.d", "e.f"]
    assert counts == {"info": 1, "warning": 3, "error": 1}


def test_secrets_are_masked_by_name_and_by_what_a_field_holds(read: Read) -> None:
    structlog.get_logger().error(
        "x.y",
        error="cannot reach postgres://inv:hunter2@db/app",
        api_token="hunter2",  # noqa: S106
        nested={"password": "hunter2", "urls": ["redis://:hunter2@h"]},
        failure=OSError("password=hunter2"),
    )
    (line,) = read()
    assert "hunter2" not in json.dumps(line)
    assert line["error"] == "cannot reach postgres://inv:***@db/app"


def test_records_of_libraries_come_through_as_one_event(read: Read) -> None:
    logging.getLogger("aiohttp.server").error("cannot serve %s", "x")
    logging.getLogger("asyncio").info("too quiet to be heard")
    (line,) = read()
    assert (line["event"], line["level"], line["logger"], line["message"]) == (
        "library.logged", "error", "aiohttp.server", "cannot serve x",
    )  # fmt: skip


def test_a_librarys_exception_is_a_field_of_its_line(read: Read) -> None:
    try:
        os.stat("/nowhere/at/all")
    except OSError:
        logging.getLogger("asyncio").exception("failed")
    (line,) = read()
    assert "FileNotFoundError" in line["exception"]


def test_python_warnings_are_logged(read: Read) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (line,) = read()
    assert line["logger"] == "py.warnings"


def test_events_and_counts_go_together(restored_logging: None) -> None:
    state = State()
    state.targets["redis"] = TargetState("redis")
    descriptor = os.open(os.devnull, os.O_WRONLY)
    output = logs.configure(counts=state.log_messages, descriptor=descriptor)
    Events(state).delivery_failed("redis", error="x", result="timeout", attempt=1, retry_in_seconds=0.1, now=1.0)
    output.close()
    os.close(descriptor)
    assert state.log_messages["warning"] == 1


class TestRateLimit:
    def setup_method(self) -> None:
        self.now = 0.0
        self.limit = logs.RateLimit(10.0, lambda: self.now)

    def passes(self, level: str = "warning", event: str = "delivery.failed", **fields: object) -> dict[str, Any] | None:
        try:
            return dict(self.limit(None, level, {"level": level, "event": event, **fields}))
        except structlog.DropEvent:
            return None

    def test_the_same_warning_passes_once_in_ten_seconds_and_says_how_many_were_held_back(self) -> None:
        assert self.passes(target="redis", result="timeout")
        assert [self.passes(target="redis", result="timeout") for _ in range(4)] == [None] * 4
        self.now = 10.0
        line = self.passes(target="redis", result="timeout")
        assert line is not None
        assert line["suppressed"] == 4
        self.now = 20.0
        line = self.passes(target="redis", result="timeout")
        assert line is not None
        assert "suppressed" not in line

    def test_another_target_rule_or_error_is_another_line(self) -> None:
        assert self.passes(target="redis", result="timeout")
        assert self.passes(target="edge", result="timeout")
        assert self.passes(target="redis", result="connection")
        assert self.passes(event="rule.widened", rule="a", reason="bulk")
        assert self.passes(event="rule.widened", rule="b", reason="bulk")

    def test_the_error_text_does_not_make_a_line_another(self) -> None:
        assert self.passes(target="redis", error="attempt 1")
        assert self.passes(target="redis", error="attempt 2") is None

    def test_information_is_never_held_back(self) -> None:
        assert self.passes("info", "stream.connected")
        assert self.passes("info", "stream.connected")

    def test_memory_is_bounded(self) -> None:
        for index in range(5000):
            assert self.passes(rule=f"r{index}")
        assert len(self.limit._seen) <= 1000


SCRIPT = """
import sys
from collections import Counter
import structlog
from invalidator.telemetry import logs
output = logs.configure(counts=Counter())
for index in range(int(sys.argv[1])):
    structlog.get_logger().info("x.y", index=index, text="\\x1b[31m" + "x" * 1000)
output.close(0.2)
sys.stderr.write("alive")
"""


def start(lines: int, stdout: int | None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(lines)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_standard_output_that_nobody_reads_does_not_hang_the_process() -> None:
    with start(1000, subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.read() == "alive"
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_standard_output_that_was_closed_does_not_end_the_process() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with start(100, writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.read() == "alive"
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_process_that_was_started_without_a_standard_output_runs() -> None:
    command = f"exec \"{sys.executable}\" -c '{SCRIPT}' 5 >&-"
    done = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, "alive")


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_the_console_form_and_colours_only_if_wanted(no_color: str, is_coloured: bool) -> None:
    reading, writing = pty.openpty()
    with start(1, writing, NO_COLOR=no_color) as process:
        os.close(writing)
        text = b""
        while b"\n" not in text:
            text += os.read(reading, 65536)
        process.communicate(timeout=DEADLINE_SECONDS)
    os.close(reading)
    assert b"x.y" in text
    assert b'"event"' not in text
    assert (b"\x1b[" in text) is is_coloured
    assert b"\x1b[31mx" not in text  # what a value holds does not steer the terminal
