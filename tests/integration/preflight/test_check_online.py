"""``check --online`` as a user runs it, against real servers."""

from __future__ import annotations

import json

from psycopg.conninfo import make_conninfo

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
    checked.source["dsn"] = "postgresql://nobody:hidden@127.0.0.1:1/app"
    checked.write(POST)
    ended = checked.run("check", "--online")
    assert ended.code == 69
    assert "database-unreachable" in ended.output
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
