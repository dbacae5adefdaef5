"""``invalidator config``: the settings in force, and where each came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._options import json_option, settings_options, split_overrides

if TYPE_CHECKING:
    from pydantic import BaseModel

    from invalidator.config import Loaded

MASK = "***"


@click.command("config", short_help="Print the settings in force and where each came from.")
@settings_options
@json_option
def command(settings_file: Path | None, overrides: tuple[str, ...], *, as_json: bool) -> int:
    """Print every setting with its value and its origin: the file's line, a variable, an option, or the default.

    Secrets are masked. Every setting also names the variable that overrides it.
    """
    from invalidator import config

    loaded = config.load_with_origins(settings_file, split_overrides(overrides))
    rows = list(_rows(loaded))
    if as_json:
        document = [
            {"setting": ".".join(path), "value": value, "origin": origin, "variable": _variable(path)}
            for path, value, origin in rows
        ]
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(rows)))
    return 0


Row = tuple[tuple[str, ...], Any, str]


def _variable(path: tuple[str, ...]) -> str:
    from invalidator.config.variables import variable

    return variable(path)


def _lines(rows: list[Row]) -> Iterator[str]:
    from invalidator.yamlfile.diagnostic import printable

    left = [f"{'.'.join(path)} = {_written(value)}" for path, value, _ in rows]
    width = min(60, max(map(len, left), default=0))
    for text, (_, _, origin) in zip(left, rows, strict=True):
        yield printable(f"{text:<{width}}  ({origin})")


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rows(loaded: Loaded) -> Iterator[Row]:
    import dataclasses

    from pydantic import BaseModel

    settings, origins = loaded.settings, loaded.origins
    yield ("rules",), [str(path) for path in settings.rules], origins.get(("rules",), "default")
    sections: dict[tuple[str, ...], BaseModel] = {("source",): settings.source}
    sections |= {("targets", name): options for name, options in settings.targets.items()}
    others = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    sections |= {(name,): value for name, value in others.items() if isinstance(value, BaseModel) and name != "source"}
    for path, model in sections.items():
        yield from _model_rows(path, model, origins)


def _model_rows(path: tuple[str, ...], model: BaseModel, origins: Mapping[Any, str]) -> Iterator[Row]:
    from pydantic import BaseModel

    for name in type(model).model_fields:
        value = getattr(model, name)
        here = (*path, name)
        if isinstance(value, BaseModel):
            yield from _model_rows(here, value, origins)
        else:
            yield here, _shown(value), _origin(here, origins)


def _origin(path: tuple[str, ...], origins: Mapping[Any, str]) -> str:
    """Of the value itself, or of something inside it (a mapping)."""
    inside = (origin for place, origin in origins.items() if place[: len(path)] == path)
    return next(inside, "default")


def _shown(value: Any) -> Any:
    """As JSON knows it; secrets masked, but of an address only its password."""
    from pydantic import SecretStr

    from invalidator.credentials import is_reference, label
    from invalidator.telemetry.redaction import redact

    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        if is_reference(text):
            return label(text)
        is_address = "://" in text or "host=" in text
        return redact(text) if is_address else (MASK if text else "")
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _shown(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool)) or value is None else redact(str(value))
