"""Secrets are read when they are used, and nothing but the secret is told of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from invalidator import credentials
from invalidator.errors import ConfigError
from tests.support.processes import DEADLINE_SECONDS

T = TypeVar("T")


def python(code: str) -> str:
    return f"command:{shlex.join([sys.executable, '-c', code])}"


async def read(text: str) -> str:
    return await credentials.read(text, what="source.password")


async def test_a_plain_text_is_the_secret_itself() -> None:
    assert await read("p@ss command:x") == "p@ss command:x"


async def test_a_file_is_read_each_time_without_its_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" one \r\n")
    assert await read(f"file:{path}") == " one "
    path.write_text("two")
    assert await read(f"file:{path}") == "two"


async def test_a_command_gets_its_words_and_no_shell_and_no_input() -> None:
    code = "import sys; print(sys.argv[1:], repr(sys.stdin.read()))"
    assert await read(python(code) + " '$HOME a' b") == "['$HOME a', 'b'] ''"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:/nowhere/password", "the file '/nowhere/password' of source.password cannot be read: No such file"),
        (
            "command:/nowhere/program --token s3cret",
            "the command '/nowhere/program' of source.password cannot be started",
        ),
        (python("pass"), "holds nothing"),
        (python("import sys; sys.stdout.buffer.write(bytes([255]))"), "holds what is not UTF-8"),
        (python("print('x' * 100_000)"), "holds more than 65536 bytes"),
    ],
)
async def test_what_only_an_operator_can_mend_says_what_it_is(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        await read(text)
    assert "s3cret" not in str(refused.value)


async def test_a_command_that_fails_may_succeed_the_next_time_and_what_it_says_is_not_repeated() -> None:
    with pytest.raises(credentials.SecretUnavailableError, match="ended with code 3: run it by hand") as failed:
        await read(python("import sys; print('s3cret'); print('s3cret', file=sys.stderr); sys.exit(3)"))
    assert "s3cret" not in str(failed.value)


async def test_a_command_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "COMMAND_SECONDS", 1)
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $$ $! > {shlex.quote(str(pids))}; wait"  # a shell comes to that in milliseconds
    with pytest.raises(credentials.SecretUnavailableError, match="has not ended within 1 s"):
        await read(f"command:{shlex.join(['sh', '-c', script])}")
    await asyncio.to_thread(until, lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))


def children() -> set[str]:
    """Of this process."""
    found: set[str] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found |= set((thread / "children").read_text().split())
    return found


def until(condition: Callable[[], T]) -> T:
    """What the condition gives, once it holds; fails after a while."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie that init has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_cancelled_command_is_killed() -> None:
    before = children()
    task = asyncio.create_task(read(python("import time; time.sleep(60)")))
    pids = await asyncio.to_thread(until, lambda: children() - before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(is_running(int(pid)) for pid in pids)


@pytest.mark.parametrize("text", ["file:", "command:", "command:'open"])
def test_a_reference_that_cannot_be_understood_is_refused_before_anything_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="must follow"):
        credentials.check(text)


def test_a_reference_is_shown_without_the_arguments_of_its_command() -> None:
    assert credentials.label("command:vault --token s3cret") == "command:vault"
    assert credentials.label("file:/run/secrets/x") == "file:/run/secrets/x"


async def test_a_command_that_runs_as_somebody_else_and_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[int] = []

    def refuse(group: int, _: int) -> None:
        left.append(group)
        raise PermissionError

    kill = os.killpg
    monkeypatch.setattr(os, "killpg", refuse)  # as the kernel does for a program of root
    monkeypatch.setattr(credentials, "COMMAND_SECONDS", 0.05)
    try:
        async with asyncio.timeout(20):
            with pytest.raises(credentials.SecretUnavailableError, match="has not ended within"):
                await read(python("import time; time.sleep(3600)"))
    finally:
        for group in left:
            kill(group, signal.SIGKILL)
    deadline = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:  # until the event loop has seen it end
            os.kill(left[0], 0)
            await asyncio.sleep(0.01)
        pytest.fail("it does not end")
