"""New rules are held against the database before they come into force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from invalidator.config import PreflightSettings
from invalidator.postgres.connection import Address
from invalidator.postgres.options import StreamOptions
from invalidator.postgres.side import SideConnection
from invalidator.preflight.watch import Preflight
from invalidator.rules import document
from invalidator.rules.document import Loaded
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State
from invalidator.yamlfile import Invalid
from tests.support.checked import Project
from tests.support.processes import DEADLINE_SECONDS

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


def preflight(project: Project, in_force: Loaded, lookups_dsn: str = "", state: State | None = None) -> Preflight:
    options = StreamOptions.model_validate(project.source)
    return Preflight(
        PreflightSettings(), options, Address(lookups_dsn) if lookups_dsn else None, in_force, Events(state or State())
    )


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


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_lookup_that_postgres_refuses_is_found_before_it_is_asked(
    project: Project, *, is_elsewhere: bool
) -> None:
    lookups_dsn = project.database.dsn if is_elsewhere else ""
    lookup = POST + "    lookup: {other: {sql: 'SELECT nmae FROM notes WHERE id = {id}'}}\n"  # noqa: S608
    old, new = loaded(project, POST), loaded(project, lookup.replace("post:{id}", "post:{other.name}"))
    with pytest.raises(Invalid) as caught:
        await preflight(project, old, lookups_dsn).admit(old, new)
    assert [each.code for each in caught.value.diagnostics] == ["lookup-invalid"]


async def test_another_operation_that_is_not_published_is_refused(project: Project) -> None:
    project.database.execute("ALTER PUBLICATION invalidator SET (publish = 'insert, update')")
    events = POST + "    events: [insert, {}]\n"
    old, new = (loaded(project, events.replace("{}", one)) for one in ("delete", "delete, truncate"))
    with pytest.raises(Invalid) as caught:
        await preflight(project, old).admit(old, new)
    assert [each.message for each in caught.value.diagnostics] == [
        "publication 'invalidator' does not publish truncate"
    ]
    await preflight(project, new).admit(new, old)


LOOKUP = "    lookup: {other: {sql: 'SELECT n.id FROM notes n WHERE n.id = {id}'}}\n"
READS = POST.replace("post:{id}", "post:{other.id}") + LOOKUP


@pytest.fixture
async def side(project: Project) -> AsyncIterator[SideConnection]:
    opened = await SideConnection.open(project.database.dsn, slot=project.database.name)
    yield opened
    await opened.close()


WAITS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'invalidator/preflight' AND wait_event_type = 'Lock'
"""


async def test_the_side_connection_answers_while_lookups_are_explained(project: Project, side: SideConnection) -> None:
    watching = preflight(project, loaded(project, READS))
    with project.database.connect() as locking:
        locking.execute("LOCK TABLE notes")
        looking = asyncio.ensure_future(watching.look_again(side))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while project.database.execute(WAITS) != [(1,)]:
                assert await side.fetch("SELECT 1") == [(1,)]
        assert await side.fetch("SELECT 1") == [(1,)]
        assert not looking.done()
    await looking


async def test_lookups_are_explained_again_when_something_changed_or_was_found(
    project: Project, side: SideConnection
) -> None:
    held, state = loaded(project, READS), State()
    watching = preflight(project, held, state=state)
    await watching.look_again(side)
    project.database.execute("ALTER TABLE notes RENAME TO elsewhere")
    await watching.look_again(side)
    assert not state.findings["lookups"]
    watching.use(held)
    await watching.look_again(side)
    assert [each.code for each in state.findings["lookups"]] == ["lookup-invalid"]
    project.database.execute("ALTER TABLE elsewhere RENAME TO notes")
    await watching.look_again(side)
    assert not state.findings["lookups"]


async def test_rules_that_need_rows_which_setups_filter_leaves_out_are_refused(project: Project) -> None:
    one = POST.replace("post:{id}", "posts") + "    when: id = 5\n"
    old, new = loaded(project, POST.replace("post:{id}", "posts")), loaded(project, one)
    project.run("setup", "--apply", "--drop")
    project.run("setup", "--apply")
    with pytest.raises(Invalid) as caught:
        await preflight(project, new).admit(new, old)
    assert [(each.code, each.severity) for each in caught.value.diagnostics] == [("row-filter", "error")]
