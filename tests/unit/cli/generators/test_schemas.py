"""The JSON Schemas that are shipped: up to date, plain, and printed by the verb."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from invalidator import registry
from invalidator.cli.generators import schemas
from invalidator.cli.schema import command


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from nodes(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from nodes(inner)


def properties(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for node in nodes(schema):
        if isinstance(node.get("properties"), dict) and "if" not in node and node.get("type") == "object":
            yield from node["properties"].items()


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_the_shipped_schema_is_what_the_models_say(name: str) -> None:
    shipped = (schemas.FOLDER / f"{name}.json").read_text(encoding="utf-8")

    assert shipped == schemas.text(schemas.SCHEMAS[name]()), f"run: {schemas.COMMAND}"


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_every_field_of_a_schema_tells_what_it_means(name: str) -> None:
    silent = [
        field
        for field, node in properties(schemas.SCHEMAS[name]())
        if "const" not in node and not node.get("description")
    ]

    assert silent == []


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_schema_is_inline_and_refuses_unknown_fields(name: str) -> None:
    schema = schemas.SCHEMAS[name]()

    assert [node for node in nodes(schema) if "$ref" in node or "$defs" in node] == []
    assert schema["additionalProperties"] is False


def test_the_settings_know_every_source_and_target() -> None:
    fields = schemas.settings()["properties"]

    assert fields["source"]["properties"]["type"]["enum"] == list(registry.types("sources"))
    assert fields["targets"]["additionalProperties"]["properties"]["type"]["enum"] == list(registry.types("targets"))


def test_no_secret_has_a_default_or_an_example_in_the_schema() -> None:
    secrets = [node for node in nodes(schemas.settings()) if node.get("format") == "password"]

    assert secrets
    assert [node for node in secrets if node.get("default") or "examples" in node] == []


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_the_verb_prints_what_is_shipped(name: str) -> None:
    result = CliRunner().invoke(command, [name], standalone_mode=False)

    assert json.loads(result.stdout) == schemas.SCHEMAS[name]()


def test_the_verb_writes_a_file_and_says_how_editors_find_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.schema.json"

    result = CliRunner().invoke(command, ["rules", "-o", str(path)], standalone_mode=False)

    assert json.loads(path.read_text(encoding="utf-8")) == schemas.rules()
    assert "# yaml-language-server: $schema=rules.schema.json" in result.stdout
    assert "# $schema: rules.schema.json" in result.stdout


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["rules", "-o", str(tmp_path / "no" / "x.json")])

    assert result.exit_code == 1
    assert "no/x.json" in result.output
