"""``check --online`` as a user runs it, against real servers."""

from __future__ import annotations

import json

import redis
from psycopg import errors
from psycopg.conninfo import make_conninfo

from invalidator.demo.servers import KeyValueServer
from tests.support.checked import Project

SCHEMA = """
CREATE TABLE posts (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text);
CREATE TABLE notes (id int PRIMARY KEY);
"""
POST = """\
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{id}"], tags: ["post:{id}"]}
"""
SLUG = """\
  - name: post
    table: public.posts
    invalidate:
      keys: ["post:{slug|lower}"]
"""


def test_a_database_that_setup_made_has_no_error_and_each_server_has_its_line(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.write(POST)
    checked.set_up()

    ended = checked.run("check", "--online")

    assert ended.code == 0, ended.output
    assert "wal_level logical ✓" in ended.output
    assert f"slot {checked.database.name} ✓ (not active)" in ended.output
    assert "publication invalidator ✓ 1 table" in ended.output
    assert "UNLINK" in ended.output


def test_an_old_value_that_is_not_sent_is_shown_in_its_template_and_the_fix_mends_it(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.write(SLUG)
    checked.set_up()

    ended = checked.run("check", "--online")

    assert ended.code == 1, ended.output
    assert "rules.yaml:6:21: error[old-value-needed]" in ended.output
    assert "                     ^^^^" in ended.output
    (fix,) = [each["fix"] for each in checked.run("check", "--online", "--json").json()["findings"] if each["fix"]
              and each["code"] == "old-value-needed"]  # fmt: skip
    checked.database.execute(fix)
    assert checked.run("check", "--online").code == 0
    checked.database.execute("INSERT INTO posts VALUES (1, 'a'); UPDATE posts SET slug = 'b'; DELETE FROM posts")


def test_a_record_that_could_not_be_kept_comes_with_the_command_that_allows_it(
    checked: Project, own_redis: KeyValueServer
) -> None:
    """As after an upgrade: before, the record's key alone was enough."""
    checked.database.execute(SCHEMA)
    checked.write(POST)
    checked.set_up()
    checked.targets["redis"]["url"] = own_redis.url.replace("://", "://inv:pw@")
    checked.write(POST)
    with redis.Redis.from_url(own_redis.url) as admin:
        exact = f"~invalidator:{checked.database.name}"
        admin.execute_command("ACL", "SETUSER", "inv", "on", ">pw", "~tag:*", "~post:*", exact, "+@all")

        findings = checked.run("check", "--online", "--json").json()["findings"]
        (found,) = [each for each in findings if each["severity"] == "error"]
        assert found["code"] == "record-refused"
        admin.execute_command(*found["fix"].replace("NAME", "inv").split())

        assert checked.run("check", "--online").code == 0


def test_before_setup_everything_that_is_missing_comes_with_the_sql_that_makes_it(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.write(POST)
    ended = checked.run("check", "--online", "--json")
    assert ended.code == 1
    assert sorted(ended.codes()) == ["publication-missing", "slot-missing"]
    for each in ended.json()["findings"]:
        if each["severity"] == "error":
            checked.database.execute(each["fix"])
    assert checked.run("check", "--online").code == 0


def test_what_create_makes_at_the_start_is_no_error(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.source["create"] = True
    checked.write(POST)
    assert checked.run("check", "--online").code == 0


def test_a_table_that_was_taken_out_of_the_publication_and_a_misspelled_one(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.write(POST)
    checked.set_up()
    checked.write(
        POST + POST.replace("post", "note") + POST.replace("name: post", "name: typo").replace("posts", "psots")
    )
    ended = checked.run("check", "--online", "--json")
    assert sorted(ended.codes()) == ["not-published", "unknown-table"]
    fixes = {each["code"]: each for each in ended.json()["findings"]}
    assert fixes["unknown-table"]["help"] == "did you mean 'public.posts'?"
    checked.database.execute(fixes["not-published"]["fix"])
    assert checked.run("check", "--online", "--json").codes() == ["unknown-table"]


def test_servers_that_do_not_answer_are_told_apart_and_the_others_are_asked(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.write(POST)
    checked.set_up()
    checked.targets["away"] = {"type": "redis_bus", "url": "redis://127.0.0.1:1/0"}
    checked.write(POST)

    ended = checked.run("check", "--online")

    assert ended.code == 69
    assert "target-unreachable" in ended.output
    assert "invalidator.yaml:" in ended.output
    assert "wal_level logical ✓" in ended.output
    assert "away  ✗ does not answer" in ended.output
    checked.source["dsn"] = "postgresql://nobody:hidden@127.0.0.1:1/app"
    checked.write(POST)
    ended = checked.run("check", "--online")
    assert ended.code == 69
    assert "database-unreachable" in ended.output
    assert "see that it runs and can be reached from here" in ended.output
    assert "UNLINK" in ended.output
    assert "hidden" not in ended.output + ended.errors


def test_the_other_formats_hold_the_findings_of_the_servers_too(checked: Project) -> None:
    checked.database.execute(SCHEMA)
    checked.write(SLUG)
    checked.set_up()
    annotations = checked.run("check", "--online", "--format", "github").output
    assert "::error file=rules.yaml,line=6,col=21" in annotations
    sarif = json.loads(checked.run("check", "--online", "--format", "sarif").output)
    assert "old-value-needed" in {result["ruleId"] for result in sarif["runs"][0]["results"]}


def test_a_role_without_the_privilege_is_told_what_to_grant(checked: Project) -> None:
    name = f"weak_{checked.database.name}"
    checked.database.execute(SCHEMA)
    checked.write(POST)
    checked.set_up()
    checked.database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        checked.source["dsn"] = make_conninfo(checked.database.dsn, user=name, password="x")  # noqa: S106
        checked.write(POST)
        ended = checked.run("check", "--online", "--json")
        assert ended.codes() == ["no-replication-privilege"]
        (found,) = [each for each in ended.json()["findings"] if each["severity"] == "error"]
        assert found["fix"] == f'ALTER ROLE "{name}" REPLICATION;'
    finally:
        checked.database.execute(f"DROP ROLE {name}")


def test_what_breaks_the_applications_writes_is_found_and_its_fix_mends_them(checked: Project) -> None:
    """A list beside FULL, a filter outside of the identity, and tables that no rule is about."""
    checked.database.execute(SCHEMA + "CREATE TABLE log (note text); CREATE TABLE wide (id int PRIMARY KEY, note text)")
    checked.write(POST)
    checked.set_up()
    tables = ("posts", "notes", "log", "wide")
    checked.database.execute(
        "ALTER TABLE posts REPLICA IDENTITY FULL;"
        "ALTER PUBLICATION invalidator ADD TABLE log, wide WHERE (note = 'a'), notes WHERE (id > 0);"
        "ALTER TABLE wide REPLICA IDENTITY DEFAULT"
    )
    assert broken(checked, *tables) == {"posts", "log", "wide"}

    findings = checked.run("check", "--online", "--json").json()["findings"]

    refusing = [each for each in findings if each["code"] in {"no-identity", "identity-not-covered"}]
    assert len(refusing) == 3, refusing
    for each in refusing:
        checked.database.execute(each["fix"])
    assert broken(checked, *tables) == set()
    assert not {"no-identity", "identity-not-covered"} & set(checked.run("check", "--online", "--json").codes())


def broken(checked: Project, *tables: str) -> set[str]:
    """The tables of which Postgres refuses a DELETE."""
    found = set()
    for table in tables:
        try:
            checked.database.execute(f"DELETE FROM {table}")  # noqa: S608  (names of this file)
        except (errors.ObjectNotInPrerequisiteState, errors.InvalidColumnReference):
            found.add(table)
    return found


def test_the_filter_that_setup_made_passes_even_the_strict_check_until_the_rules_need_more(checked: Project) -> None:
    checked.database.execute("CREATE TABLE orders (tenant_id int, id int, PRIMARY KEY (tenant_id, id), note text)")
    rules = """\
  - name: order
    table: public.orders
    when: tenant_id = 5
    invalidate: {tags: [orders]}
"""
    checked.write(rules)
    checked.run("setup", "--apply")
    assert checked.database.execute("SELECT count(*) FROM pg_publication_rel WHERE prqual IS NOT NULL") == [(1,)]
    ended = checked.run("check", "--online", "--json")
    assert [each for each in ended.json()["findings"] if each["code"] == "row-filter"] == []
    checked.run("snapshot-schema", "-o", "schema.json")
    assert "row-filter" not in checked.run("check", "--schema", "schema.json", "--json").output

    checked.write(rules.replace("    when: tenant_id = 5\n", ""))

    assert "row-filter" in checked.run("check", "--schema", "schema.json", "--json").codes()
    ended = checked.run("check", "--online", "--json")
    (fix,) = [each["fix"] for each in ended.json()["findings"] if each["code"] == "row-filter"]
    checked.database.execute(fix)
    assert "row-filter" not in checked.run("check", "--online", "--json").output
    ((attributes, condition),) = checked.database.execute("SELECT prattrs, prqual FROM pg_publication_rel")
    assert (attributes, condition) == ("1 2", None)
