"""The proof of ``setup``: on every kind of table the application writes as before, and what rules need arrives.

Each case makes tables, runs ``setup --apply`` as their owner, and then every kind of statement as the application's
role. Afterwards a second ``setup`` finds nothing to do, and ``setup --drop --apply`` leaves the catalog as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from invalidator.cli import verbs
from invalidator.rules import document
from tests.support.heard import covers, heard
from tests.support.postgres import Database

COLUMNS = "id int {key}, slug text, body text"
PLAIN = f"CREATE TABLE t ({COLUMNS.format(key='PRIMARY KEY')})"
KEYLESS = f"CREATE TABLE t ({COLUMNS.format(key='')})"

WRITES = (
    "INSERT INTO {t} (id, slug, body) VALUES (1, 'a', 'x'), (2, 'b', 'y'), (4, 'd', 'z')",
    "UPDATE {t} SET slug = 'c' WHERE id = 1",
    "UPDATE {t} SET body = body || body",
    "UPDATE {t} SET id = 3 WHERE id = 1",
    "UPDATE {t} SET id = 103 WHERE id = 3",  # into another partition, where there are some
    "WITH gone AS (DELETE FROM {t} WHERE id = 4 RETURNING *) SELECT count(*) FROM gone",
    "DELETE FROM {t} WHERE id = 2",
)
NAMES = ("t:1", "t:2", "t:3", "t:4", "t:103", "s:a", "s:b", "s:c", "s:d")
CONFLICT = (
    "INSERT INTO {t} (id, slug, body) VALUES (5, 'e', '')",
    "INSERT INTO {t} (id, slug, body) VALUES (5, 'f', '') ON CONFLICT (id) DO UPDATE SET slug = excluded.slug",
)
MERGE = (
    "MERGE INTO {t} AS old USING (VALUES (6, 'g'), (7, 'h')) AS new (id, slug) ON old.id = new.id"
    " WHEN MATCHED THEN UPDATE SET slug = new.slug WHEN NOT MATCHED THEN INSERT (id, slug) VALUES (new.id, new.slug)",
    "MERGE INTO {t} AS old USING (VALUES (6)) AS new (id) ON old.id = new.id WHEN MATCHED THEN DELETE",
)


@dataclass(frozen=True)
class Case:
    """A kind of table ``t`` with columns id, slug and body."""

    made: str
    table: str = "public.t"
    written: str = "t"
    """The table as the application's SQL names it."""
    conflict: bool = True
    """It has a unique index over id that ON CONFLICT can use."""
    later: str = ""
    """What the owner does after set-up."""
    left_out: str = ""
    """Words of the finding, when the table cannot be published."""
    widens: str = ""
    """Words of the finding, when old values cannot be sent."""
    copies: bool = True
    oldest: int = 14
    more: tuple[str, ...] = ()
    """Further statements of the application."""
    names: tuple[str, ...] = NAMES
    extra_columns: tuple[str, ...] = field(default=())
    """More columns that the rule reads."""


