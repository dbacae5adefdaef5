"""After ``setup --apply`` the application writes as before, and a second run finds nothing to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from invalidator.cli import verbs
from invalidator.cli._exits import Exit
from invalidator.errors import ConfigError, SourceDisconnected
from invalidator.postgres import provision
from invalidator.postgres.connection import connect
from invalidator.postgres.provision import Facts, Need, Plan, Purpose, Request, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Database

ALL = frozenset({"id", "slug"})


def need(
    table: str,
    columns: frozenset[str] = ALL,
    old: frozenset[str] = frozenset({"id"}),
    compared: frozenset[str] = frozenset(),
) -> Need:
    schema, _, name = table.partition(".")
    return Need(f"rule-{name}", "rules.yaml:3", schema, name, columns, old, compared)


def request_for(database: Database, *, may_alter_tables: bool = True) -> Request:
    return Request(f"s_{database.name}", "invalidator", role=None, may_alter_tables=may_alter_tables)


async def planned(database: Database, *needs: Need, request: Request | None = None) -> tuple[Facts, Plan]:
    request = request or request_for(database)
    async with await connect(database.dsn, application_name="test") as connection:
        facts = await provision.facts(connection, needs, request)
        return facts, provision.plan(needs, facts, request)


async def applied(database: Database, *needs: Need, request: Request | None = None) -> Plan:
    """Apply the plan; the result is what a second look would still do."""
    request = request or request_for(database)
    async with await connect(database.dsn, application_name="test") as connection:
        facts = await provision.facts(connection, needs, request)
        await provision.apply(connection, provision.plan(needs, facts, request))
        facts = await provision.facts(connection, needs, request)
        return provision.plan(needs, facts, request)


def write(database: Database, table: str) -> None:
    """What an application does; each statement fails if the publication does not fit the replica identity."""
    for statement in (
        "INSERT INTO {} (id, slug, body) VALUES (1, 'a', 'x'), (2, 'b', 'y')",
        "UPDATE {} SET slug = 'c' WHERE id = 1",
        "UPDATE {} SET body = 'z' WHERE id = 1",
        "UPDATE {} SET id = 3 WHERE id = 1",
        "DELETE FROM {} WHERE id = 2",
        "TRUNCATE {}",
    ):
        database.execute(statement.format(table))


def listed(database: Database, table: str) -> set[str] | None:
    """The columns that the publication sends of the table; None: the table is not published."""
    rows = database.execute(
        """
        SELECT to_jsonb(p) -> 'attnames',
               ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = named AND attnum > 0 AND NOT attisdropped)
          FROM pg_publication_tables p, to_regclass(%s) AS named
         WHERE pubname = 'invalidator' AND format('%%I.%%I', schemaname, tablename)::regclass = named
        """,
        table,
    )
    if not rows:
        return None
    names, every_column = rows[0]
    return set(every_column if names is None else names)  # Postgres 14 knows no lists


def identity(database: Database, table: str) -> str:
    rows = database.execute("SELECT relreplident::text FROM pg_class WHERE oid = %s::regclass", table)
    return str(rows[0][0])


def has_lists(database: Database) -> bool:
    return int(database.execute("SHOW server_version_num")[0][0]) >= 150000


TABLES = {
    "pk": "CREATE TABLE t (id int PRIMARY KEY, slug text, body text)",
    "no_pk": "CREATE TABLE t (id int, slug text, body text)",
    "unique_index_identity": """
        CREATE TABLE t (id int NOT NULL, slug text, body text);
        CREATE UNIQUE INDEX t_id ON t (id);
        ALTER TABLE t REPLICA IDENTITY USING INDEX t_id""",
    "unique_index_unused": """
        CREATE TABLE t (id int NOT NULL, slug text, body text);
        CREATE UNIQUE INDEX t_id ON t (id)""",
    "full": "CREATE TABLE t (id int PRIMARY KEY, slug text, body text); ALTER TABLE t REPLICA IDENTITY FULL",
    "nothing": "CREATE TABLE t (id int PRIMARY KEY, slug text, body text); ALTER TABLE t REPLICA IDENTITY NOTHING",
    "deferrable_pk": "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, slug text, body text)",
    "wide_pk": "CREATE TABLE t (id int, slug text, body text, PRIMARY KEY (slug, id))",
    "partial_index": """
        CREATE TABLE t (id int NOT NULL, slug text, body text);
        CREATE UNIQUE INDEX t_id ON t (id) WHERE id > 0""",
    "stored_generated": """
        CREATE TABLE t (id int PRIMARY KEY, slug text, body text, low text GENERATED ALWAYS AS (lower(slug)) STORED);
        ALTER TABLE t REPLICA IDENTITY FULL""",
    "generated_identity": """
        CREATE TABLE t (id int NOT NULL, slug text, body text,
                        twice int NOT NULL GENERATED ALWAYS AS (id * 2) STORED);
        CREATE UNIQUE INDEX t_twice ON t (twice);
        ALTER TABLE t REPLICA IDENTITY USING INDEX t_twice""",
    "partitioned": """
        CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (2);
        CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (2) TO (9)""",
    "partitioned_in_two_levels": """
        CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);
        CREATE TABLE t_1_1 PARTITION OF t_1 FOR VALUES FROM (0) TO (9)""",
    "partitioned_without_key": """
        CREATE TABLE t (id int, slug text, body text) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9);
        ALTER TABLE t_1 REPLICA IDENTITY FULL""",
    "partition_with_nothing": """
        CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9);
        ALTER TABLE t_1 REPLICA IDENTITY NOTHING""",
    "inherited": """
        CREATE TABLE t (id int PRIMARY KEY, slug text, body text);
        CREATE TABLE t_child (more int) INHERITS (t)""",
    "hostile_names": """
        CREATE TABLE "t""; DROP TABLE x; --" (id int PRIMARY KEY, slug text, body text);
        CREATE VIEW t AS SELECT * FROM "t""; DROP TABLE x; --" """,
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("old", [frozenset({"id"}), frozenset({"id", "slug"})], ids=["old-id", "old-slug"])
async def test_after_setup_the_application_writes_every_kind_of_table(
    database: Database, kind: str, old: frozenset[str]
) -> None:
    database.execute(TABLES[kind])
    wanted = need("public.*", old=old) if kind == "hostile_names" else need("public.t", old=old)
    rest = await applied(database, wanted)
    write(database, "t" if kind != "hostile_names" else '"t""; DROP TABLE x; --"')
    assert rest.to_run == ()


@pytest.mark.parametrize("kind", TABLES)
async def test_with_identities_kept_the_application_still_writes_every_kind_of_table(
    database: Database, kind: str
) -> None:
    database.execute(TABLES[kind])
    before = database.execute("SELECT oid, relreplident FROM pg_class WHERE relname ~ '^t' ORDER BY oid")
    request = request_for(database, may_alter_tables=False)
    rest = await applied(database, need("public.*", old=ALL), request=request)
    write(database, "t" if kind != "hostile_names" else '"t""; DROP TABLE x; --"')
    assert rest.to_run == ()
    assert database.execute("SELECT oid, relreplident FROM pg_class WHERE relname ~ '^t' ORDER BY oid") == before


@pytest.mark.parametrize(
    ("kind", "publication"),
    [
        ("no_pk", "FOR TABLE t"),
        ("nothing", "FOR TABLE t"),
        ("deferrable_pk", "FOR TABLE t"),
        ("partitioned_without_key", "FOR ALL TABLES"),
        ("full", "FOR TABLE t (id, slug)"),
        ("wide_pk", "FOR TABLE t (id)"),
    ],
)
def test_the_writes_of_these_tests_do_fail_on_a_careless_publication(
    database: Database, kind: str, publication: str
) -> None:
    if "(" in publication and not has_lists(database):
        pytest.skip("column lists came with Postgres 15")
    database.execute(TABLES[kind])
    database.execute(f"CREATE PUBLICATION careless {publication}")
    if kind == "partitioned_without_key":
        database.execute("CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (9) TO (99)")
        database.execute("INSERT INTO t VALUES (10, 'a', 'b')")
    with pytest.raises((psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.InvalidColumnReference)):
        database.execute("UPDATE t SET slug = 'c'") if kind == "partitioned_without_key" else write(database, "t")


async def test_the_column_list_is_what_rules_read_and_the_identity(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text, tenant int)")
    await applied(database, need("public.t", frozenset({"slug"}), frozenset()))
    expected = {"id", "slug"} if has_lists(database) else {"id", "slug", "body", "tenant"}
    assert listed(database, "t") == expected


async def test_old_values_outside_the_identity_ask_for_full_and_no_list(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    rest = await applied(database, need("public.t", ALL, ALL))
    assert identity(database, "t") == "f"
    assert listed(database, "t") == {"id", "slug", "body"}
    assert rest.findings == ()


async def test_a_unique_index_over_the_columns_is_preferred_to_full(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text)")
    await applied(database, need("public.t", frozenset({"slug"}), frozenset({"slug"})))
    assert identity(database, "t") == "i"
    write(database, "t")


async def test_a_rule_that_comes_later_widens_the_list_in_one_transaction(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text, tenant int)")
    await applied(database, need("public.t", frozenset({"slug"}), frozenset()))
    _, plan = await planned(database, need("public.t", frozenset({"slug", "tenant"}), frozenset({"slug"})))
    if has_lists(database):
        (step,) = plan.to_run
        assert [text.split()[0:2] for text in step.texts] == [
            ["ALTER", "PUBLICATION"],
            ["ALTER", "TABLE"],
            ["ALTER", "PUBLICATION"],
        ]
    rest = await applied(database, need("public.t", frozenset({"slug", "tenant"}), frozenset({"slug"})))
    assert rest.to_run == ()
    assert listed(database, "t") == {"id", "slug", "body", "tenant"}
    write(database, "t")


async def test_another_publications_column_list_keeps_the_identity_as_it_is(database: Database) -> None:
    if not has_lists(database):
        pytest.skip("column lists came with Postgres 15")
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    database.execute("CREATE PUBLICATION theirs FOR TABLE t (id, slug)")
    rest = await applied(database, need("public.t", ALL, ALL))
    write(database, "t")
    assert identity(database, "t") == "d"
    assert any("theirs" in finding.text for finding in rest.problems)


async def test_another_publications_row_filter_keeps_the_identity_as_it_is(database: Database) -> None:
    if not has_lists(database):
        pytest.skip("row filters came with Postgres 15")
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text)")
    database.execute("CREATE PUBLICATION theirs FOR TABLE t WHERE (id > 0)")
    await applied(database, need("public.t", frozenset({"slug"}), frozenset({"slug"})))
    write(database, "t")


async def test_full_is_not_chosen_where_virtual_generated_columns_forbid_it(database: Database) -> None:
    if int(database.execute("SHOW server_version_num")[0][0]) < 180000:
        pytest.skip("virtual generated columns came with Postgres 18")
    database.execute(
        "CREATE TABLE t (id int, slug text, body text, low text GENERATED ALWAYS AS (slug || 'x') VIRTUAL)"
    )
    rest = await applied(database, need("public.t", ALL, ALL))
    write(database, "t")
    assert listed(database, "t") is None
    assert any("virtual" in finding.text for finding in rest.problems)


async def test_stored_generated_columns_of_other_publications_forbid_full(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text, low text GENERATED ALWAYS AS (lower(slug)) STORED)"
    )
    database.execute("CREATE PUBLICATION theirs FOR ALL TABLES")
    await applied(database, need("public.t", ALL, ALL))
    write(database, "t")


async def test_tables_that_inherit_can_be_written_too(database: Database) -> None:
    database.execute(TABLES["inherited"])
    database.execute("CREATE PUBLICATION careless FOR TABLE t")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        write(database, "t_child")
    database.execute("DROP PUBLICATION careless; DELETE FROM t")
    for columns in (ALL, ALL | {"body"}):
        rest = await applied(database, need("public.t", columns))
        assert rest.to_run == ()
        assert any("inherit from public.t" in finding.text for finding in rest.findings)
        write(database, "t_child")
        database.execute("INSERT INTO t_child (id, slug) VALUES (5, 'x')")
        database.execute("UPDATE t SET slug = 'y'")
        database.execute("DELETE FROM t")
    assert listed(database, "t_child") is None


async def test_a_list_on_a_partition_of_ours_keeps_its_identity(database: Database) -> None:
    if not has_lists(database):
        pytest.skip("column lists came with Postgres 15")
    database.execute(TABLES["partitioned"])
    database.execute("CREATE PUBLICATION invalidator FOR TABLE t_1 (id, slug), t_2")
    await applied(database, need("public.t", ALL, ALL))
    write(database, "t")


async def test_future_partitions_can_be_written_too(database: Database) -> None:
    database.execute(TABLES["partitioned"])
    await applied(database, need("public.t", ALL, ALL))
    database.execute("CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (9) TO (99)")
    database.execute("INSERT INTO t VALUES (10, 'a', 'b')")
    database.execute("UPDATE t SET slug = 'c' WHERE id = 10")
    database.execute("DELETE FROM t WHERE id = 10")


async def test_globs_take_in_all_tables_but_views_and_unlogged_ones(database: Database) -> None:
    database.execute("CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2; CREATE SCHEMA other")
    for schema in ("tenant_1", "tenant_2", "other"):
        database.execute(f"CREATE TABLE {schema}.users (id int PRIMARY KEY, slug text, body text)")
    database.execute("CREATE VIEW tenant_1.users_view AS SELECT 1 AS id, '' AS slug")
    database.execute("CREATE UNLOGGED TABLE tenant_1.users_cache (id int PRIMARY KEY, slug text)")
    rest = await applied(database, need("tenant_*.users*"))
    assert listed(database, "tenant_1.users") is not None
    assert listed(database, "tenant_2.users") is not None
    assert listed(database, "other.users") is None
    assert listed(database, "tenant_1.users_cache") is None
    assert rest.findings == ()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("CREATE VIEW t AS SELECT 1 AS id, '' AS slug", "is a view"),
        ("CREATE UNLOGGED TABLE t (id int PRIMARY KEY, slug text)", "is unlogged"),
        ("CREATE TABLE t (id int PRIMARY KEY)", "has no column 'slug'"),
        ("CREATE TABLE other (id int)", "no table matches public.t"),
    ],
)
async def test_what_a_rule_cannot_see_is_a_problem(database: Database, made: str, words: str) -> None:
    database.execute(made)
    _, plan = await planned(database, need("public.t"))
    assert any(words in finding.text for finding in plan.problems)


async def test_a_rule_for_a_partition_is_a_problem(database: Database) -> None:
    database.execute(TABLES["partitioned"])
    _, plan = await planned(database, need("public.t_1"))
    assert any("is a partition" in finding.text for finding in plan.problems)


async def test_changed_without_old_values_is_a_note(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    _, plan = await planned(database, need("public.t", compared=frozenset({"body"})))
    (finding,) = plan.findings
    assert not finding.is_problem
    assert "fires for every UPDATE" in finding.text


@pytest.mark.parametrize("kind", ["plain", "listed", "partitioned"])
async def test_the_way_out_of_changed_without_old_values_breaks_no_writer(database: Database, kind: str) -> None:
    columns = "(id int PRIMARY KEY, slug text, body text)"
    made = {
        "plain": f"CREATE TABLE t {columns}",
        "listed": f"CREATE TABLE t {columns}; CREATE PUBLICATION invalidator FOR TABLE t (id, slug)",
        "partitioned": f"CREATE TABLE t {columns} PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (3); CREATE TABLE t_2 PARTITION OF t DEFAULT",
    }
    database.execute(made[kind])
    rest = await applied(database, need("public.t", compared=frozenset({"slug"})))
    (note,) = rest.findings
    await run_in_psql(database, note.fix or "")
    write(database, "t")
    rest = await applied(database, need("public.t", compared=frozenset({"slug"})))
    assert (rest.to_run, rest.findings) == ((), ())


async def test_the_way_out_of_keep_identity_breaks_no_writer(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    database.execute("CREATE TABLE u (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text)")
    needs = [need("public.t", ALL, frozenset({"slug"})), need("public.u", ALL, frozenset({"slug"}))]
    rest = await applied(database, *needs, request=request_for(database, may_alter_tables=False))
    assert len(rest.problems) == 2
    for problem in rest.problems:
        await run_in_psql(database, problem.fix or "")
        write(database, "t")
        write(database, "u")
    assert (identity(database, "t"), identity(database, "u")) == ("f", "i")
    assert (await applied(database, *needs)).problems == ()


async def test_the_way_back_from_an_identity_breaks_no_writer(database: Database) -> None:
    database.execute("CREATE TABLE full_one (id int PRIMARY KEY, slug text, body text)")
    database.execute("CREATE TABLE indexed (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text)")
    database.execute("CREATE TABLE bare (id int, slug text, body text)")
    names = ["full_one", "indexed", "bare"]
    needs = [need(f"public.{name}", frozenset({"slug"}), frozenset({"slug"})) for name in names]
    _, plan = await planned(database, *needs)
    await applied(database, *needs)
    notes = [step.note for step in plan.to_run if step.purpose is Purpose.IDENTITY]
    assert len(notes) == 3
    for note in notes:
        await run_in_psql(database, re.split(r"(?:undo|first|fail): ", note)[-1])
        for name in names:
            write(database, name)
    assert [identity(database, name) for name in names] == ["d", "d", "d"]


def test_the_way_out_that_offline_prints_reaches_tables_with_a_list_and_partitions(database: Database) -> None:
    columns = "(id int PRIMARY KEY, slug text, body text)"
    database.execute(f"CREATE TABLE plain {columns}; CREATE TABLE parted {columns} PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE parted_1 PARTITION OF parted DEFAULT")
    listed_columns = " (id, slug)" if has_lists(database) else ""
    database.execute(f"CREATE PUBLICATION invalidator FOR TABLE plain{listed_columns}, parted")
    needs = [need("public.plain", ALL, ALL), need("public.parted", ALL, ALL)]
    fixes = [finding.fix or "" for finding in provision.offline_plan(needs, request_for(database)).findings]
    assert len(fixes) == 2
    transaction, _, _ = fixes[0].partition("\n")
    database.execute(transaction)
    for (statement,) in database.execute(fixes[1].partition("\n")[2].partition(";   --")[0]):
        database.execute(statement)
    assert (identity(database, "plain"), identity(database, "parted_1")) == ("f", "f")
    write(database, "plain")
    write(database, "parted")


async def run_in_psql(database: Database, text: str) -> None:
    """Each statement by itself, as psql does: a transaction block is what BEGIN and COMMIT make it."""
    statements = (line.partition("   --")[0] for line in text.splitlines())
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as connection:
        for statement in (each.strip() for line in statements for each in line.split(";")):
            if statement:
                await connection.execute(statement)


async def test_a_slot_of_another_plugin_is_a_problem(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text)")
    request = request_for(database)
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", request.slot)
    _, plan = await planned(database, need("public.t"))
    assert any("test_decoding" in finding.text for finding in plan.problems)
    assert Purpose.SLOT not in {step.purpose for step in plan.steps}


async def test_a_publication_that_sends_no_updates_is_a_problem_and_left_alone(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    database.execute("CREATE TABLE keyless (id int, slug text, body text)")
    database.execute("CREATE PUBLICATION invalidator FOR TABLE keyless WITH (publish = 'insert')")
    rest = await applied(database, need("public.t"))
    write(database, "t")
    write(database, "keyless")
    assert any("does not publish delete, truncate, update" in finding.text for finding in rest.problems)


async def test_a_locked_table_is_an_explained_error_and_nothing_waits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invalidator.postgres.provision.run.LOCK_TIMEOUT", "50ms")
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    with database.connect() as holder:
        holder.execute("SELECT * FROM t")
        with pytest.raises(ConfigError, match="in use for longer"):
            await applied(database, need("public.t", ALL, ALL))
    assert (await applied(database, need("public.t", ALL, ALL))).to_run == ()


def test_an_apply_that_fails_midway_tells_what_stands_and_which_grant_is_missing(
    database: Database, project: Path
) -> None:
    """The table's owner may alter it, and may make no publication in somebody else's database."""
    database.execute("CREATE TABLE posts (id int PRIMARY KEY, slug text, body text)")
    role = f"owner_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; ALTER TABLE posts OWNER TO {role}")
    owner = psycopg.conninfo.make_conninfo(database.dsn, user=role, password="x")  # noqa: S106
    options = ["-c", str(project), "--role", role, "--apply", "--dsn", owner]
    try:
        database.execute(f"ALTER ROLE {role} REPLICATION")
        said = str(CliRunner().invoke(verbs, ["setup", *options], standalone_mode=False).exception)
        assert "permission denied for database" in said
        assert f'= fix: GRANT CREATE ON DATABASE "{database.name}" TO "{role}";' in said
        assert '= done: ALTER TABLE "public"."posts" REPLICA IDENTITY FULL;' in said
        assert identity(database, "posts") == "f"
    finally:
        database.execute(f"ALTER TABLE posts OWNER TO CURRENT_USER; DROP ROLE {role}")


async def test_somebody_without_the_privileges_gets_the_reason(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    role = f"weak_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    weak = psycopg.conninfo.make_conninfo(database.dsn, user=role, password="x")  # noqa: S106
    try:
        async with await connect(weak, application_name="test") as connection:
            request = request_for(database)
            facts = await provision.facts(connection, [need("public.t")], request)
            with pytest.raises(ConfigError, match=r"permission denied|must be owner"):
                await provision.apply(connection, provision.plan([need("public.t")], facts, request))
    finally:
        database.execute(f"DROP ROLE {role}")


async def test_a_connection_that_breaks_behind_the_last_step_is_a_lost_connection(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, slug text, body text)")
    async with await connect(database.dsn, application_name="test") as connection:
        request = request_for(database)
        plan = provision.plan(
            [need("public.t")], await provision.facts(connection, [need("public.t")], request), request
        )
        last = next(reversed(plan.to_run))

        def report(step: Step) -> None:
            if step is last:
                database.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)

        with pytest.raises(SourceDisconnected):
            await provision.apply(connection, plan, report=report)


# -- the verb --------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Iterator[Path]:
    """Settings and one rule for ``public.posts``; the role is removed afterwards."""
    (tmp_path / "rules.yaml").write_text(
        "version: 1\nrules:\n"
        "  - name: post\n    table: public.posts\n    invalidate:\n      keys: ['post:{slug}', 'post:id:{id}']\n"
    )
    settings = tmp_path / "invalidator.yaml"
    settings.write_text(
        f"source:\n  type: pgoutput\n  slot: s_{database.name}\n  dsn: {json.dumps(database.dsn)}\n"
        "targets:\n  nowhere:\n    type: blackhole\n"
    )
    yield settings
    database.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"role {database.name}")).as_string(None))


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), result.stdout


def test_setup_prints_sql_that_psql_could_run_and_changes_nothing(database: Database, project: Path) -> None:
    database.execute("CREATE TABLE posts (id int PRIMARY KEY, slug text, body text)")
    code, printed = invoke("setup", "-c", project, "--role", f"role {database.name}")
    assert code == Exit.FINE
    assert database.execute("SELECT count(*) FROM pg_publication") == [(0,)]
    assert f'CREATE ROLE "role {database.name}" LOGIN REPLICATION;' in printed
    for statement in "\n".join(line for line in printed.splitlines() if not line.startswith("--")).split(";\n"):
        database.execute(statement.strip().removesuffix(";") or "SELECT 1")
    code, printed = invoke("setup", "-c", project, "--role", f"role {database.name}")
    assert "the database has all that the rules need" in printed
    assert "ALTER PUBLICATION" not in printed
    write(database, "posts")


def test_setup_applies_and_says_what_it_did(database: Database, project: Path) -> None:
    database.execute("CREATE TABLE posts (id int PRIMARY KEY, slug text, body text)")
    code, printed = invoke("setup", "-c", project, "--apply", "--json")
    assert code == Exit.FINE
    document = json.loads(printed)
    assert [step["purpose"] for step in document["applied"]] == ["replica identity", "publication", "slot"]
    assert [step["purpose"] for step in document["steps"] if not step["advice"]] == []
    code, printed = invoke("setup", "-c", project, "--apply")
    assert code == Exit.FINE
    assert "done:" not in printed


def test_setup_never_prints_the_password(database: Database, project: Path) -> None:
    database.execute("CREATE TABLE posts (id int PRIMARY KEY, slug text)")
    password = str(psycopg.conninfo.conninfo_to_dict(database.dsn).get("password"))
    for arguments in (["--offline"], [], ["--json"], ["--apply"]):
        assert password not in invoke("setup", "-c", project, *arguments)[1]


def test_offline_sql_is_refused_by_the_database_where_an_update_would_fail(database: Database, project: Path) -> None:
    _, printed = invoke("setup", "-c", project, "--offline", "--role", f"role {database.name}")
    transaction = printed[printed.index("BEGIN;") : printed.index("COMMIT;")].removeprefix("BEGIN;")
    for made, is_safe in (
        ("CREATE TABLE posts (id int, slug text, body text)", False),
        ("CREATE TABLE posts (id int PRIMARY KEY, slug text, body text)", True),
        ("CREATE TABLE posts (id int, slug text, body text); ALTER TABLE posts REPLICA IDENTITY FULL", True),
        (TABLES["partitioned"].replace("TABLE t", "TABLE posts").replace("OF t", "OF posts"), True),
        (TABLES["partitioned_without_key"].replace("TABLE t", "TABLE posts").replace("OF t", "OF posts"), False),
        (TABLES["partition_with_nothing"].replace("TABLE t", "TABLE posts").replace("OF t", "OF posts"), False),
        (TABLES["generated_identity"].replace("TABLE t", "TABLE posts").replace("ON t", "ON posts"), False),
    ):
        database.execute(made)
        if is_safe:
            database.execute(transaction)
            write(database, "posts")
            database.execute("DROP PUBLICATION invalidator")
        else:
            with pytest.raises(psycopg.errors.RaiseException, match="posts"):
                database.execute(transaction)
        database.execute("DROP TABLE posts")


def test_a_line_break_in_a_name_cannot_leave_the_comment(database: Database, project: Path) -> None:
    database.execute('CREATE TABLE "evil\nDROP TABLE posts;" (id int, slug text)')
    rules = project.with_name("rules.yaml")
    rules.write_text(rules.read_text().replace("public.posts", "public.*"))
    _, printed = invoke("setup", "-c", project, "--keep-identity")
    assert "\nDROP TABLE posts" not in printed
    assert "evil" in printed


def test_an_unreachable_server_is_an_explained_error(project: Path) -> None:
    from invalidator.errors import SourceDisconnected

    with pytest.raises(SourceDisconnected, match="--offline"):
        invoke("setup", "-c", project, "--dsn", "postgresql://127.0.0.1:1/x")


def test_the_example_in_deploy_is_what_setup_prints(database: Database, project: Path) -> None:
    if int(database.execute("SHOW server_version_num")[0][0]) < 180000:
        pytest.skip("the example is for Postgres 18")
    database.execute("CREATE TABLE posts (id int PRIMARY KEY, slug text, body text)")
    database.execute("CREATE TABLE users (id int PRIMARY KEY, email text, body text)")
    rules = project.with_name("rules.yaml")
    rules.write_text(
        rules.read_text() + "  - name: user\n    table: public.users\n    changed: [email]\n"
        "    invalidate: {keys: ['user:{id}']}\n"
    )
    role = f"role {database.name}"
    _, printed = invoke("setup", "-c", project, "--role", role, "--set", f"source.slot=s_{database.name}")
    example = Path("deploy/sql/setup.sql").read_text().replace('"invalidator" LOGIN', f'"{role}" LOGIN')
    example = example.replace("slot('invalidator'", f"slot('s_{database.name}'")
    assert _statements(example) == _statements(printed)


def _statements(text: str) -> list[str]:
    code = " ".join(line for line in text.splitlines() if not line.startswith("--"))
    return [" ".join(statement.split()) for statement in code.split(";") if statement.strip()]
