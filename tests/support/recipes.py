"""The page of recipes: its YAML stands in config/recipes/, and what its commands print was printed by them.

``python -m tests.support.recipes`` puts both into the page again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from invalidator.cli import verbs
from invalidator.cli._exits import Exit

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "how-to" / "recipes.md"
FOLDER: Final = ROOT / "config" / "recipes"
COMMAND: Final = "python -m tests.support.recipes"

_YAML: Final = re.compile(r"(<!-- (config/recipes/[\w-]+\.yaml) -->\n```yaml\n)(.*?)(^```)", re.MULTILINE | re.DOTALL)
_CONSOLE: Final = re.compile(r"(^```console\n\$ (.*?)\n)((?!\s{4}).*?)(^```)", re.MULTILINE | re.DOTALL)


def included(page: str) -> list[str]:
    """The files whose text the page shows."""
    return [match[2] for match in _YAML.finditer(page)]


def commands(page: str) -> Iterator[str]:
    """What the page shows typed at a prompt."""
    for match in _CONSOLE.finditer(page):
        yield match[2]


def refreshed(page: str) -> str:
    """The page with what the files hold and what the commands print now."""
    page = _YAML.sub(lambda match: match[1] + rules_of(match[2]) + match[4], page)
    return _CONSOLE.sub(lambda match: match[1] + printed(match[2]) + match[4], page)


def rules_of(file: str) -> str:
    """The file without the line that is only for editors."""
    _, _, rest = (ROOT / file).read_text(encoding="utf-8").partition("\n")
    return rest


def printed(command: str) -> str:
    """What the command prints, run in this process in the repository's folder."""
    name, *arguments = shlex.split(command.replace("\\\n", " "))
    assert name == "invalidator", command
    out = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(out):
        code = verbs.main(arguments, prog_name="invalidator", standalone_mode=False)
    assert code in {Exit.FINE, None}, f"{command}: exit code {code}\n{out.getvalue()}"
    return out.getvalue()


if __name__ == "__main__":
    os.environ.pop("INVALIDATOR_SETTINGS", None)
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
