"""The SQL of rules, explained by a real Postgres."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from invalidator.preflight.finding import Finding
from invalidator.preflight.lookups import examine_lookups
from invalidator.preflight.needs import needs
from invalidator.rules import document
from tests.support.checked import Project

SCHEMA = """
CREATE TABLE posts (id int PRIMARY KEY, slug text);
CREATE TABLE authors (id int PRIMARY KEY, name text);
CREATE TABLE post_authors (post_id int, author_id int, PRIMARY KEY (post_id, author_id));
"""


def rule(sql: str, template: str = "post:{post.slug}") -> str:
    lines = "\n".join(f"          {line}" for line in sql.splitlines())
    return (
        "  - name: author\n    table: public.authors\n    events: [insert, update]\n"
        f"    lookup:\n      post:\n        sql: |-\n{lines}\n"
        f"    invalidate: {{keys: ['{template}']}}\n    coarse: {{keys: ['post:*']}}\n"
    )


GOOD = rule("SELECT p.slug FROM posts p\nJOIN post_authors a ON a.post_id = p.id\nWHERE a.author_id = {id}")


@pytest.fixture
def project(checked: Project) -> Project:
    checked.database.execute(SCHEMA)
    checked.write(GOOD)
    checked.set_up()
    return checked


def test_a_lookup_that_postgres_understands_has_no_finding(project: Project) -> None:
    assert project.run("check", "--online", "--json").codes() == []


def test_what_postgres_refuses_is_shown_at_its_line_with_the_hint(project: Project) -> None:
    project.write(rule("SELECT p.slug FROM posts p\nWHERE p.idd = {id}"))
    ended = project.run("check", "--online", "--json")
    assert ended.codes() == ["lookup-invalid"]
    (found,) = [each for each in ended.json()["findings"] if each["code"] == "lookup-invalid"]
    assert found["line"] == 10
    assert found["column"] == 17
    assert "column p.idd does not exist" in found["message"]
    assert "p.id" in (found["help"] or "")


def test_a_result_that_a_template_names_must_be_given(project: Project) -> None:
    project.write(GOOD.replace("{post.slug}", "{post.slgu}"))
    ended = project.run("check", "--online", "--json")
    assert ended.codes() == ["unknown-lookup-column"]


def test_what_postgres_computes_while_it_plans_cannot_write(project: Project) -> None:
    project.database.execute(
        "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS "
        "'INSERT INTO posts VALUES (77) ON CONFLICT DO NOTHING; SELECT 1';"
        "CREATE FUNCTION sly() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN writes(); END'"
    )
    project.write(GOOD.replace("= {id}", "= {id} AND sly() = 1"))
    ended = project.run("check", "--online", "--json")
    assert ended.codes() == ["lookup-invalid"]
    (found,) = [each for each in ended.json()["findings"] if each["code"] == "lookup-invalid"]
    assert "read-only transaction" in found["message"]


def test_a_bound_column_that_the_table_lacks_is_found(project: Project) -> None:
    project.write(GOOD.replace("{id}", "{ident}"))
    assert "unknown-column" in project.run("check", "--online", "--json").codes()


def test_a_scan_of_a_large_table_comes_with_the_index_that_it_wants(project: Project) -> None:
    project.database.execute("INSERT INTO post_authors SELECT g, g % 100 FROM generate_series(1, 20000) g")
    project.database.execute("INSERT INTO posts SELECT g, g::text FROM generate_series(1, 20000) g")
    project.database.execute("VACUUM ANALYZE")  # as autovacuum does sooner or later
    ended = project.run("check", "--online", "--json")
    assert "lookup-not-indexed" in ended.codes("warning")
    (found,) = [each for each in ended.json()["findings"] if each["code"] == "lookup-not-indexed"]
    assert found["message"] == "lookup 'post' scans public.post_authors (20.0 k rows)"
    assert found["fix"] == 'CREATE INDEX CONCURRENTLY ON "public"."post_authors" (author_id);'
    project.database.execute(found["fix"])
    assert "lookup-not-indexed" not in project.run("check", "--online", "--json").codes("warning")


def test_a_table_that_the_role_may_not_read_comes_with_the_grant(project: Project) -> None:
    name = f"weak_{project.database.name}"
    project.database.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'x'")
    try:
        project.database.execute(f"GRANT SELECT ON posts TO {name}")
        project.source["dsn"] = make_conninfo(project.database.dsn, user=name, password="x")  # noqa: S106
        project.write(GOOD)
        ended = project.run("check", "--online", "--json")
        assert ended.codes() == ["no-select-privilege"]
        (found,) = [each for each in ended.json()["findings"] if each["severity"] == "error"]
        project.database.execute(found["fix"])
        assert project.run("check", "--online", "--json").codes() == []
    finally:
        project.database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_policy_that_may_hide_rows_comes_with_one_that_shows_them(checked: Project) -> None:
    database, role = checked.database, f"weak_{checked.database.name}"
    database.execute(SCHEMA)
    checked.write(GOOD)
    loaded = document.load_with_warnings([checked.folder / "rules.yaml"])
    facts = await checked.facts(needs(loaded.ruleset.rules))
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON posts, post_authors TO {role}")
    dsn = make_conninfo(database.dsn, user=role, password="x")  # noqa: S106

    async def found() -> list[Finding]:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            return await examine_lookups(connection, loaded.ruleset, loaded.sources, facts)

    try:
        assert await found() == []
        database.execute("ALTER TABLE posts ENABLE ROW LEVEL SECURITY; ALTER TABLE authors ENABLE ROW LEVEL SECURITY")
        database.execute("CREATE POLICY drafts ON posts USING (slug <> 'draft')")
        (one,) = await found()
        assert (one.code, one.diagnostic.line) == ("lookup-filtered", 7)
        assert one.diagnostic.message == 'row-level security decides what lookup \'post\' finds in "public"."posts"'
        database.execute(one.diagnostic.fix or "")
        assert await found() == []
        database.execute("CREATE POLICY no_drafts ON posts AS RESTRICTIVE USING (slug <> 'draft')")
        assert [each.code for each in await found()] == ["lookup-filtered"]
        database.execute(f"ALTER ROLE {role} BYPASSRLS")
        assert await found() == []
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_lookup_is_not_run(project: Project) -> None:
    project.write(rule("SELECT p.slug FROM posts p WHERE p.id = {id} / (SELECT 0)"))
    assert project.run("check", "--online", "--json").codes() == []
