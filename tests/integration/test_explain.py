"""``explain --where`` and lookups that really run: against a real database, and nothing is changed there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

from invalidator.cli._exits import Exit
from invalidator.cli.explain import command as explain_command
from invalidator.cli.test import command as run_tests
from invalidator.errors import ConfigError
from invalidator.model import Operation
from invalidator.postgres import catalog
from invalidator.postgres.connection import connect
from invalidator.postgres.sample import rows_where
from invalidator.rules.rows import JsonRow, read_message, row_message
from tests.support.postgres import Database

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug, title]
    invalidate: {keys: ["post:{slug}", "post:id:{id}", "hot:{hot}"]}
  - name: item
    table: public."Order items"
    lookup: {order: {sql: "SELECT user_id FROM orders WHERE id = {order_id}"}}
    invalidate: {keys: ["user:{order.user_id}:orders"], tags: ["order:{order_id}"]}
tests:
  - name: an item belongs to a user
    table: public."Order items"
    insert: {id: 1, order_id: 10}
    expect: {keys: ["user:7:orders"], tags: ["order:10"]}
"""


@pytest.fixture(autouse=True)
def _project(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("CREATE TABLE posts (id int PRIMARY KEY, slug text, title text, hot bool, size int)")
    database.execute("INSERT INTO posts SELECT n, 's' || n, NULL, true, 1 FROM generate_series(1, 30) n")
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, user_id int)")
    database.execute('CREATE TABLE "Order items" (id int PRIMARY KEY, order_id int)')
    database.execute("INSERT INTO orders VALUES (10, 7)")
    database.execute('INSERT INTO "Order items" VALUES (1, 10)')
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    settings = {"source": {"dsn": database.dsn}, "rules": ["rules.yaml"]}
    settings["targets"] = {"edge": {"type": "varnish", "url": "http://varnish:6081"}}
    (tmp_path / "settings.yaml").write_text(json.dumps(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVALIDATOR_SETTINGS", "settings.yaml")


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(explain_command, arguments, standalone_mode=False)


def document(*arguments: str) -> Any:
    result = explain(*arguments, "--json")
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def test_a_row_of_the_database_is_explained_with_the_identity_of_its_table() -> None:
    made = document("public.posts", "--where", "id = 3")
    assert made["event"] == "delete"
    [rule] = made["rules"]
    assert rule["widened"] == ["old_unavailable"]  # of a deleted row Postgres sends the primary key alone
    assert "post:id:3" in rule["invalidation"]["keys"]
    assert rule["missing_columns"] == rule["not_given"] == []
    [rule] = document("public.posts", "--where", "id = 3", "--event", "insert")["rules"]
    assert rule["invalidation"]["keys"] == ["hot:t", "post:id:3", "post:s3"]


def test_an_update_is_pretended_by_the_columns_that_it_would_change(database: Database) -> None:
    database.execute("ALTER TABLE posts REPLICA IDENTITY FULL")
    [rule] = document("public.posts", '{"slug": "new"}', "--where", "id = 3")["rules"]
    assert rule["invalidation"]["keys"] == ["hot:t", "post:id:3", "post:new", "post:s3"]
    [rule] = document("public.posts", '{"size": 2}', "--where", "id = 3")["rules"]
    assert rule["outcome"] == "unchanged"


def test_at_most_20_rows_are_explained() -> None:
    made = document("public.posts", "--where", "true")
    assert len(made["changes"]) == 20
    assert "more than 20 rows match" in explain("public.posts", "--where", "true").stdout
    assert explain("public.posts", "--where", "false").return_value == Exit.PROBLEMS


@pytest.mark.parametrize(
    ("table", "where", "said"),
    [
        ("public.posts", "idd = 3", 'column "idd" does not exist'),
        ("public.posts", "id = 'x'", "invalid input syntax"),
        ("public.posts", "true); DELETE FROM posts; --", "syntax error|multiple commands"),
        ("public.posts", "pg_sleep(60) IS NULL", "takes longer than"),
        ("public.post", "true", "write public.posts"),
    ],
)
def test_a_condition_that_cannot_be_answered_is_refused(
    table: str, where: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invalidator.postgres.sample.STATEMENT_TIMEOUT_SECONDS", 1)
    with pytest.raises(ConfigError, match=said):
        raise explain(table, "--where", where).exception or AssertionError


def test_the_daemons_role_may_not_read_rows_and_another_may(database: Database) -> None:
    role = f"poor_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    settings = json.loads(Path("settings.yaml").read_text(encoding="utf-8"))
    settings["source"]["dsn"] = make_conninfo(database.dsn, user=role, password="x")  # noqa: S106
    Path("settings.yaml").write_text(json.dumps(settings), encoding="utf-8")
    try:
        refused = str(explain("public.posts", "--where", "id = 3").exception)
        assert "permission denied for table posts" in refused
        assert "add --dsn DSN" in refused
        assert document("public.posts", "--where", "id = 3", "--dsn", database.dsn)["table"] == "public.posts"
    finally:
        database.execute(f"DROP ROLE {role}")


def test_a_condition_cannot_change_the_database(database: Database) -> None:
    database.execute(
        "CREATE FUNCTION remove() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN DELETE FROM posts; RETURN true; END $$"
    )
    result = explain("public.posts", "--where", "remove()")
    assert "read-only transaction" in str(result.exception)
    assert database.execute("SELECT count(*) FROM posts") == [(30,)]


def test_a_partition_is_explained_by_the_rules_of_its_root(database: Database) -> None:
    database.execute("ALTER TABLE posts RENAME TO old_posts")
    database.execute("CREATE TABLE posts (id int, slug text, title text, hot bool) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE posts_1 PARTITION OF posts FOR VALUES FROM (0) TO (100)")
    database.execute("INSERT INTO posts VALUES (1, 's', 't', false)")
    made = document("public.posts_1", "--where", "true", "--event", "insert")
    assert made["table"] == "public.posts"
    assert made["rules"][0]["invalidation"]["keys"] == ["hot:f", "post:id:1", "post:s"]


def test_lookups_run_online() -> None:
    question = ('public."Order items"', "--where", "id = 1", "--event", "insert")
    [rule] = document(*question)["rules"]
    assert rule["lookups"][0]["answered"] is False
    [rule] = document(*question, "--online")["rules"]
    assert rule["invalidation"] == {"keys": ["user:7:orders"], "tags": ["order:10"]}


def test_a_test_without_rows_for_its_lookup_is_skipped_or_asks_the_database() -> None:
    runner = CliRunner()
    assert "1 skipped" in runner.invoke(run_tests, ["rules.yaml"], standalone_mode=False).stdout
    online = runner.invoke(run_tests, ["rules.yaml", "--online"], standalone_mode=False)
    assert (online.return_value, online.stdout) == (Exit.FINE, "1 test in 1 file: 1 passed\n")


def test_a_lookup_that_fails_says_what_postgres_says(database: Database) -> None:
    database.execute("ALTER TABLE orders RENAME COLUMN user_id TO owner")
    result = CliRunner().invoke(run_tests, ["rules.yaml", "--online"], standalone_mode=False)
    assert result.return_value == Exit.PROBLEMS
    assert 'column "user_id" does not exist' in result.stdout


def test_values_are_read_as_the_stream_sends_them(database: Database) -> None:
    database.execute(
        "CREATE TABLE odd (id int PRIMARY KEY, flag bool, pad char(4), at timestamptz, gone text, twice int "
        "GENERATED ALWAYS AS (id * 2) STORED)"
    )
    database.execute("INSERT INTO odd VALUES (1, true, 'a', '2026-01-02 03:04:05+02', NULL)")

    async def read() -> list[JsonRow]:
        async with await connect(database.dsn, application_name="test") as connection:
            [table] = await catalog.tables(connection, [("public", "odd")])
            return list(await rows_where(connection, table, "id = 1", limit=5))

    [row] = asyncio.run(read())
    assert row == {"id": "1", "flag": "t", "pad": "a   ", "at": "2026-01-02 01:04:05+00", "gone": None}
    from invalidator.rules.rows import relation_of

    relation = relation_of("public", "odd", [row])
    assert read_message(relation, row_message(relation, Operation.INSERT, None, row))[2] == row
