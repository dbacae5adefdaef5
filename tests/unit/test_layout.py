"""The shape of the house: sizes, names and the direction of imports."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "invalidator"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400
GRAB_BAGS = {"util", "utils", "helper", "helpers", "common", "base", "misc", "tools", "shared"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def has_code(path: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_long_module_says_in_its_docstring_why_it_is_long(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    if lines <= LONGEST:
        return
    docstring = ast.get_docstring(ast.parse(text)) or ""

    assert "long because" in docstring, f"{name(path)} has {lines} lines: split it, or say 'long because …'"


def test_no_module_is_a_grab_bag() -> None:
    found = [
        name(path)
        for path in [*MODULES, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
        if path.stem.strip("_") in GRAB_BAGS
    ]

    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_belongs_in_it(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)

    assert docstring is not None or not tree.body, f"{name(path)} has no docstring"
    if docstring:
        assert docstring.splitlines()[0].rstrip().endswith((".", "?", "!", ":")), f"{name(path)}: no sentence"


MAPS = [
    PACKAGE / folder / "__init__.py"
    for folder in (
        ".", "admin", "cli", "cli/checking", "cli/explaining", "cli/generators", "cli/output", "cli/provisioning",
        "config", "continuity", "delivery", "net", "net/redis", "postgres/notify", "postgres/outbox", "preflight",
        "rules", "rules/compiler", "rules/condition", "telemetry",
    )
]  # fmt: skip


@pytest.mark.parametrize("path", MAPS, ids=name)
def test_a_map_of_a_folder_names_all_that_is_in_it(path: Path) -> None:
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(path.read_text())) or ""))
    there = {each.stem for each in path.parent.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()}

    assert there - {"__init__"} - words == set()


def contracts() -> list[dict[str, object]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    found: list[dict[str, object]] = settings["contracts"]
    return found


def test_the_order_of_the_layers_is_enforced_and_leaves_nothing_out() -> None:
    layers = [contract for contract in contracts() if contract["type"] == "layers"]

    assert len(layers) == 1
    assert layers[0]["containers"] == ["invalidator"]
    assert layers[0]["exhaustive"] is True


def test_components_are_kept_from_knowing_each_other() -> None:
    names = {str(contract["name"]) for contract in contracts() if contract["type"] == "independence"}

    assert {"Sources do not know each other", "CDNs do not know each other", "Targets do not know each other"} <= names


def test_every_cdn_is_named_in_the_contract_that_keeps_cdns_apart() -> None:
    contract = next(contract for contract in contracts() if contract["name"] == "CDNs do not know each other")
    modules = contract["modules"]
    assert isinstance(modules, list)
    files = [path.stem for path in (PACKAGE / "targets" / "cdn").glob("*.py") if not path.stem.startswith("_")]

    assert files
    if "invalidator.targets.cdn.*" not in modules:
        assert {f"invalidator.targets.cdn.{stem}" for stem in files} <= set(modules)


def test_the_deciding_code_is_kept_from_doing_any_input_or_output() -> None:
    contract = next(contract for contract in contracts() if contract["type"] == "forbidden")

    assert contract["forbidden_modules"] == ["asyncio", "socket", "redis", "psycopg", "time", "random"]
    modules = contract["source_modules"]
    assert isinstance(modules, list)
    assert {"invalidator.model", "invalidator.batching", "invalidator.checkpoint"} <= set(modules)
