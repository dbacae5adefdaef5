from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invalidator.demo.scenario import CASES
from invalidator.demo.servers import ServerMissing, find_postgres, find_valkey
from tests.support.processes import DEADLINE_SECONDS, Program
from tests.support.services import missing

RunProgram = Callable[..., Program]


@pytest.fixture(autouse=True)
def _servers() -> None:
    try:
        find_postgres()
        find_valkey()
    except ServerMissing as error:
        missing(str(error))


def test_every_layer_is_fresh_in_every_case_and_nothing_is_left_behind(run_program: RunProgram) -> None:
    program = run_program("demo", "--once")

    assert program.wait(300) == 0, program.output
    assert "nothing stale is left in any layer" in program.output
    for case in CASES:
        assert f"✓ {case.name}" in program.output
    assert not _directories(program.pid)


def test_the_verdict_is_there_for_machines_with_the_figures_of_each_layer(run_program: RunProgram) -> None:
    program = run_program("demo", "--once", "--json", "--edge", "stand-in")

    assert program.wait(300) == 0, program.output
    document = json.loads(program.output[program.output.index("{\n") :])
    assert document["ok"] is True
    assert document["seconds"] > 0
    played = {case["case"]: case for case in document["cases"]}
    assert list(played) == [case.name for case in CASES]
    assert set(played["update"]["fresh_after_ms"]) == {"redis", "l1", "edge"}
    assert {"product:rake-1", "product:fork-1"} <= set(played["key change"]["unlinked"])
    assert {"product-rake-1", "product-fork-1"} <= set(played["key change"]["purged"])
    assert {"product:lamp-3", "product:lamp-9"} <= set(played["tag"]["unlinked"])
    assert "product:*" in played["bulk"]["published"]
    assert "products" in played["bulk"]["purged"]
    assert "product-lamp-333" not in played["bulk"]["purged"], "the coarse form must replace the exact one"
    assert set(played["private"]["fresh_after_ms"]) == {"redis", "l1"}
    for nothing in ("rollback", "not shown"):
        assert played[nothing]["unlinked"] == played[nothing]["published"] == played[nothing]["purged"] == []


def test_the_verdict_is_bad_when_a_layer_hears_no_invalidations(run_program: RunProgram) -> None:
    program = run_program("demo", "--once", "--json", "--edge", "stand-in", "--break", "redis")

    assert program.wait(300) == 1, program.output
    document = json.loads(program.output[program.output.index("{\n") :])
    assert document["ok"] is False
    update = next(case for case in document["cases"] if case["case"] == "update")
    assert_stale(update, "redis")


@pytest.mark.parametrize("layer", ["l1", "edge"])
def test_a_layer_that_hears_no_invalidations_is_found_out(run_program: RunProgram, layer: str) -> None:
    program = run_program("demo", "--seconds", "0", "--json", "--edge", "stand-in", "--break", layer)

    assert program.wait(300) == 1, program.output
    (first,) = [json.loads(line) for line in program.lines if line.startswith("{")]
    assert_stale(first, layer)


def assert_stale(case: dict[str, Any], layer: str) -> None:
    assert case["ok"] is False
    assert case["fresh_after_ms"][layer] is None
    assert any(problem.startswith(f"{layer} still gave the stale value") for problem in case["problems"])


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_live_view_without_a_terminal_prints_lines_until_a_signal_and_cleans_up(
    run_program: RunProgram, sign: signal.Signals
) -> None:
    program = run_program("demo", "--edge", "stand-in")
    program.wait_for_line("fresh after ms: Redis")

    os.kill(program.pid, sign)

    assert program.wait() == 0, program.output
    assert not _directories(program.pid)


def test_the_live_view_ends_after_the_given_time_and_gives_one_document_per_commit(run_program: RunProgram) -> None:
    program = run_program("demo", "--edge", "stand-in", "--json", "--seconds", "1.5")
    assert program.wait() == 0, program.output
    lines = [json.loads(line) for line in program.lines if line.startswith("{")]
    assert lines
    assert all(line["ok"] for line in lines), lines


def test_a_demo_that_is_killed_leaves_no_process(run_program: RunProgram) -> None:
    program = run_program("demo", "--edge", "stand-in")
    program.wait_for_line("fresh after ms: Redis")
    children = _descendants(program.pid)
    assert len(children) >= 3

    program.kill()

    # Not program.wait_for(): that gives up when the program has ended, and its children take a moment longer.
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left := [pid for pid in children if _lives(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    for directory in _directories(program.pid):
        shutil.rmtree(directory, ignore_errors=True)


def test_a_daemon_that_ends_is_reported_with_its_log(run_program: RunProgram) -> None:
    program = run_program("demo", "--edge", "stand-in")
    program.wait_for_line("fresh after ms: Redis")
    (daemon,) = [pid for pid in _descendants(program.pid) if b"\0run\0" in _command(pid)]

    os.kill(daemon, signal.SIGKILL)

    assert program.wait() == 1, program.output
    assert "the daemon ended with code -9" in program.output
    assert "daemon.started" in program.output
    assert not _directories(program.pid)


def _directories(pid: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"invalidator-*-{pid}-*"))


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _command(pid: int) -> bytes:
    """Its words, each ended by a zero; nothing when it is gone, as backends of Postgres are at any moment."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
