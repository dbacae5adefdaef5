"""Lets children keep what they compile, as an installed package does.

Where PYTHONDONTWRITEBYTECODE is set, each of the many daemons of a run would compile the whole source again.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".pytest_cache" / "bytecode"


def keep(environment: os._Environ[str] = os.environ) -> None:
    """Have this process' children write their bytecode beside pytest's cache, not into the tree."""
    if environment.pop("PYTHONDONTWRITEBYTECODE", None) is not None:
        environment.setdefault("PYTHONPYCACHEPREFIX", str(FOLDER))


def pytest_configure() -> None:
    """This file is a plugin, as every file beside it."""
    keep()
