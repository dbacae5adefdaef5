"""The recipes: each file loads without a word, its tests hold, and the page shows what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from invalidator.rules import document, testing
from tests.support import recipes

FILES = sorted(recipes.FOLDER.glob("*.yaml"))
TEXT = recipes.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_loads_without_a_finding(path: Path) -> None:
    assert document.load_with_warnings([path]).warnings == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_tests_of_every_recipe_hold(path: Path) -> None:
    report = testing.run(document.load_with_warnings([path]))

    assert report.results
    assert [str(failure.diagnostic()) for failure in report.failures] == []


def test_the_page_shows_every_recipe_and_no_other_file() -> None:
    assert sorted(recipes.included(TEXT)) == [str(path.relative_to(recipes.ROOT)) for path in FILES]


def test_the_page_shows_the_files_as_they_are_and_what_the_commands_print() -> None:
    assert recipes.refreshed(TEXT) == TEXT, f"run: {recipes.COMMAND}"


def test_every_recipe_is_tried_with_a_row() -> None:
    tried = {
        match for command in recipes.commands(TEXT) for match in re.findall(r"config/recipes/[\w-]+\.yaml", command)
    }

    assert tried == set(recipes.included(TEXT))


def test_every_recipe_tells_of_its_pitfalls() -> None:
    sections = TEXT.split("\n## ")[1:]

    assert len(sections) == len(FILES)
    assert [section.splitlines()[0] for section in sections if "\n* " not in section] == []


def test_a_changed_recipe_would_be_noticed() -> None:
    other = TEXT.replace("- name: post\n", "- name: page\n", 1)

    assert other != TEXT
    assert recipes.refreshed(other) == TEXT
