"""The page on the rule language says what the code does."""

from __future__ import annotations

import re

import pytest

from invalidator.cli.generators import rules_page
from invalidator.rules import template

TEXT = rules_page.PAGE.read_text(encoding="utf-8")


def test_what_the_page_takes_from_the_code_is_up_to_date() -> None:
    assert rules_page.refreshed(TEXT) == TEXT, f"run: {rules_page.COMMAND}"


def test_everything_that_can_be_made_is_on_the_page_once() -> None:
    assert sorted(re.findall(r"<!-- made: ([\w-]+) -->", TEXT)) == sorted(rules_page.BLOCKS)


def test_every_filter_and_fact_is_explained_and_no_other() -> None:
    assert set(rules_page._FILTERS) == set(template.FILTERS)
    assert set(rules_page._FACTS) == set(template.META)


@pytest.mark.parametrize("name", rules_page.BLOCKS)
def test_a_block_that_somebody_changed_is_noticed_and_mended(name: str) -> None:
    broken = re.sub(rf"(<!-- made: {name} -->\n).*?(<!-- end -->)", r"\1something else\n\2", TEXT, flags=re.DOTALL)

    assert broken != TEXT
    assert rules_page.refreshed(broken) == TEXT


def test_every_link_to_a_table_of_fields_leads_to_one() -> None:
    titles = re.findall(r"^### (.*)", TEXT, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    assert set(re.findall(r"\[(?:list|mapping)\]\(#([\w-]+)\)", TEXT)) <= headings


def test_the_examples_of_derived_forms_are_of_every_layer() -> None:
    assert {group for group, _ in rules_page._DERIVED} == {"keys", "tags", "l1", "cdn"}