PARTITIONED = """
    CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);
    CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100);
    CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (200);
"""
CASES = {
    "primary key": Case(PLAIN),
    "no key": Case(KEYLESS, conflict=False),
    "identity full": Case(PLAIN + "; ALTER TABLE t REPLICA IDENTITY FULL"),
    "identity full without a key": Case(KEYLESS + "; ALTER TABLE t REPLICA IDENTITY FULL", conflict=False),
    "identity by index": Case(
        "CREATE TABLE t (id int NOT NULL UNIQUE, slug text, body text);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_id_key"
    ),
    "identity by an index that was dropped": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_slug_key; ALTER TABLE t DROP CONSTRAINT t_slug_key"
    ),
    "identity by an index over the slug": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_slug_key"
    ),
    "identity nothing": Case(PLAIN + "; ALTER TABLE t REPLICA IDENTITY NOTHING"),
    "identity nothing without a key": Case(KEYLESS + "; ALTER TABLE t REPLICA IDENTITY NOTHING", conflict=False),
    "deferrable key": Case(f"CREATE TABLE t ({COLUMNS.format(key='PRIMARY KEY DEFERRABLE')})", conflict=False),
    "key over two columns": Case("CREATE TABLE t (id int UNIQUE, slug text, body text, PRIMARY KEY (slug, id))"),
    "key with an included column": Case(
        "CREATE TABLE t (id int, slug text, body text, PRIMARY KEY (id) INCLUDE (slug))"
    ),
    "partial and expression indexes": Case(
        KEYLESS + "; ALTER TABLE t ALTER id SET NOT NULL; CREATE UNIQUE INDEX ON t (id) WHERE id > 0;"
        "CREATE UNIQUE INDEX ON t (abs(id))",
        conflict=False,
    ),
    "nulls not distinct": Case("CREATE TABLE t (id int UNIQUE NULLS NOT DISTINCT, slug text, body text)", oldest=15),
    "stored generated column": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text, low text GENERATED ALWAYS AS (lower(slug)) STORED)"
    ),
    "stored generated column in the identity": Case(
        "CREATE TABLE t (id int UNIQUE, slug text, body text,"
        " twice int NOT NULL GENERATED ALWAYS AS (id * 2) STORED UNIQUE);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_twice_key"
    ),
    "virtual generated column": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text, low text GENERATED ALWAYS AS (slug || 'x') VIRTUAL)",
        widens="old slug of public.t will not be sent",
        oldest=18,
    ),
    "virtual generated column without a key": Case(
        "CREATE TABLE t (id int, slug text, body text, low text GENERATED ALWAYS AS (slug || 'x') VIRTUAL)",
        conflict=False,
        left_out="virtual",
        oldest=18,
    ),
    "identity column": Case(
        "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, slug text, body text)"
    ),
    "domains": Case(
        "CREATE DOMAIN key AS int CHECK (VALUE > 0); CREATE DOMAIN word AS text;"
        "CREATE TABLE t (id key PRIMARY KEY, slug word, body word)"
    ),
    "enum, array, json and composite": Case(
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);"
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text, m mood NOT NULL DEFAULT 'sad', n int[], o jsonb,"
        " p json, q pair, r numeric, s timestamptz DEFAULT now(), u uuid, v bytea)",
        extra_columns=("m", "n", "o", "p", "q", "r", "s", "u", "v"),
        more=("UPDATE {t} SET m = 'glad', n = '{{1,2}}', o = '{{}}', p = '[]', q = (1, 'x'), r = 1.50, v = '\\x00'",),
    ),
    "enum in the key": Case(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');"
        "CREATE TABLE t (id int UNIQUE, slug text, body text, m mood DEFAULT 'sad', PRIMARY KEY (m, id))",
        more=("UPDATE {t} SET m = 'glad'",),
    ),
    "citext": Case(
        "CREATE EXTENSION citext; CREATE TABLE t (id int PRIMARY KEY, slug citext NOT NULL UNIQUE, body text)"
    ),
    "long values outside of the row": Case(
        PLAIN + "; ALTER TABLE t ALTER slug SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL",
        more=(
            "INSERT INTO {t} VALUES (8, repeat('s', 9000), repeat('b', 9000))",
            "UPDATE {t} SET id = 9 WHERE id = 8",
            "UPDATE {t} SET slug = 'short'",
        ),
    ),
    "hostile names": Case(
        'CREATE SCHEMA "s ""x"; CREATE TABLE "s ""x"."t; DROP"'
        ' (id int PRIMARY KEY, slug text, body text, "a""b;--" text, "select" text)',
        table='"s ""x"."t; DROP"',
        written='"s ""x"."t; DROP"',
        extra_columns=('"a""b;--"', '"select"'),
    ),
    "partitioned": Case(PARTITIONED),
    "partitioned without partitions": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id)",
        later="CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (200)",
    ),
    "partitioned in levels and schemas": Case(
        "CREATE SCHEMA away;"
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);"
        "CREATE TABLE away.t_1 PARTITION OF t FOR VALUES FROM (0) TO (100) PARTITION BY HASH (id);"
        "CREATE TABLE away.t_1_1 PARTITION OF away.t_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE t_1_2 PARTITION OF away.t_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "CREATE TABLE t_rest PARTITION OF t DEFAULT"
    ),
    "partitions with identities of their own": Case(
        PARTITIONED + "ALTER TABLE t_1 REPLICA IDENTITY FULL; ALTER TABLE t_2 REPLICA IDENTITY NOTHING"
    ),
    "partitions of another column order": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 (body text, id int NOT NULL, slug text);"
        "ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (200)"
    ),
    "partitioned without a key": Case(
        "CREATE TABLE t (id int, slug text, body text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (200); ALTER TABLE t_1 REPLICA IDENTITY FULL",
        conflict=False,
        left_out="no primary key",
        later="CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (200) TO (300)",
    ),
    "partition made and attached later": Case(
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (3)",
        later="CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (3) TO (100);"
        "CREATE TABLE t_3 (id int NOT NULL, slug text, body text);"
        "ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (100) TO (200)",
    ),
    "inherited by another table": Case(
        PLAIN + "; CREATE TABLE t_child (more int) INHERITS (t)",
        more=(
            "INSERT INTO t_child (id, slug) VALUES (50, 'x')",
            "UPDATE t_child SET slug = 'y'",
            "UPDATE {t} SET slug = 'z' WHERE id = 50",
            "DELETE FROM {t} WHERE id = 50",
        ),
    ),
    "a child of another table": Case(
        "CREATE TABLE parent (id int, slug text); CREATE TABLE t (body text, PRIMARY KEY (id)) INHERITS (parent)",
        more=("INSERT INTO parent VALUES (60, 'x')", "UPDATE parent SET slug = 'y'", "DELETE FROM parent"),
    ),
    "unlogged": Case(PLAIN.replace("TABLE", "UNLOGGED TABLE", 1), left_out="unlogged"),
    "foreign keys that cascade": Case(
        "CREATE TABLE owner (id int PRIMARY KEY); INSERT INTO owner SELECT generate_series(1, 9);"
        "CREATE TABLE t (id int PRIMARY KEY, slug text, body text,"
        " owner int DEFAULT 1 REFERENCES owner ON DELETE CASCADE ON UPDATE CASCADE)",
        more=(
            "INSERT INTO {t} VALUES (70, 'x', 'y', 2)",
            "UPDATE owner SET id = 102 WHERE id = 2",
            "DELETE FROM owner WHERE id = 102",
        ),
    ),
    "triggers that write": Case(
        PLAIN + "; CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.body := coalesce(NEW.body, '') || '!'; RETURN NEW; END$$;"
        "CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()"
    ),
    "row level security": Case(
        PLAIN + "; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON t USING (true)",
        copies=False,
    ),
}
RULES = {
    "both images": {"keys": ["t:{id}", "s:{slug}"]},
    "new values": {"keys": ["t:{id}", "s:{new.slug}"]},
}


