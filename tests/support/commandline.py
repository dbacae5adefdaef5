"""What a command of a user's does and says, without the second that a process of its own takes to begin."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from invalidator import cli


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str

    def json(self) -> dict[str, Any]:
        """The output as a JSON object."""
        value = json.loads(self.output)
        assert isinstance(value, dict)
        return value

    def codes(self, severity: str = "error") -> list[str]:
        """The codes of a JSON report."""
        return [each["code"] for each in self.json()["findings"] if each["severity"] == severity]


def run(folder: Path, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> Ended:
    """What a process would do in this folder; ours has its folder, environment and streams meanwhile."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INVALIDATOR_", "PG"))}
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        patch.dict(os.environ, {**inherited, **(environment or {})}, clear=True),
        patch("sys.stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli._run(list(arguments))
    return Ended(code, out.getvalue(), err.getvalue())


def run_beside_a_loop(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
    """:func:`run` for verbs that have an event loop of their own, also from a test that has one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run, folder, *arguments, environment=environment).result()
