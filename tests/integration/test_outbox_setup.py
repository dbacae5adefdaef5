"""``setup --source outbox``: idempotent, with the least privileges, and taken away again; ``check --online`` beside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from invalidator.errors import ConfigError
from invalidator.postgres.catalog.outbox import LOCK_KEY
from tests.support.checked import Project
from tests.support.outbox import emptied, reading, setup
from tests.support.postgres import Database
from tests.support.reading import rule

pytestmark = pytest.mark.usefixtures("quiet_logs")

ITEM = rule("item", "item:{id}", "slug:{slug}")
EARLIER = """
    CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
      SET search_path = pg_catalog, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
      size bigint;
    BEGIN
      SELECT count(*) INTO size FROM new_rows;
      IF size > 0 THEN
        INSERT INTO invalidator.outbox (relation, schema_name, table_name, operation, columns, new_rows)
        SELECT TG_RELID, 'public', 'item', 'I', ARRAY['id', 'slug']::text[], new.images
          FROM (SELECT array_agg(ARRAY[r.id::text, r.slug::text]) AS images FROM new_rows AS r) AS new;
      END IF;
      RETURN NULL;
    END $$
"""
POSTS = """\
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{id}"]}
"""


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, slug text, price int)")
    return database


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A role's name; the role is dropped with what it holds."""
    name = f"daemon_{database.name}"
    yield name
    if database.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", name):
        database.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def test_a_second_run_finds_nothing_to_do(shop: Database) -> None:
    left = await setup(shop.dsn, [ITEM])
    assert left.to_run == ()
    assert left.findings == ()
    assert {mark.sign for mark in left.marks} == {"="}


async def test_other_rules_replace_the_functions_and_unneeded_triggers_go(shop: Database) -> None:
    await setup(shop.dsn, [ITEM])
    left = await setup(shop.dsn, [rule("item", "item:{id}", events=["insert"])])
    assert left.to_run == ()
    shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
    shop.execute("UPDATE item SET slug = 'b'")
    assert shop.execute("SELECT operation::text, columns FROM invalidator.outbox") == [("I", ["id"])]
    assert shop.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'item'::regclass") == [(1,)]


async def test_what_somebody_changed_is_shown_and_mended(shop: Database) -> None:
    await setup(shop.dsn, [ITEM])
    shop.execute("ALTER TABLE item DISABLE TRIGGER invalidator_insert; DROP TRIGGER invalidator_delete ON item")
    plan = await setup(shop.dsn, [ITEM], apply=False)
    assert {(mark.sign, mark.what, mark.detail) for mark in plan.marks if mark.sign != "="} == {
        ("~", "insert trigger on public.item", "disabled"),
        ("+", "delete trigger on public.item", ""),
    }
    assert (await setup(shop.dsn, [ITEM])).to_run == ()
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        shop.execute("DELETE FROM item")
        await reader.until("item:1")
        await emptied(shop)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER invalidator_guard ON invalidator.outbox",
        "ALTER TABLE invalidator.outbox DISABLE TRIGGER invalidator_guard",
        "ALTER TABLE invalidator.outbox ENABLE TRIGGER invalidator_guard",
        "DROP FUNCTION invalidator.outbox_guard CASCADE",
    ],
)
async def test_a_guard_that_is_gone_or_does_not_fire_is_mended(shop: Database, statement: str) -> None:
    await setup(shop.dsn, [ITEM])
    shop.execute(statement)
    plan = await setup(shop.dsn, [ITEM], apply=False)
    assert [mark.what for mark in plan.marks if mark.sign != "="] == ["guard trigger on invalidator.outbox"]
    assert (await setup(shop.dsn, [ITEM])).to_run == ()


async def test_an_outbox_without_what_was_confirmed_gets_it(shop: Database) -> None:
    """One that an earlier version has made."""
    await setup(shop.dsn, [ITEM])
    shop.execute("DROP TABLE invalidator.confirmed")
    with pytest.raises(ConfigError, match=r"invalidator\.confirmed is not there"):
        async with reading(shop.dsn, [ITEM]) as reader:
            await reader.until("item:1")
    assert (await setup(shop.dsn, [ITEM])).to_run == ()
    async with reading(shop.dsn, [ITEM]) as reader:
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")


async def test_functions_of_an_earlier_version_are_told_and_replaced_while_the_application_writes(
    shop: Database,
) -> None:
    await setup(shop.dsn, [ITEM])
    [[function]] = shop.execute("SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgname = 'invalidator_insert'")
    shop.execute(EARLIER.format(function))
    plan = await setup(shop.dsn, [ITEM], apply=False)
    different = [(mark.sign, mark.what, mark.detail) for mark in plan.marks if mark.sign != "="]
    assert different == [("~", "insert trigger on public.item", "outdated")]

    writes = Writes()
    writer = asyncio.create_task(asyncio.to_thread(writes.go_on, shop.dsn))
    try:
        assert await asyncio.to_thread(writes.have_begun.wait, 30)
        left = await setup(shop.dsn, [ITEM])
    finally:
        writes.may_end.set()
        await writer
    assert left.to_run == ()
    kept = shop.execute("SELECT new_rows[1][1]::int FROM invalidator.outbox WHERE operation = 'I' ORDER BY id")
    assert [number for (number,) in kept] == list(range(writes.count))


