"""Grants, comparison and removal: the role gets what it needs and no more, and only what is ours goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from invalidator.errors import ConfigError
from invalidator.postgres.catalog import privileges
from invalidator.postgres.connection import connect
from tests.integration.test_setup_proof import Application
from tests.support.postgres import Database

TABLES = """
    CREATE TABLE posts (id int PRIMARY KEY, slug text, body text);
    CREATE TABLE authors (id int PRIMARY KEY, name text, secret text);
    CREATE SCHEMA away; CREATE TABLE away.links (post int, author int);
    CREATE TABLE untouched (id int PRIMARY KEY);
"""
POST = {"name": "post", "table": "public.posts", "invalidate": {"keys": ["post:{id}"]}}


@pytest.fixture
def application(database: Database, tmp_path: Path) -> Iterator[Application]:
    database.execute(TABLES)
    made = Application(database, tmp_path)
    made.write_rules(POST)
    yield made
    made.close()


def looking(sql: str, **more: Any) -> dict[str, Any]:
    """A rule for posts with that lookup."""
    return {**POST, "invalidate": {"keys": ["author:{found.id}"]}, "lookup": {"found": {"sql": sql}}, **more}


def statements(printed: dict[str, Any], purpose: str) -> list[str]:
    return [sql for step in printed["steps"] if step["purpose"] == purpose for sql in step["sql"]]


def may_read(application: Application, table: str) -> bool:
    answer = application.database.execute("SELECT has_table_privilege(%s, %s, 'SELECT')", application.role, table)
    return bool(answer[0][0])


# -- grants ----------------------------------------------------------------------------------------------------------


def test_a_lookup_gets_select_on_what_it_reads_and_on_nothing_else(application: Application) -> None:
    application.write_rules(
        looking("SELECT a.id FROM away.links l JOIN authors a ON a.id = l.author WHERE l.post = {id}")
    )
    application.setup("--apply")
    assert may_read(application, "authors")
    assert may_read(application, "away.links")
    assert not may_read(application, "untouched")
    assert not may_read(application, "posts")
    with psycopg.connect(application.database.dsn, autocommit=True) as connection:
        connection.execute(f"SET ROLE {application.role}")
        connection.execute("SELECT a.id FROM away.links l JOIN authors a ON a.id = l.author WHERE l.post = 1")
    assert statements(application.setup()[1], "grant") == []


def test_a_view_is_granted_and_not_what_lies_beneath_it(application: Application) -> None:
    application.database.execute("CREATE VIEW public_authors AS SELECT id, name FROM authors")
    application.write_rules(looking("SELECT id FROM public_authors WHERE id = {id}"))
    application.setup("--apply")
    assert may_read(application, "public_authors")
    assert not may_read(application, "authors")


def test_a_view_that_reads_as_its_user_is_granted_with_what_lies_beneath_it(application: Application) -> None:
    if application.version < 15:
        pytest.skip("Postgres 15 brought security_invoker")
    application.database.execute(
        "CREATE VIEW public_authors WITH (security_invoker) AS SELECT id, name FROM authors;"
        "CREATE VIEW inner_view AS SELECT * FROM untouched;"
        "CREATE VIEW outer_view WITH (security_invoker = true) AS SELECT a.id FROM public_authors a, inner_view"
    )
    application.write_rules(looking("SELECT id FROM outer_view WHERE id = {id}"))
    application.setup("--apply")
    assert [may_read(application, name) for name in ("outer_view", "public_authors", "authors", "inner_view")] == [
        True
    ] * 4
    assert not may_read(application, "untouched")


def test_names_in_strings_and_common_table_expressions_are_no_tables(application: Application) -> None:
    application.write_rules(
        looking(
            "WITH untouched AS (SELECT id, 'FROM posts' AS x FROM authors) SELECT id FROM untouched WHERE id = {id}"
        )
    )
    application.setup("--apply")
    assert may_read(application, "authors")
    assert not may_read(application, "untouched")
    assert not may_read(application, "posts")


def test_a_lookup_that_postgres_refuses_is_a_problem(application: Application) -> None:
    application.write_rules(looking("SELECT id FROM nowhere WHERE id = {id}"))
    code, printed = application.setup()
    assert code == 1
    assert any("lookup 'found'" in finding["text"] and "nowhere" in finding["text"] for finding in printed["findings"])


@pytest.mark.parametrize(
    "begun",
    ["SELECT {id} --\r", "SELECT {id}, E'x'\n'\\' , '", "SELECT {id}, b\u00a0E'\\'"],
    ids=["carriage return", "continued literal", "no-break space"],
)
def test_a_lookup_that_breaks_out_of_its_text_is_refused(application: Application, begun: str) -> None:
    end = ") AS query; COMMIT; DROP TABLE untouched; SELECT 1 FROM (SELECT 2 --'"
    application.write_rules(looking(begun + end))
    with pytest.raises(ConfigError):
        application.setup()
    assert application.database.execute("SELECT to_regclass('untouched') IS NOT NULL") == [(True,)]


async def test_a_text_that_is_several_statements_is_none_to_postgres(database: Database) -> None:
    database.execute(TABLES)
    text = "SELECT 1) AS query; COMMIT; DROP TABLE untouched; SELECT 1 FROM (SELECT 2"
    async with await connect(database.dsn, application_name="test") as connection:
        with pytest.raises(ConfigError, match="multiple commands"):
            await privileges.readables(connection, text, "postgres")
        assert connection.info.parameter_status("standard_conforming_strings") == "on"
    assert database.execute("SELECT to_regclass('untouched') IS NOT NULL") == [(True,)]


def test_a_database_closed_to_the_public_is_opened_for_the_role(application: Application) -> None:
    name = application.database.name
    application.database.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    application.setup("--apply")
    application.setup("--apply")  # whether it may connect is known once it exists
    rows = application.database.execute("SELECT has_database_privilege(%s, %s, 'CONNECT')", application.role, name)
    assert rows == [(True,)]
    assert application.setup("--drop", "--apply")[0] == 0
    assert application.database.execute("SELECT FROM pg_roles WHERE rolname = %s", application.role) == []


# -- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"table": "public.post"}, "public.posts"),
        ({"table": "pubic.posts"}, "public.posts"),
        ({"invalidate": {"keys": ["post:{slugg}"]}}, "'slug'"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(application: Application, rule: dict[str, Any], words: str) -> None:
    application.write_rules({**POST, **rule})
    code, printed = application.setup()
    assert code == 1
    assert any(words in (finding["fix"] or "") for finding in printed["findings"])


def test_who_connects_as_a_role_that_does_not_exist_yet_is_told_how_else(application: Application) -> None:
    dsn = psycopg.conninfo.make_conninfo(application.database.dsn, user="not_there_yet", password="x")  # noqa: S106
    with pytest.raises(ConfigError, match=r"--dsn OWNER_DSN(.|\n)*--offline"):
        application.setup("--dsn", dsn)


def test_the_slot_is_copied_to_standbys_where_the_server_can(application: Application) -> None:
    application.setup("--apply")
    if application.version < 17:
        assert "failover" not in str(application.setup("--drop"))
        return
    rows = application.database.execute(
        "SELECT failover FROM pg_replication_slots WHERE slot_name = %s", application.slot
    )
    assert rows == [(True,)]


def test_a_slot_without_failover_is_noted_with_the_way_to_change_it(application: Application) -> None:
    application.setup("--apply", "--no-failover")
    notes = [finding["fix"] or "" for finding in application.setup()[1]["findings"]]
    assert any("ALTER_REPLICATION_SLOT" in note for note in notes) == (application.version >= 17)
    assert application.setup("--no-failover")[1]["findings"] == []


def test_dropping_a_listed_column_and_going_full_is_what_the_note_warns_of(application: Application) -> None:
    if application.version < 15:
        pytest.skip("column lists came with Postgres 15")
    database = application.database
    application.write_rules({**POST, "invalidate": {"keys": ["post:{id}", "body:{new.body}"]}})
    notes = [step["note"] for step in application.setup("--apply")[1]["applied"]]
    assert any("Postgres refuses to drop it" in note and "DROP TABLE" in note for note in notes)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        database.execute("ALTER TABLE posts DROP body")
    database.execute("INSERT INTO posts VALUES (1, 'a', 'b'); ALTER TABLE posts REPLICA IDENTITY FULL")
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        database.execute("UPDATE posts SET slug = 'b'")
    database.execute(
        "BEGIN; ALTER PUBLICATION invalidator DROP TABLE posts; ALTER TABLE posts DROP body;"
        "ALTER PUBLICATION invalidator ADD TABLE posts; COMMIT"
    )
    database.execute("UPDATE posts SET slug = 'b'")


def test_dropping_the_index_of_an_identity_is_what_the_note_warns_of(application: Application) -> None:
    database = application.database
    database.execute("ALTER TABLE posts ALTER slug SET NOT NULL; CREATE UNIQUE INDEX by_slug ON posts (slug)")
    application.write_rules({**POST, "invalidate": {"keys": ["post:{slug}"]}})
    notes = [step["note"] for step in application.setup("--apply")[1]["applied"]]
    assert any("every UPDATE and DELETE on it would fail" in note and "INDEX" in note for note in notes)
    database.execute("INSERT INTO posts VALUES (1, 'a', 'b'); DROP INDEX by_slug")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        database.execute("UPDATE posts SET body = 'c'")


# -- insert only -----------------------------------------------------------------------------------------------------


def test_rules_that_look_at_inserts_only_publish_inserts_only_and_need_no_identity(application: Application) -> None:
    database = application.database
    database.execute("CREATE TABLE log (id int, what text)")
    only = {"table": "public.log", "events": ["insert", "truncate"], "invalidate": {"keys": ["log:{what}"]}}
    application.write_rules({**POST, **only})
    code, printed = application.setup("--apply")
    assert (code, printed["findings"]) == (0, [])
    assert database.execute("SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication") == [
        (True, False, False, True)
    ]
    database.execute("INSERT INTO log VALUES (1, 'a'); UPDATE log SET what = 'b'; DELETE FROM log")
    assert database.execute("SELECT relreplident::text FROM pg_class WHERE relname = 'log'") == [("d",)]


def test_a_later_rule_for_updates_is_published_once_each_table_bears_it(application: Application) -> None:
    database = application.database
    database.execute("CREATE TABLE log (id int, what text)")
    log = {"table": "public.log", "invalidate": {"keys": ["log:{what}"]}}
    application.write_rules({**POST, **log, "events": ["insert"]})
    application.setup("--apply")
    application.write_rules({**POST, **log}, {**POST, "name": "other"})
    code, printed = application.setup("--apply")
    assert (code, printed["findings"]) == (0, [])
    database.execute("INSERT INTO log VALUES (1, 'a'); UPDATE log SET what = 'b'; DELETE FROM log")
    assert database.execute("SELECT pubupdate, pubdelete FROM pg_publication") == [(True, True)]
    assert {mark["sign"] for mark in application.setup("--diff")[1]["objects"]} == {"="}


def test_a_publication_with_a_table_that_bears_no_updates_is_not_widened(application: Application) -> None:
    database = application.database
    database.execute("CREATE TABLE log (id int, what text)")
    database.execute("CREATE PUBLICATION invalidator FOR TABLE log WITH (publish = 'insert')")
    code, printed = application.setup("--apply")
    assert code == 1
    assert any("does not publish" in finding["text"] for finding in printed["findings"])
    database.execute("INSERT INTO log VALUES (1, 'a'); UPDATE log SET what = 'b'; DELETE FROM log")


# -- comparing -------------------------------------------------------------------------------------------------------


def signs(application: Application) -> tuple[int, dict[str, str]]:
    code, printed = application.setup("--diff")
    return code, {mark["object"].replace(application.database.name, "*"): mark["sign"] for mark in printed["objects"]}


def test_diff_tells_missing_different_unwanted_and_right_apart(application: Application) -> None:
    code, found = signs(application)
    assert (code, set(found.values())) == (1, {"+"})
    assert "table public.posts in publication invalidator" in found
    application.setup("--apply")
    code, found = signs(application)
    assert (code, set(found.values())) == (0, {"="})
    application.write_rules({**POST, "invalidate": {"keys": ["post:{slug}"]}})
    code, found = signs(application)
    assert code == 1
    assert found["replica identity of public.posts"] == "~"
    application.write_rules(POST)
    application.database.execute("ALTER PUBLICATION invalidator ADD TABLE untouched")
    code, found = signs(application)
    assert (code, found["table public.untouched in publication invalidator"]) == (1, "-")


# -- removing --------------------------------------------------------------------------------------------------------


def test_drop_prints_and_changes_nothing_until_it_is_applied(application: Application) -> None:
    application.setup("--apply")
    before = application.catalog()
    code, printed = application.setup("--drop")
    assert code == 0
    assert [step["purpose"] for step in printed["steps"]] == ["slot", "publication", "role"]
    assert application.catalog() == before
    application.setup("--drop", "--apply")
    assert application.setup("--drop")[1]["steps"] == []


def test_drop_takes_lookup_grants_and_leaves_others(application: Application) -> None:
    application.write_rules(looking("SELECT a.id FROM away.links l JOIN authors a ON true WHERE l.post = {id}"))
    before = application.catalog()
    application.setup("--apply")
    application.database.execute(f"GRANT SELECT ON untouched TO {application.role}")
    code, printed = application.setup("--drop", "--apply")
    assert code == 0
    (note,) = printed["findings"]
    assert "it has privileges on table untouched" in note["text"]
    assert not may_read(application, "authors")
    application.database.execute(f"REVOKE ALL ON untouched FROM {application.role}")
    application.setup("--drop", "--apply")
    assert application.catalog()["roles"] == before["roles"]


def test_drop_keeps_a_role_that_owns_something(application: Application) -> None:
    application.setup("--apply")
    application.database.execute(f"ALTER TABLE untouched OWNER TO {application.role}")
    _, printed = application.setup("--drop", "--apply")
    assert any("it owns table untouched" in finding["text"] for finding in printed["findings"])
    assert application.database.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", application.role) == [(1,)]
    application.database.execute("DROP TABLE untouched")


def test_drop_keeps_a_role_that_is_more_than_ours(application: Application) -> None:
    application.setup("--apply")
    application.database.execute(f"ALTER ROLE {application.role} CREATEDB")
    _, printed = application.setup("--drop", "--apply")
    assert any("it may create databases" in finding["text"] for finding in printed["findings"])
    assert application.database.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", application.role) == [(1,)]


def test_drop_keeps_a_publication_that_holds_what_no_rule_needs(application: Application) -> None:
    application.setup("--apply")
    application.database.execute("ALTER PUBLICATION invalidator ADD TABLE untouched")
    code, printed = application.setup("--drop", "--apply")
    assert code == 1
    assert any("public.untouched" in finding["text"] for finding in printed["findings"])
    assert application.database.execute("SELECT count(*) FROM pg_publication") == [(1,)]


def test_drop_leaves_a_slot_in_use_and_its_publication(application: Application) -> None:
    application.setup("--apply")
    dsn = psycopg.conninfo.make_conninfo(application.database.dsn, replication="database")
    with contextlib.closing(psycopg.connect(dsn, autocommit=True)) as stream:
        stream.pgconn.exec_(
            f"START_REPLICATION SLOT {application.slot} LOGICAL 0/0"
            " (proto_version '1', publication_names 'invalidator')".encode()
        )
        code, printed = application.setup("--drop", "--apply")
        assert code == 1
        assert [finding["severity"] for finding in printed["findings"]][:2] == ["problem", "problem"]
        assert f"is in use by server process {stream.info.backend_pid}" in printed["findings"][0]["text"]
        assert application.database.execute("SELECT count(*) FROM pg_publication") == [(1,)]


def test_drop_says_how_identities_go_back(application: Application) -> None:
    application.write_rules({**POST, "invalidate": {"keys": ["post:{slug}"]}})
    application.setup("--apply")
    code, printed = application.setup("--drop", "--apply")
    assert code == 0
    fixes = [finding["fix"] for finding in printed["findings"]]
    assert fixes == ['ALTER TABLE "public"."posts" REPLICA IDENTITY DEFAULT;']
    application.database.execute(fixes[0])
    assert application.setup("--drop")[1]["findings"] == []


def test_drop_puts_an_identity_back_only_after_the_table_has_left_every_publication(application: Application) -> None:
    database = application.database
    database.execute("CREATE TABLE bare (slug text); CREATE TABLE loose (slug text)")
    rules = [{"name": name, "table": f"public.{name}", "invalidate": {"keys": [name]}} for name in ("bare", "loose")]
    application.write_rules(*rules)
    application.setup("--apply")
    database.execute("CREATE PUBLICATION theirs FOR TABLE bare")
    _, printed = application.setup("--drop")
    fixes = [finding["fix"] for finding in printed["findings"]]
    assert fixes == [
        'BEGIN; ALTER PUBLICATION "theirs" DROP TABLE "public"."bare";'
        ' ALTER TABLE "public"."bare" REPLICA IDENTITY DEFAULT; COMMIT;   -- after the steps above',
        'ALTER TABLE "public"."loose" REPLICA IDENTITY DEFAULT;   -- after the steps above',
    ]
    application.setup("--drop", "--apply")
    for fix in fixes:
        database.execute(fix)
    database.execute("DELETE FROM bare; DELETE FROM loose")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("--offline", "--drop"),
        ("--offline", "--diff"),
        ("--offline", "--ddl-hook"),
        ("--diff", "--apply"),
        ("--diff", "--drop"),
    ],
)
def test_options_that_contradict_each_other_are_refused(application: Application, first: str, second: str) -> None:
    from click import UsageError

    with pytest.raises(UsageError, match="exclude each other"):
        application.setup(first, second)
