"""What every source guarantees before it connects: found by file, so that a new one is tested by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from invalidator import registry
from invalidator.ports import SourceOptions
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import State

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "canary-secret-4713"  # noqa: S105
TYPES = sorted(registry.types("sources"))


def settings(type_name: str, **options: object) -> Any:
    model = registry.load("sources", type_name).Settings
    values: dict[str, object] = {"type": type_name}
    for name, field in model.model_fields.items():
        if name == "dsn":
            values[name] = f"postgresql://daemon:{SECRET}@127.0.0.1:1/none"
        elif field.is_required() and name != "type":
            values[name] = field.examples[0]
    return model.model_validate(values | options)


@pytest.mark.parametrize("type_name", TYPES)
def test_the_type_is_the_name_of_the_file(type_name: str) -> None:
    assert settings(type_name).type == type_name
    with pytest.raises(pydantic.ValidationError, match="type"):
        settings(type_name, type="something_else")


@pytest.mark.parametrize("type_name", TYPES)
def test_a_misspelled_option_is_refused(type_name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="hartbeat"):
        settings(type_name, hartbeat=1)


@pytest.mark.parametrize("type_name", TYPES)
def test_every_option_is_explained_beside_itself(type_name: str) -> None:
    model = registry.load("sources", type_name).Settings
    assert issubclass(model, SourceOptions)
    assert [name for name, field in model.model_fields.items() if not field.description and name != "type"] == []


@pytest.mark.parametrize("type_name", TYPES)
def test_the_type_is_documented(type_name: str) -> None:
    pages = [page.name for page in sorted(DOCS.rglob("*.md")) if f"type: {type_name}" in page.read_text()]
    assert pages, f"no page of docs says `type: {type_name}`"


@pytest.mark.parametrize("type_name", TYPES)
async def test_building_connects_to_nobody_closing_may_come_twice_and_nothing_shows_a_secret(type_name: str) -> None:
    options = settings(type_name)
    source = registry.load("sources", type_name).build(options, Events(State()))
    await source.close()
    await source.close()
    assert SECRET not in f"{source!r} {options!r} {options.model_dump()} {options.model_dump_json()}"
