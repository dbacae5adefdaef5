"""Finds components by file name: the file is the registration.

``targets/redis_keys.py`` is the target of ``type: redis_keys``, ``targets/cdn/fastly.py`` that of ``type: fastly``.
A component module has a class ``Settings`` (its options) and a function ``build``. Names with a leading underscore
are no components. A module is imported when its type is used, so an unused one costs nothing.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from types import ModuleType

from invalidator.errors import ConfigError


@cache
def types(kind: str) -> dict[str, str]:
    """The known types of a kind (``sources`` or ``targets``), each with the name of its module."""
    package = importlib.import_module(f"invalidator.{kind}")
    found: dict[str, str] = {}
    _collect(package, found)
    return dict(sorted(found.items()))


def load(kind: str, type_name: str) -> ModuleType:
    """Import the component's module.

    Raises:
        ConfigError: there is no such type.
    """
    known = types(kind)
    module = known.get(type_name)
    if module is None:
        near = difflib.get_close_matches(type_name, known, 1, 0.8)
        near = near or difflib.get_close_matches(type_name, known, 2, 0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        msg = f"unknown type '{type_name}': {hint}known {kind}: {', '.join(known)}"
        raise ConfigError(msg)
    return importlib.import_module(module)


def classes(kind: str, type_name: str) -> list[type]:
    """The classes that the component's module defines: they tell what it can do before it is built.

    Raises:
        ConfigError: there is no such type.
    """
    module = load(kind, type_name)
    return [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]


def _collect(package: ModuleType, found: dict[str, str]) -> None:
    for entry in pkgutil.iter_modules(package.__path__):
        if entry.name.startswith("_"):
            continue
        name = f"{package.__name__}.{entry.name}"
        if entry.ispkg:
            _collect(importlib.import_module(name), found)
        else:
            found[entry.name] = name
