from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from invalidator.telemetry.log_output import LogOutput
from tests.support.processes import DEADLINE_SECONDS


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    with contextlib.suppress(OSError):
        os.close(read)
    # A thread that was stalled is set free by that; it must be gone before another pipe gets the descriptor's number.
    for thread in threading.enumerate():
        if thread.name == "log output":
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
    with contextlib.suppress(OSError):
        os.close(write)


def drain(read: int, until: bytes) -> bytes:
    found = b""
    while until not in found:
        chunk = os.read(read, 65536)
        assert chunk, found
        found += chunk
    return found


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    output = LogOutput(write)
    for index in range(100):
        output.write(f"line {index} é")
    output.close()
    assert drain(read, b"line 99").decode().splitlines() == [f"line {index} é" for index in range(100)]


def test_text_that_is_no_utf8_is_written_all_the_same(pipe: tuple[int, int]) -> None:
    read, write = pipe
    output = LogOutput(write)
    output.write("bad \udcff byte")
    output.close()
    assert drain(read, b"\n") == b"bad \\udcff byte\n"


def test_a_reader_that_stalls_never_blocks_the_writer_and_what_is_lost_is_counted(pipe: tuple[int, int]) -> None:
    read, write = pipe
    output = LogOutput(write, max_waiting_lines=10)
    line = "x" * 10_000
    started = time.monotonic()
    for _ in range(100):  # a pipe holds 64 kB
        output.write(line)
    assert time.monotonic() - started < DEADLINE_SECONDS
    assert 70 <= output.dropped <= 90
    lost = output.dropped
    found, notices = b"", list[dict[str, Any]]()
    # In one notice, or in several if the thread came to write between two lines that were lost.
    while sum(notice["lines"] for notice in notices) < lost:
        found += os.read(read, 65536)
        notices = [json.loads(part) for part in found.split(b"\n")[:-1] if part.startswith(b"{")]
    output.close()
    assert sum(notice["lines"] for notice in notices) == lost
    assert {notice["level"] for notice in notices} == {"warning"}


def test_closing_gives_a_stalled_reader_up_after_the_timeout(pipe: tuple[int, int]) -> None:
    _, write = pipe
    output = LogOutput(write, max_waiting_lines=10)
    for _ in range(100):
        output.write("x" * 10_000)
    started = time.monotonic()
    output.close(timeout_seconds=0.1)
    assert time.monotonic() - started < DEADLINE_SECONDS


def test_a_reader_that_went_away_ends_the_writing_and_nothing_else(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.close(read)
    output = LogOutput(write)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not output.dropped and time.monotonic() < deadline:
        output.write("nobody reads this")
    assert output.dropped
    output.write("nor this")
    output.close()


def test_a_descriptor_that_somebody_made_nonblocking_loses_nothing(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) | os.O_NONBLOCK)
    output = LogOutput(write)
    for index in range(50):
        output.write(f"{index} " + "x" * 10_000)
    output.write("the end")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(drain(read, b"the end")))
    reader.start()
    output.close(timeout_seconds=DEADLINE_SECONDS)
    reader.join(DEADLINE_SECONDS)
    assert [line.split()[0] for line in found[0].splitlines()[:50]] == [b"%d" % index for index in range(50)]