class Writes:
    """One session that goes on writing: it has made its plans of the functions before they are replaced."""

    def __init__(self) -> None:
        self.count = 0
        self.have_begun, self.may_end = threading.Event(), threading.Event()

    def go_on(self, dsn: str) -> None:
        """Until 20 rows after the end was allowed."""
        rest = 20
        with psycopg.connect(dsn, autocommit=True) as connection:
            while rest:
                connection.execute("INSERT INTO item VALUES (%s, 'a', 1)", [self.count])
                self.count += 1
                if self.count == 20:
                    self.have_begun.set()
                rest -= self.may_end.is_set()


async def test_a_partition_that_is_made_later_gets_its_triggers_by_the_next_run(database: Database) -> None:
    database.execute("CREATE TABLE part (id int) PARTITION BY RANGE (id)")
    part = rule("part", "part:{id}")
    await setup(database.dsn, [part])
    database.execute("CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10)")
    plan = await setup(database.dsn, [part], apply=False)
    assert {mark.what for mark in plan.marks if mark.sign == "+"} == {
        f"{operation} trigger on public.part_1" for operation in ("insert", "update", "delete", "truncate")
    }
    await setup(database.dsn, [part])
    async with reading(database.dsn, [part]) as reader:
        database.execute("INSERT INTO part_1 VALUES (1)")
        await reader.until("part:1")


async def test_dropping_leaves_nothing_behind(shop: Database) -> None:
    await setup(shop.dsn, [ITEM])
    left = await setup(shop.dsn, [ITEM], remove=True)
    assert left.to_run == ()
    assert shop.execute("SELECT to_regnamespace('invalidator')::text") == [(None,)]
    assert shop.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]
    shop.execute("INSERT INTO item VALUES (1, 'a', 1)")


async def test_the_daemons_role_reads_and_empties_the_outbox_and_nothing_else(shop: Database, role: str) -> None:
    assert (await setup(shop.dsn, [ITEM], role=role)).to_run == ()
    shop.execute(f"ALTER ROLE {role} PASSWORD 'x'")
    granted = shop.execute(
        "SELECT has_table_privilege(rolname, 'public.item', 'SELECT'),"
        " has_table_privilege(rolname, 'invalidator.outbox', 'UPDATE'), rolreplication, rolsuper"
        " FROM pg_roles WHERE rolname = %s",
        role,
    )
    assert granted == [(False, False, False, False)]
    async with reading(make_conninfo(shop.dsn, user=role, password="x"), [ITEM]) as reader:  # noqa: S106
        shop.execute("INSERT INTO item VALUES (1, 'a', 1)")
        await reader.until("item:1")
        await emptied(shop)


def test_functions_that_may_not_be_called_are_told_with_the_grant(checked: Project, role: str) -> None:
    """As on a server where PUBLIC may do less than by default."""
    database = checked.database
    database.execute("CREATE TABLE posts (id int PRIMARY KEY)")
    checked.source = {"type": "outbox", "dsn": database.dsn, "wake": "notify"}
    checked.write(POSTS)
    assert checked.run("setup", "--apply", "--role", role).code == 0
    database.execute(f"ALTER ROLE {role} PASSWORD 'x'")
    for (function,) in database.execute(
        "SELECT DISTINCT tgfoid::regprocedure::text FROM pg_trigger WHERE tgrelid = 'posts'::regclass"
    ):
        database.execute(f"ALTER FUNCTION {function} OWNER TO {role}")  # no superuser, who may call anything
    checked.source["dsn"] = make_conninfo(database.dsn, user=role, password="x")  # noqa: S106
    checked.write(POSTS)
    database.execute("REVOKE EXECUTE ON FUNCTION pg_try_advisory_lock(bigint), pg_notify(text, text) FROM PUBLIC")
    database.execute("REVOKE EXECUTE ON FUNCTION pg_try_advisory_xact_lock_shared(bigint) FROM PUBLIC")
    database.execute("INSERT INTO posts VALUES (1)")

    found = checked.run("check", "--online", "--json").json()["findings"]
    told = [each for each in found if each["severity"] == "error"]
    assert [each["code"] for each in told] == ["no-execute-privilege"] * 2
    for each in told:
        database.execute(each["fix"])

    assert checked.run("check", "--online").code == 0
    database.execute("INSERT INTO posts VALUES (2)")
    assert database.execute("SELECT operation::text FROM invalidator.outbox ORDER BY id") == [("C",), ("I",)]


