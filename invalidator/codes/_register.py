"""Finds the explanations by the files beside it, and writes them as Markdown."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from invalidator.codes._explanation import Code

_FENCES: Final = {"rules": "yaml", "settings": "yaml", "sql": "sql", "sh": "sh", "text": "text"}


@cache
def chapters() -> Mapping[str, tuple[Code, ...]]:
    """Heading of each chapter → its codes, in order of their names."""
    found: dict[str, tuple[Code, ...]] = {}
    path = importlib.import_module("invalidator.codes").__path__
    for entry in sorted(pkgutil.iter_modules(path), key=lambda entry: entry.name):
        if not entry.name.startswith("_"):
            module = importlib.import_module(f"invalidator.codes.{entry.name}")
            found[module.TITLE] = tuple(sorted(module.CODES, key=lambda code: str(code.name)))
    return MappingProxyType(found)


@cache
def all_codes() -> Mapping[str, Code]:
    """Code → explanation.

    Raises:
        ValueError: two chapters explain the same code.
    """
    found: dict[str, Code] = {}
    for codes in chapters().values():
        for code in codes:
            if code.name in found:
                msg = f"the code {code.name} is explained twice"
                raise ValueError(msg)
            found[code.name] = code
    return MappingProxyType(found)


def find(name: str) -> Code | None:
    """The explanation of a code, also if it is written as messages show it: ``error[unknown-field]``."""
    return all_codes().get(name.strip().lower().rpartition("[")[2].rstrip("]:"))


def similar(name: str) -> list[str]:
    """Up to three codes that look like this."""
    return difflib.get_close_matches(name.lower(), all_codes(), 3, 0.5)


def page(code: Code, *, level: int = 1) -> str:
    """The explanation as Markdown, without a line break at the end."""
    return "\n".join(_lines(code, "#" * level)).rstrip()


def _lines(code: Code, hashes: str) -> Iterator[str]:
    yield from (f"{hashes} `{code.name}`", "", f"*{code.severity}.* {code.meaning}", "")
    if code.why:
        yield from (f"Why: {code.why}", "")
    fence = _FENCES[code.language]
    for heading, example, mark in (("Wrong:", code.wrong, " invalid"), ("Right:", code.right, "")):
        if example:  # "invalid" keeps `check` from reading the block
            yield from (heading, "", f"```{fence}{mark}", example.strip("\n"), "```", "")
