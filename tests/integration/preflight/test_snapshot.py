"""Schema files: what a database says, and the same from a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from invalidator.preflight import snapshot
from invalidator.preflight.examine import examine
from invalidator.preflight.needs import needs
from invalidator.rules import document
from invalidator.yamlfile import Invalid
from tests.support.checked import Project

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE posts (id int PRIMARY KEY, slug text NOT NULL UNIQUE, body text, at timestamptz, mood mood,
                    long text GENERATED ALWAYS AS (slug || body) STORED);
CREATE TABLE events (id int, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
ALTER TABLE events_2 REPLICA IDENTITY FULL;
CREATE TABLE bare (id int, name text);
CREATE VIEW shown AS SELECT * FROM posts;
CREATE TABLE elsewhere (id int PRIMARY KEY);
CREATE PUBLICATION invalidator FOR TABLE posts (id, slug), events WITH (publish = 'insert, update');
CREATE PUBLICATION other FOR TABLE elsewhere, bare;
"""
RULES = """\
  - {name: post, table: public.posts, invalidate: {keys: ["post:{slug}:{at}:{new.body}:{long}"]}}
  - {name: event, table: public.events, changed: [note], invalidate: {keys: ["event:{id}:{note}"]}}
  - {name: bare, table: public.bare, invalidate: {keys: ["bare:{nmae}"]}}
  - {name: view, table: public.shown, invalidate: {keys: ["view:{id}"]}}
  - {name: typo, table: public.psots, invalidate: {keys: ["typo:{id}"]}}
"""


@pytest.fixture
def project(checked: Project) -> Project:
    checked.database.execute(SCHEMA)
    checked.write(RULES)
    return checked


async def test_a_file_gives_the_findings_of_the_database_itself(project: Project) -> None:
    loaded = document.load_with_warnings([project.folder / "rules.yaml"])
    live = replace(await project.facts(needs(loaded.ruleset.rules)), is_live=False)

    read = snapshot.read(snapshot.write(live), "schema.json")

    def said(facts: object) -> list[tuple[object, ...]]:
        found = examine(loaded.ruleset, loaded.sources, facts)  # type: ignore[arg-type]
        return [(each.subject, replace(each.diagnostic, help=None)) for each in found]

    assert said(read) == said(live)
    assert {code.code for _, code in said(read)} >= {  # type: ignore[attr-defined]
        "old-value-needed", "unknown-column", "unknown-table", "not-publishable", "no-identity", "not-published",
        "column-not-published", "operation-not-published", "session-dependent-text", "toast-key",
    }  # fmt: skip


async def test_a_file_that_is_read_and_written_again_is_the_same_file(project: Project) -> None:
    loaded = document.load([project.folder / "rules.yaml"])
    text = snapshot.write(await project.facts(needs(loaded.rules)))
    assert snapshot.write(snapshot.read(text, "schema.json")) == text


def test_the_same_schema_made_in_another_order_gives_the_same_bytes(project: Project) -> None:
    first = project.run("snapshot-schema")
    assert first.code == 0, first.errors
    project.database.execute("DROP PUBLICATION invalidator; DROP PUBLICATION other; DROP TABLE events, bare, elsewhere")
    project.database.execute("DROP TABLE posts CASCADE; DROP TYPE mood")
    statements = SCHEMA.strip().split(";\n")
    project.database.execute(";\n".join([*statements[6:7], *statements[:6], *statements[7:]]))
    assert project.run("snapshot-schema").output == first.output


def test_the_file_holds_what_the_rules_name_and_no_more(project: Project) -> None:
    project.run("snapshot-schema", "-o", "schema.json")
    text = (project.folder / "schema.json").read_text()
    data = json.loads(text)
    assert [table["table"][1] for table in data["tables"]] == [
        "bare",
        "events",
        "events_1",
        "events_2",
        "posts",
        "shown",
    ]
    assert "elsewhere" not in text
    assert project.database.name not in text
    assert all(
        column["type_oid"] is None or column["type_oid"] < 16384 for t in data["tables"] for column in t["columns"]
    )


def test_check_with_a_file_needs_no_server(project: Project) -> None:
    assert project.run("snapshot-schema", "-o", "schema.json").code == 0
    project.source["dsn"] = "postgresql://127.0.0.1:1/gone"
    project.write(RULES)
    ended = project.run("check", "--schema", "schema.json")
    assert ended.code == 1
    assert "error[unknown-column]" in ended.output
    assert "checked against schema.json: 4 tables" in ended.output
    assert "slot" not in ended.output.split("checked against")[0]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"format": 2, "tables": []}', "has format 2, and this version reads format 1"),
        ('{"format": 1, "tables": []}', "postgres: Field required"),
        ("not json", "Invalid JSON"),
        ("[]", "should be an object"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_with_the_command_that_writes_one(text: str, part: str) -> None:
    with pytest.raises(Invalid) as caught:
        snapshot.read(text, "schema.json")
    (found,) = caught.value.diagnostics
    assert found.code == "bad-schema-file"
    assert found.fix == "invalidator snapshot-schema -o FILE"
    assert part in found.message


def test_a_file_that_cannot_be_written_is_an_error_without_traceback(project: Project) -> None:
    ended = project.run("snapshot-schema", "-o", str(Path("nowhere") / "schema.json"))
    assert ended.code == 78
    assert "cannot be written" in ended.errors


@pytest.mark.parametrize("content", ["{}".encode("utf-16"), bytes(range(256))])
def test_a_file_that_is_no_text_is_refused(project: Project, content: bytes) -> None:
    (project.folder / "schema.json").write_bytes(content)
    ended = project.run("check", "--schema", "schema.json")
    assert ended.code == 1
    assert "not-utf8" in ended.output


@pytest.mark.parametrize("over", [("public", "events"), ("public", "events_1")])
def test_a_table_that_is_a_partition_of_itself_is_refused(project: Project, over: tuple[str, str]) -> None:
    project.run("snapshot-schema", "-o", "schema.json")
    file = json.loads((project.folder / "schema.json").read_text(encoding="utf-8"))
    for table in file["tables"]:
        if table["table"] == ["public", "events"]:
            table["partition_of"] = over
    with pytest.raises(Invalid, match="is a partition of itself"):
        snapshot.read(json.dumps(file), "schema.json")
