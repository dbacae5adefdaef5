"""New rules are held against the database before they come into force."""

from __future__ import annotations

import pytest

from invalidator.config import PreflightSettings
from invalidator.postgres.options import StreamOptions
from invalidator.preflight.watch import Preflight
from invalidator.rules import document
from invalidator.rules.document import Loaded
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from invalidator.yamlfile import Invalid
from tests.support.checked import Project

POST = """\
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{id}"]}
"""
NOTE = POST.replace("post", "note")
SLUG = POST.replace("name: post", "name: slug").replace("{id}", "{slug}")


@pytest.fixture
def project(checked: Project) -> Project:
    checked.database.execute(
        "CREATE TABLE posts (id int PRIMARY KEY, slug text); CREATE TABLE notes (id int PRIMARY KEY)"
    )
    checked.write(POST)
    checked.set_up()
    return checked


def loaded(project: Project, rules: str) -> Loaded:
    project.write(rules)
    return document.load_with_warnings([project.folder / "rules.yaml"])


def preflight(project: Project, in_force: Loaded) -> Preflight:
    options = StreamOptions.model_validate(project.source)
    return Preflight(PreflightSettings(), options, "", in_force, Events(State()))


async def test_a_rule_for_a_table_that_is_not_published_is_refused_with_the_sql(project: Project) -> None:
    old, new = loaded(project, POST), loaded(project, POST + NOTE)
    with pytest.raises(Invalid) as caught:
        await preflight(project, old).admit(old, new)
    (found,) = caught.value.diagnostics
    assert (found.code, found.line) == ("not-published", 7)
    project.database.execute(found.fix or "")
    await preflight(project, old).admit(old, new)


async def test_what_was_wrong_before_does_not_stand_in_the_way(project: Project) -> None:
    old, new = loaded(project, SLUG + NOTE), loaded(project, SLUG + NOTE + POST)
    await preflight(project, old).admit(old, new)


async def test_a_lookup_that_postgres_refuses_is_found_before_it_is_asked(project: Project) -> None:
    lookup = POST + "    lookup: {other: {sql: 'SELECT nmae FROM notes WHERE id = {id}'}}\n"  # noqa: S608
    old, new = loaded(project, POST), loaded(project, lookup.replace("post:{id}", "post:{other.name}"))
    with pytest.raises(Invalid) as caught:
        await preflight(project, old).admit(old, new)
    assert [each.code for each in caught.value.diagnostics] == ["lookup-invalid"]


async def test_rules_that_need_rows_which_setups_filter_leaves_out_are_refused(project: Project) -> None:
    one = POST.replace("post:{id}", "posts") + "    when: id = 5\n"
    old, new = loaded(project, POST.replace("post:{id}", "posts")), loaded(project, one)
    project.run("setup", "--apply", "--drop")
    project.run("setup", "--apply")
    with pytest.raises(Invalid) as caught:
        await preflight(project, new).admit(new, old)
    assert [(each.code, each.severity) for each in caught.value.diagnostics] == [("row-filter", "error")]