class Application:
    """A project with rules, and two roles: the application's, and the daemon's that set-up makes."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.settings = folder / "invalidator.yaml"
        self.rules = folder / "rules.yaml"
        self.slot = f"s_{database.name}"
        self.app = f"app_{database.name}"
        self.role = f"daemon_{database.name}"
        self.settings.write_text(
            f"source:\n  type: pgoutput\n  slot: {self.slot}\n  dsn: {json.dumps(database.dsn)}\n"
            "targets:\n  nowhere:\n    type: blackhole\n"
        )
        database.execute(f"CREATE ROLE {self.app} NOLOGIN")
        self.version = int(database.execute("SHOW server_version_num")[0][0]) // 10000

    def write_rules(self, *rules: dict[str, Any]) -> None:
        self.rules.write_text(json.dumps({"version": 1, "rules": rules}))

    def setup(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run the verb; its exit code and its JSON."""
        options = ["-c", str(self.settings), "--role", self.role, "--json", *arguments]
        result = CliRunner().invoke(verbs, ["setup", *options], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return int(result.return_value), json.loads(result.stdout)

    def may_write(self) -> None:
        """Give the application what an application has."""
        schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        for (schema,) in self.database.execute(schemas):
            quoted = psycopg.sql.Identifier(schema).as_string(None)
            self.database.execute(f"GRANT USAGE ON SCHEMA {quoted} TO {self.app}")
            self.database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {quoted} TO {self.app}")

    def write(self, statements: list[str]) -> None:
        """Run the application's statements, each as its own transaction and as its role."""
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {self.app}")
            for statement in statements:
                connection.execute(statement)

    def copy(self, table: str) -> None:
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {self.app}")
            with connection.cursor().copy(f"COPY {table} (id, slug, body) FROM STDIN") as copy:
                copy.write_row((10, "copied", None))

    def catalog(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that set-up may leave behind, but for replica identities."""
        questions = {
            "roles": "SELECT rolname FROM pg_roles WHERE rolname !~ '^app_'",
            "publications": "SELECT pubname, obj_description(oid) FROM pg_publication",
            "slots": "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()",
            "relations": "SELECT oid::regclass::text, relacl FROM pg_class WHERE relnamespace >= 2200",
            "schemas": "SELECT nspname, nspacl FROM pg_namespace WHERE nspname !~ '^pg_t'",
            "database": "SELECT datacl FROM pg_database WHERE datname = current_database()",
        }
        return {name: sorted(self.database.execute(question), key=repr) for name, question in questions.items()}

    def close(self) -> None:
        self.database.execute(f"DROP OWNED BY {self.app}")
        self.database.execute(f"DROP ROLE {self.app}")
        if self.database.execute("SELECT FROM pg_roles WHERE rolname = %s", self.role):
            self.database.execute(f"DROP OWNED BY {self.role}")
            self.database.execute(f"DROP ROLE {self.role}")


@pytest.fixture
def application(database: Database, tmp_path: Path) -> Iterator[Application]:
    made = Application(database, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", CASES)
def test_the_application_writes_as_before_what_rules_need_arrives_and_it_all_goes(
    application: Application, kind: str, rule: str
) -> None:
    case, database = CASES[kind], application.database
    if application.version < case.oldest:
        pytest.skip(f"Postgres {case.oldest} brought this")
    if "citext" in kind and not database.execute("SELECT FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("this server has no citext")
    database.execute(case.made)
    application.may_write()
    extra = [f"x:{{new.{column}|default:''}}" for column in case.extra_columns]
    application.write_rules({"name": "t", "table": case.table, "invalidate": {"keys": [*RULES[rule]["keys"], *extra]}})
    before = application.catalog()

    set_up(application, case, has_old=rule == "both images")
    if case.later:
        database.execute(case.later)
        application.may_write()
        before |= {"relations": application.catalog()["relations"]}
    application.write(statements(case, application.version))
    if case.copies:
        application.copy(case.written)
    if not case.left_out:
        assert_arrived(application, case)
    application.write([f"TRUNCATE {case.written}"])
    if not case.left_out:
        rules = document.load([application.rules])
        assert b"s:*" in heard(database, application.slot, "invalidator", rules).key_patterns
    if case.later:  # new partitions have the identity that Postgres gives them
        application.setup("--apply")
    assert {mark["sign"] for mark in application.setup("--diff")[1]["objects"]} <= {"="}
    code, printed = application.setup("--drop", "--apply")
    assert code == 0, printed
    assert application.catalog() == before


def set_up(application: Application, case: Case, *, has_old: bool) -> None:
    """Run ``setup --apply``, and see that it says what it leaves out and has nothing more to do."""
    code, printed = application.setup("--apply")
    assert [step for step in printed["steps"] if not step["advice"]] == []
    problems = [finding["text"] for finding in printed["findings"] if finding["severity"] == "problem"]
    if case.left_out:
        assert any(case.left_out in text for text in problems)
    elif case.widens and has_old:
        assert [case.widens in text for text in problems] == [True]
    else:
        assert problems == []
    assert code == (1 if problems else 0)


def statements(case: Case, version: int) -> list[str]:
    """What the application does."""
    made = [*WRITES, *(CONFLICT if case.conflict else ()), *(MERGE if version >= 15 else ()), *case.more]
    return [statement.format(t=case.written) for statement in made]


def assert_arrived(application: Application, case: Case) -> None:
    """Every name that the writes made stale is dropped, by itself or by a pattern."""
    made = heard(application.database, application.slot, "invalidator", document.load([application.rules]))
    names = (*case.names, *(("t:10", "s:copied") if case.copies else ()))
    assert [name for name in names if not covers(made, name)] == []
