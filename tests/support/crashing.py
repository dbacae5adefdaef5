"""Crash points: places in the code where a kill matters, marked by comments, at which tests kill the daemon.

A comment ``# crash point: name`` on a line of its own is nothing but a comment when users run the program. Run as
``python -m tests.support.crashing run …`` it is a call: modules with such comments are compiled from a text in which
each is replaced by ``reach("name")``, which ends the process with SIGKILL when the file that the environment variable
CRASH_AT names holds that name.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Final

PACKAGE: Final = Path(__file__).parents[2] / "invalidator"
VARIABLE: Final = "CRASH_AT"
_POINT: Final = re.compile(r"^( *)# crash point: (\S+)$", re.MULTILINE)


def points() -> Counter[str]:
    """The name of each crash point in the package, and how often it is there."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py")))
    return Counter(name for text in texts for _, name in _POINT.findall(text))


def reach(name: str) -> None:
    """What stands in the place of the comment."""
    armed = Path(os.environ[VARIABLE])
    if armed.exists() and armed.read_text(encoding="utf-8") == name:
        os.kill(os.getpid(), signal.SIGKILL)


def armed_text(text: str) -> str:
    """The module with calls in the place of its crash points; no line moves."""
    return _POINT.sub(r'\1__import__("tests.support.crashing", fromlist=["reach"]).reach("\2")', text)


def install() -> None:
    """Have the package's modules compiled with their crash points from here on."""
    original = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        path = Path(loader.get_filename(fullname))
        text = path.read_text(encoding="utf-8") if path.is_relative_to(PACKAGE) else ""
        if _POINT.search(text) is None:
            return original(loader, fullname)
        return loader.source_to_code(armed_text(text).encode(), str(path))  # not what is cached

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    install()
    from invalidator.cli import main

    main()
