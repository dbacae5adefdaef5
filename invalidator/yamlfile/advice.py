"""What to write instead, as far as a model tells: its fields, their examples, the words that it knows."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from invalidator.yamlfile.diagnostic import shown

_MAX_EXAMPLE: Final = 160
_MAX_NUMBER: Final = 40
_YAML_1_1_BOOL: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_PLAIN: Final = re.compile(r"[A-Za-z_][\w.-]*")
_SCALAR: Final = re.compile(r"[\w.+-]{1,40}")
_NUMBER: Final = re.compile(r"(?P<digits>-?\d[\d_, ]*(?:\.\d+)?) *(?P<unit>[A-Za-z]*)")
_FACTORS: Final = {"": 1, "k": 1000, "m": 1_000_000}
_SECONDS: Final = {"": 1, "ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}


def fields(models: Iterable[type[BaseModel]]) -> dict[str, FieldInfo]:
    """The fields of these models by the name the file uses, but for those that are not offered."""
    found = (item for model in models for item in model.model_fields.items())
    return {field.alias or name: field for name, field in found if not field.exclude}


def models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The models that an annotation names, also as entries of a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(found for part in typing.get_args(annotation) for found in models_in(part))


def missing(name: str, field: FieldInfo | None) -> str | None:
    """What to write for a field that is not there."""
    if field is None:
        return None
    if _is_list_of_models(field.annotation):
        return f"write {name}: and below it entries that begin with '- '"
    made = _example(field)
    return None if made is None else f"write {name}: {made}"


def for_text(value: object, field: FieldInfo | None, written: str) -> str | None:
    """What to write where a text belongs.

    Args:
        value: what YAML made of it.
        field: that it is the value of.
        written: how it stands in the file: ``007`` and ``1.50`` are not what YAML makes of them.
    """
    if isinstance(value, bool | int | float):
        return f"put it into quotes: '{written if _SCALAR.fullmatch(written) else shown(value)}'"
    made = None if field is None else _example(field)
    return None if made is None else f"write it as in {made}"


def for_list(value: object, field: FieldInfo | None) -> str | None:
    """What to write where a list belongs."""
    if value is None or isinstance(value, dict):
        remove = _removal(value, field)
        is_entries = field is None or _is_list_of_models(field.annotation)
        return f"{remove}{'begin each entry with' if is_entries else 'write entries that begin with'} '- '"
    if not isinstance(value, str):
        made = None if field is None else _example(field)
        return "write a list in [ ]" if made is None else f"write a list, as in [{made.strip('[]')}]"
    known = () if field is None else _literals(field.annotation)
    lines = [line.strip().removeprefix("- ") for line in value.splitlines() if line.strip()]
    entries = [part.strip() for line in lines for part in line.split(",")]
    if known and not set(entries) <= set(known):
        entries = list(known)
    elif not all(map(_PLAIN.fullmatch, entries)):
        entries = lines
    return f"write a list: {_flow(entries)}"


def for_mapping(value: object, name: str | int | None, field: FieldInfo | None, models: Sequence[Any]) -> str | None:
    """What to write where a mapping belongs.

    Args:
        value: what is there.
        name: its key.
        field: the field that it is the value of, if the model has one there.
        models: what may describe the mapping, or the mappings in it.
    """
    inner = fields(models)
    if field is None and name in inner:
        return f"{shown(name)} is a field of each entry: put a name above it, as in some_name: {{{name}: …}}"
    remove = _removal(value, field)
    if not models:
        return _for_untold_mapping(remove, field)
    if not inner:
        return "write {}"
    if field is not None and not isinstance(field.annotation, type) and field.annotation not in models:
        return f"{remove}give each entry a name, and below it: {', '.join(sorted(inner))}"
    made = _of_model(models[0])
    return f"{remove}write its fields ({', '.join(sorted(inner))})" + (
        f", as in {made}" if made and made != "{}" else ""
    )


def _removal(value: object, field: FieldInfo | None) -> str:
    return "remove it, or " if value is None and field is not None and not field.is_required() else ""


def _for_untold_mapping(remove: str, field: FieldInfo | None) -> str:
    """For a mapping whose entries the model does not tell."""
    holds_mappings = field is not None and "dict" in str(typing.get_args(field.annotation)[1:])
    if holds_mappings:
        return f"{remove}give each entry a name, as in some_name: {{…}}"
    return f"{remove}write its fields, each as name: value"


def for_boolean(value: object) -> str | None:
    """What to write where true or false belongs."""
    if not isinstance(value, str):
        return None
    meant = _YAML_1_1_BOOL.get(value.lower(), value.lower())
    return f"did you mean {meant}?" if meant in {"true", "false"} else None


def for_number(value: object, name: str | int | None) -> str | None:
    """What to write where a number belongs: without quotes, groups of digits and units."""
    is_short = isinstance(value, str) and len(value) <= _MAX_NUMBER
    found = _NUMBER.fullmatch(str(value).strip()) if is_short else None
    if found is None:
        return None
    factors = _SECONDS if str(name).endswith("_seconds") else _FACTORS
    factor = factors.get(found["unit"].lower())
    digits = re.sub(r"[_, ]", "", found["digits"])
    if factor is None:
        return None
    if factor == 1 and digits == value:
        return "write it without quotes"
    return f"write {float(digits) * factor:.10g}"


def near(name: str, known: Iterable[str]) -> str | None:
    """What a name was probably meant to be."""
    names = list(known)
    swapped = [each for each in names if len(each) == len(name) and sorted(each) == sorted(name)]
    return next(iter(swapped or difflib.get_close_matches(name, names, 1, 0.7)), None)


def for_choice(value: object, choices: Sequence[str]) -> str | None:
    """The word that is meant, whatever its case."""
    found = difflib.get_close_matches(str(value).lower(), choices, 1, 0.6)
    return f"did you mean '{found[0]}'?" if found else None


# -- examples --------------------------------------------------------------------------------------------------


def _example(field: FieldInfo) -> str | None:
    """A value as a file would hold it; None if the model shows none, or none that fits into a line."""
    words = _literals(field.annotation)
    if words:
        return _flow(words[0])
    examples = _examples(field)
    if examples:
        made = _flow(examples[0])
        return made if len(made) <= _MAX_EXAMPLE else None
    annotation = field.annotation
    return _of_model(annotation) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _of_model(model: type[BaseModel]) -> str | None:
    """The required fields, or else the first field that has an example; ``{}`` if nothing has to be said."""
    named = fields([model])
    needed = [name for name, field in named.items() if field.is_required()]
    if not needed:
        shown_ones = [name for name, field in named.items() if _examples(field)]
        needed = shown_ones[:1]
    parts = [(name, _example(named[name])) for name in needed]
    made = "{" + ", ".join(f"{name}: {'…' if part is None else part}" for name, part in parts) + "}"
    return made if all(part is not None for _, part in parts[:1]) and len(made) <= _MAX_EXAMPLE else None


def _examples(field: FieldInfo) -> list[Any]:
    """Those of the field, or of its type where it may also be null."""
    if field.examples:
        return field.examples
    inner = (part for part in typing.get_args(field.annotation) if typing.get_origin(part) is typing.Annotated)
    notes = (note for part in inner for note in typing.get_args(part)[1:] if isinstance(note, FieldInfo))
    is_list = typing.get_origin(field.annotation) in {list, dict}
    return [] if is_list else next((note.examples for note in notes if note.examples), [])


def _literals(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    arguments = typing.get_args(annotation)
    return _literals(arguments[0]) if typing.get_origin(annotation) in {list, typing.Annotated} and arguments else ()


def _is_list_of_models(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list and bool(models_in(annotation))


def _flow(value: object) -> str:
    match value:
        case str():
            is_plain = _PLAIN.fullmatch(value) and value.lower() not in {"true", "false", "null"}
            return value if is_plain else json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(map(_flow, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
        case _:
            return shown(value)
