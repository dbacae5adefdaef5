"""What is in the repository speaks of the project alone and can be used from a fresh clone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", ".matrix", "node_modules", "__pycache__", "build", "dist"}  # and caches: .x_cache
FRAGMENT = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(breaking|security|feature|fix)\.md")
DECISION = re.compile(r"(\d{4})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
# Written in two parts, so that this file does not contain them.
MACHINE_PATHS = [f"/{first}/" for first in ("root", "work", "home", "Users")]
REGISTRY_HOSTS = [f"{first}.{last}" for first, last in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
DRAFTS = [f"{first}/{last}" for first, last in (("shared", "reference"), ("shared", "prototypes"), ("", "tmp/inv"))]


def is_left_over(path: Path) -> bool:
    """Whether it lies in a folder that tools make."""
    parts = path.relative_to(ROOT).parts
    return any(part in NOT_OURS or part.endswith("_cache") or part == ".hypothesis" for part in parts)


def tracked_files() -> list[Path]:
    """What git knows; without git (an unpacked archive) everything but caches."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        return sorted(path for path in ROOT.rglob("*") if path.is_file() and not is_left_over(path))
    return sorted(path for path in (ROOT / name for name in listed if name) if path.is_file())


FILES = tracked_files()


def lines_with(words: list[str], text: str) -> list[str]:
    """``line: text`` of each line in which one of them begins a word."""
    pattern = re.compile(r"(?<![\w.$}])(?:" + "|".join(map(re.escape, words)) + ")")
    return [
        f"{number}: {line.strip()[:100]}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)
    ]


@pytest.mark.parametrize("words", [MACHINE_PATHS, REGISTRY_HOSTS, DRAFTS], ids=["machines", "registries", "drafts"])
def test_no_file_tells_of_the_machine_or_the_registry_it_was_made_with(words: list[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in FILES
        for line in lines_with(words, path.read_text(errors="replace"))
    ]

    assert found == []


@pytest.mark.parametrize("words", [MACHINE_PATHS, REGISTRY_HOSTS, DRAFTS])
def test_the_search_finds_each_of_its_words_but_not_inside_a_longer_path(words: list[str]) -> None:
    for word in words:
        assert lines_with(words, f"first\nsee {word}thing") == [f"2: see {word}thing"]
        assert lines_with(words, f"the folder x{word}thing") == []


@pytest.mark.parametrize("path", [path for path in FILES if path.read_bytes()[:2] == b"#!"], ids=lambda p: p.name)
def test_what_begins_like_a_program_can_be_executed(path: Path) -> None:
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("name", ["check", "test", "test-matrix", "lock", "demo"])
def test_the_scripts_are_there_and_start_with_what_runs_them(name: str) -> None:
    script = ROOT / "scripts" / name

    assert os.access(script, os.X_OK)
    assert script.read_bytes().startswith(b"#!")


def shell_scripts() -> list[Path]:
    return [path for path in FILES if path.read_bytes().startswith(b"#!/usr/bin/env bash") or path.suffix == ".sh"]


@pytest.mark.parametrize("path", shell_scripts(), ids=lambda path: path.name)
def test_shell_scripts_are_well_formed(path: Path) -> None:
    result = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "")


def test_changelog_fragments_are_named_by_kind_and_hold_one_line() -> None:
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]

    assert fragments
    for path in fragments:
        assert FRAGMENT.fullmatch(path.name), path.name
        text = path.read_text().strip()
        assert "\n" not in text
        assert not text[0].islower()
        assert text.endswith(".")


def test_decision_records_are_numbered_without_a_hole_and_have_all_parts() -> None:
    records = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md")
    numbers = [int(match[1]) for path in records if (match := DECISION.fullmatch(path.name))]

    assert numbers == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text()
        parts = ["## Context", "## Decision", "## Consequences", "## Evidence", "## Rejected"]
        assert [part for part in parts if part not in text] == [], path.name
        assert text.count("\n") <= 60, f"{path.name} is longer than a page"


def links(page: Path) -> list[Path]:
    """What the page links to inside the repository."""
    found = re.findall(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    return [page.parent / target for target in found]


def test_every_relative_link_in_the_documentation_leads_somewhere() -> None:
    pages = [path for path in FILES if path.suffix == ".md"]
    broken = [f"{page.relative_to(ROOT)}: {target}" for page in pages for target in links(page) if not target.exists()]

    assert broken == []


def test_every_page_of_the_documentation_is_reached_from_its_first_page() -> None:
    waiting = [ROOT / "docs" / "README.md"]
    reached: set[Path] = set()
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            waiting += links(page)
    pages = {path for path in FILES if path.suffix == ".md" and (ROOT / "docs") in path.parents}

    assert sorted(str(page.relative_to(ROOT)) for page in pages - reached) == []


def test_every_test_that_the_documentation_refers_to_exists() -> None:
    reference = re.compile(r"`(tests/[\w/.-]+?)(?:::(\w+))?`")
    made_up = ROOT / "docs" / "how-to" / "add-a-cdn.md"  # its provider does not exist
    missing = [
        f"{path.relative_to(ROOT)}: {file}::{name}"
        for path in FILES
        if path.suffix == ".md" and path != made_up
        for file, name in reference.findall(path.read_text())
        if not (ROOT / file).exists() or (name and f"def {name}(" not in (ROOT / file).read_text())
    ]

    assert missing == []


GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text().splitlines()


def test_no_row_of_the_guarantees_is_without_its_test() -> None:
    rows = [line for line in GUARANTEES if line.startswith("| ") and not line.startswith("| |")]

    assert rows
    assert [row for row in rows if "`tests/" not in row.rsplit("|", 2)[1]] == []


def test_every_row_of_the_guarantees_has_the_cells_of_its_table() -> None:
    """Else a cost stands where the exceptions are read."""
    cells = 0
    wrong = []
    for line in GUARANTEES:
        found = len(re.findall(r"(?<!\\)\|", line)) - 1
        if line.startswith("| |"):
            cells = found
        elif line.startswith("|") and found != cells:
            wrong.append(f"{found} cells, not {cells}: {line}")

    assert wrong == []
