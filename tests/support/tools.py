"""Programs that check deploy files: from the environment's packages or from Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import missing

ROOT = Path(__file__).parents[2]


def find_tool(name: str, package: str) -> str:
    """The program's path; without it the test is skipped, or fails under REQUIRE_SERVICES=1."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/systemd"]
    found = shutil.which(name, path=os.pathsep.join(places))
    return found or missing(f"there is no {name} here (package {package})")


def run_tool(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run it to its end, both streams as one text; the caller looks at the exit code."""
    return subprocess.run(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=5 * DEADLINE_SECONDS,
        check=False,
    )
