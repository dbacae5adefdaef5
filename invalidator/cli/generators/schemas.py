"""The JSON Schemas of rule files and settings, made from the models that read these files.

``python -m invalidator.cli.generators.schemas`` writes them to ``invalidator/schema/``, from where they are shipped.

Draft 7, because every editor knows it; everything is inline, because editors differ in what they make of a
description beside ``$ref``. What only the program can check (templates, conditions, places of globs) is left to
``invalidator check``: a schema that guessed at it would complain where the program does not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from invalidator import registry
from invalidator.config import loading
from invalidator.rules.schema import EVENTS, RuleFile

FOLDER: Final = Path(__file__).parents[2] / "schema"
COMMAND: Final = "python -m invalidator.cli.generators.schemas"
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_NEW_RULE: Final = {
    "label": "rule",
    "description": "A new rule",
    "body": {"name": "$1", "table": "public.$2", "invalidate": {"keys": ['"$3:{id}"']}},
}

Schema = dict[str, Any]


def rules() -> Schema:
    """The schema of a rule file."""
    schema = _of_model(RuleFile)
    items = schema["properties"]["rules"]["items"]
    items["defaultSnippets"] = [_NEW_RULE]
    events = items["properties"]["events"]["items"]
    events["enumDescriptions"] = [EVENTS[event] for event in events["enum"]]
    return {"$schema": _DRAFT, **schema, "title": "Rules of invalidator"}


def settings() -> Schema:
    """The schema of the settings file.

    Nothing but ``type`` is required, because each value may come from the environment instead.
    """
    schema = _of_model(loading.File)
    fields = schema["properties"]
    for field in ("source", "targets"):
        fields[field] = {"description": fields[field]["description"], "title": field}
    default = loading.File.model_fields["rules"].get_default()
    fields["rules"].setdefault("default", default)
    fields["source"] |= _one_of("sources", "source", default=loading.DEFAULT_SOURCE)
    fields["targets"] |= {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{loading.TARGET_NAME.pattern}$"},
        "additionalProperties": _one_of("targets", "targets.NAME"),
    }
    schema.pop("required", None)
    return {"$schema": _DRAFT, **schema, "title": "Settings of invalidator"}


SCHEMAS: Final = {"rules": rules, "settings": settings}


def write(folder: Path = FOLDER) -> None:
    """Write both, in the form in which they are shipped."""
    for name, make in SCHEMAS.items():
        (folder / f"{name}.json").write_text(text(make()), encoding="utf-8")


def text(schema: Schema) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


# -- components --------------------------------------------------------------------------------------------------


def _one_of(kind: str, place: str, default: str | None = None) -> Schema:
    """A mapping whose ``type`` decides which other fields there are.

    if/then instead of oneOf: so an editor that found the type tells what is wrong with this component, and not
    that the mapping is none of eight others.
    """
    models: dict[str, type[BaseModel]] = {name: registry.load(kind, name).Settings for name in registry.types(kind)}
    of_type: Schema = {
        "title": f"{place}.type",
        "description": "What it is; decides which other settings there are.",
        "type": "string",
        "enum": list(models),
        "enumDescriptions": [_sentence(model.__doc__ or "") for model in models.values()],
    }
    if default is not None:
        of_type["default"] = default
    branches = []
    for name, model in models.items():
        condition: Schema = {"properties": {"type": {"const": name}}}
        if name != default:
            condition["required"] = ["type"]
        component = _of_model(model, place)
        component["properties"]["type"] = {"const": name}
        component.pop("required", None)
        component.pop("title", None)
        branches.append({"if": condition, "then": component})
    made: Schema = {"type": "object", "properties": {"type": of_type}, "allOf": branches}
    return made if default is not None else made | {"required": ["type"]}


def _sentence(docstring: str) -> str:
    return _plain(docstring.strip().split("\n\n")[0])


# -- from pydantic's schema to ours ------------------------------------------------------------------------------


def _of_model(model: type[BaseModel], place: str = "") -> Schema:
    raw = model.model_json_schema(ref_template="{model}")
    return _simplified(raw, raw.get("$defs", {}), place)


def _simplified(node: Schema, models: dict[str, Schema], place: str) -> Schema:
    """The same without references, with one type instead of a choice with null, and titles that tell the place."""
    node = {key: value for key, value in _resolved(node, models).items() if key not in {"$defs", "title"}}
    if place:
        node["title"] = place
    if "description" in node:
        node["description"] = node["markdownDescription"] = _plain(node["description"])
    if node.get("format") == "password":
        node.pop("examples", None)
    if isinstance(node.get("default"), dict | list):  # an editor would write it into the file
        del node["default"]
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _simplified(node[key], models, place if key == "items" else f"{place}.NAME")
            if "properties" not in node[key]:
                node[key].pop("title", None)
    if "properties" in node:
        node["properties"] = {
            name: _simplified(inner, models, _inside(place, name)) for name, inner in node["properties"].items()
        }
    return _without_null(node, models, place) if "anyOf" in node else node


def _resolved(node: Schema, models: dict[str, Schema]) -> Schema:
    """What stands beside a reference is stronger than what it refers to."""
    if "$ref" not in node:
        return node
    return {**models[node["$ref"]], **{key: value for key, value in node.items() if key != "$ref"}}


def _without_null(node: Schema, models: dict[str, Schema], place: str) -> Schema:
    """``X or null`` with X's own type: so errors name X's type and completion offers what X has."""
    choices = [_simplified(choice, models, place) for choice in node.pop("anyOf")]
    real = [choice for choice in choices if choice.get("type") != "null"]
    is_nullable = len(real) < len(choices)
    if len(real) == 1 and isinstance(real[0].get("type"), str):
        made = {**real[0], **node}
        if is_nullable:
            made["type"] = [real[0]["type"], "null"]
            if made.get("default", ...) is None:
                del made["default"]
        return made
    for choice in choices:
        choice.pop("title", None)
    return {**node, "anyOf": choices}


def _inside(place: str, name: str) -> str:
    if place in {"", "rules"}:
        return name  # `rules.` before every field would say nothing
    return f"{place}.{name}"


def _plain(description: str) -> str:
    return " ".join(description.replace("``", "`").split())


if __name__ == "__main__":
    write()
