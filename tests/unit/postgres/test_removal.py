"""What is proved to be ours, and may go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from invalidator.postgres.catalog import Publication, PublishedTable
from invalidator.postgres.provision import Purpose, filters, plan, removal
from tests.unit.postgres.test_provision import FACTS, NEED, REQUEST, TABLE, texts

OURS = filters.record({}, is_made=True)
PUBLICATION = Publication(
    "p", "owner", is_for_all_tables=False, operations=frozenset({"insert", "update", "delete", "truncate"}),
    is_via_root=False, sends_generated=False, schemas=frozenset(), comment=OURS,
    tables=(PublishedTable(TABLE.oid, None, False, None, "public.t"),),
)  # fmt: skip


def published(comment: str | None) -> Publication:
    return replace(PUBLICATION, comment=comment)


@pytest.mark.parametrize(
    ("comment", "is_recorded", "goes"),
    [
        (OURS, False, [Purpose.SLOT, Purpose.PUBLICATION]),
        (filters.record({"public.t": "id > 0"}, is_made=True), False, [Purpose.SLOT, Purpose.PUBLICATION]),
        (None, False, []),
        ("ours, do not touch", False, []),
        ("invalidator setup: ", False, []),
        ("invalidator setup: []", False, []),
        (filters.record({"public.t": "id > 0"}, is_made=False), False, []),
        (None, True, [Purpose.SLOT]),
    ],
)
def test_a_publication_goes_by_its_comment_and_a_slot_by_that_or_by_our_record(
    comment: str | None, is_recorded: bool, goes: list[Purpose]
) -> None:
    facts = replace(FACTS, publications={"p": published(comment)}, role=None)
    made = removal([NEED], facts, REQUEST, is_slot_recorded=is_recorded)
    assert [step.purpose for step in made.steps] == goes
    assert len(made.problems) == 2 - len(goes)


def test_a_slot_whose_publication_is_gone_already_needs_a_record() -> None:
    facts = replace(FACTS, role=None)
    assert removal([NEED], facts, REQUEST).steps == ()
    assert [step.purpose for step in removal([NEED], facts, REQUEST, is_slot_recorded=True).steps] == [Purpose.SLOT]


@pytest.mark.parametrize(("plugin", "database"), [("wal2json", "app"), (None, None), ("pgoutput", "other")])
def test_a_slot_of_another_plugin_or_database_stays_whatever_a_record_says(
    plugin: str | None, database: str | None
) -> None:
    assert FACTS.slot is not None
    slot = replace(FACTS.slot, plugin=plugin, database=database)
    facts = replace(FACTS, slot=slot, publications={"p": published(OURS)}, role=None)
    made = removal([NEED], facts, REQUEST, is_slot_recorded=True)
    assert [step.purpose for step in made.steps] == [Purpose.PUBLICATION]


def test_a_publication_that_somebody_made_does_not_become_ours_when_tables_are_added() -> None:
    theirs = replace(PUBLICATION, comment=None, tables=())
    steps = texts(plan([NEED], replace(FACTS, publications={"p": theirs}), REQUEST), Purpose.PUBLICATION)
    assert any("ADD TABLE" in step for step in steps)
    assert not any("COMMENT" in step for step in steps)