def test_the_command_prints_sql_applies_compares_and_drops(checked: Project) -> None:
    checked.database.execute("CREATE TABLE posts (id int PRIMARY KEY)")
    checked.source = {"type": "outbox", "dsn": checked.database.dsn}
    checked.write(POSTS)

    missing = checked.run("check", "--online", "--json")
    assert missing.codes() == ["outbox-missing"]
    printed = checked.run("setup")
    assert (printed.code, "CREATE TABLE" in printed.output) == (0, True), printed.output
    checked.database.execute(printed.output)
    assert checked.run("setup", "--diff").code == 0
    well = checked.run("check", "--online")
    assert well.code == 0, well.output
    assert "invalidator.outbox ✓   4 triggers" in well.output
    checked.database.execute("ALTER TABLE posts DISABLE TRIGGER invalidator_update")
    checked.database.execute("DROP TRIGGER invalidator_delete ON posts")
    assert sorted(checked.run("check", "--online", "--json").codes()) == ["trigger-disabled", "trigger-missing"]
    assert checked.run("setup", "--diff").code == 1
    assert checked.run("setup", "--apply").code == 0
    assert checked.run("check", "--online").code == 0
    checked.database.execute("DROP TRIGGER invalidator_guard ON invalidator.outbox")
    assert checked.run("check", "--online", "--json").codes() == ["outbox-unguarded"]
    assert checked.run("setup", "--apply").code == 0
    checked.run("setup", "--drop", "--apply")
    assert checked.database.execute("SELECT to_regnamespace('invalidator')::text") == [(None,)]


def test_source_outbox_prepares_a_switch_while_the_settings_name_a_slot(checked: Project) -> None:
    checked.database.execute("CREATE TABLE posts (id int PRIMARY KEY)")
    checked.write(POSTS)
    assert checked.run("setup", "--source", "outbox", "--apply").code == 0
    checked.database.execute("INSERT INTO posts VALUES (1)")
    assert checked.database.execute("SELECT count(*) FROM invalidator.outbox") == [(1,)]
    assert checked.database.execute("SELECT count(*) FROM pg_publication") == [(0,)]
    refused = checked.run("setup", "--source", "outbox", "--offline")
    assert "--offline knows nothing of 'outbox'" in refused.errors


def test_an_outbox_that_is_not_ours_or_is_being_read_stays(checked: Project) -> None:
    checked.database.execute("CREATE TABLE posts (id int PRIMARY KEY)")
    checked.write(POSTS)
    checked.database.execute("CREATE SCHEMA invalidator; CREATE TABLE invalidator.outbox (message text)")
    foreign = checked.run("setup", "--source", "outbox", "--drop", "--apply")
    assert (foreign.code, "its comment does not say who made it" in foreign.output) == (1, True)
    assert checked.database.execute("SELECT to_regclass('invalidator.outbox')::text") == [("invalidator.outbox",)]

    checked.database.execute("DROP TABLE invalidator.outbox; CREATE TABLE invalidator.notes (message text)")
    checked.run("setup", "--source", "outbox", "--apply")
    with psycopg.connect(checked.database.dsn) as reader:
        reader.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        read = checked.run("setup", "--source", "outbox", "--drop", "--apply")
        assert read.code == 1
        assert f"is being read by server process {reader.info.backend_pid}: a daemon is running" in read.output
        reader.execute("SELECT pg_advisory_unlock(%s)", [LOCK_KEY])

    gone = checked.run("setup", "--source", "outbox", "--drop", "--apply")
    assert (gone.code, "schema invalidator stays: notes in it is not ours" in gone.output) == (0, True)
    assert checked.database.execute("SELECT to_regclass('invalidator.outbox')::text") == [(None,)]


async def test_a_schema_or_table_that_somebody_else_has_made_is_refused(shop: Database, role: str) -> None:
    """Its owner could give the outbox a trigger, which would run as whoever ran set-up."""
    await setup(shop.dsn, [ITEM])
    shop.execute(f"CREATE ROLE {role}")
    for what, back in (("TABLE invalidator.outbox", "CURRENT_USER"), ("SCHEMA invalidator", role)):
        shop.execute(f"ALTER {what} OWNER TO {role}")
        plan = await setup(shop.dsn, [ITEM, rule("other", "other:{id}")])
        assert plan.to_run == ()
        assert [f"belongs to role '{role}'" in each.text for each in plan.problems] == [True]
        shop.execute(f"ALTER {what} OWNER TO {back}")
    shop.execute(f"ALTER ROLE {role} SUPERUSER")
    assert (await setup(shop.dsn, [ITEM])).problems == ()
    shop.execute("ALTER SCHEMA invalidator OWNER TO CURRENT_USER")
