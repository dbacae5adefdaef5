"""The reference pages of settings, command line, findings and metrics, made from the code.

``python -m invalidator.cli.generators.reference settings`` (or ``cli``, ``findings``, ``metrics``) prints one.
"""

from __future__ import annotations

import enum
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import click
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from invalidator import codes, registry
from invalidator.cli import verbs
from invalidator.config import loading
from invalidator.config.variables import variable
from invalidator.telemetry import catalogue, label_values
from invalidator.telemetry.state import DELIVERY_BUCKETS, DURATION_BUCKETS

_GENERATED = "<!-- made by: python -m invalidator.cli.generators.reference {page} > docs/reference/{page}.md -->"


def settings_page() -> str:
    """All settings of all components."""
    lines = [
        "# Settings",
        "",
        _GENERATED.format(page="settings"),
        "",
        "One YAML file (`--settings FILE`, `$INVALIDATOR_SETTINGS`, or `config/invalidator.yaml`), and over it secrets",
        "directories, variables and `--set`. A complete commented example is `config/invalidator.yaml`;",
        "`invalidator config` prints the settings in force and where each came from.",
        "",
        "| stronger than the line above | example |",
        "|---|---|",
        "| the file | `source: {slot: other}` |",
        "| a file in `$CREDENTIALS_DIRECTORY` (systemd) | `invalidator_source__dsn`, or `source/dsn` |",
        "| a file in `$INVALIDATOR_SECRETS_DIR` | the same names |",
        "| a variable that names a file | `INVALIDATOR_SOURCE__DSN_FILE=/run/secrets/dsn` |",
        "| a variable | `INVALIDATOR_SOURCE__SLOT=other`; lists as JSON: `INVALIDATOR_RULES='[\"a.yaml\"]'` |",
        "| an option | `--set source.slot=other` |",
        "",
        "A variable, secret or field that is no setting is an error. A target's name may be written with `-`; its",
        "variable has `_` there. A target may stand in the environment alone, by `INVALIDATOR_TARGETS__NAME__TYPE`.",
        "Paths in the file are relative to it; paths in variables and options to the current directory.",
        "",
        "## The file",
        "",
        *_table(loading.File, (), skip=("source", "targets")),
    ]
    for kind, place in (("sources", ("source",)), ("targets", ("targets", "NAME"))):
        for type_name in registry.types(kind):
            model: type[BaseModel] = registry.load(kind, type_name).Settings
            text = (model.__doc__ or "").strip()
            lines += ["", f"## `{'.'.join(place)}` with `type: {type_name}`", "", text, "", *_table(model, place)]
    return "\n".join(lines) + "\n"


def command_page() -> str:
    """All verbs with their options."""
    lines = ["# Command line", "", _GENERATED.format(page="cli"), "", f"`invalidator VERB`. {verbs.help}", ""]
    lines += ["What a verb's exit code means: [exit codes](exit-codes.md).", ""]
    context = click.Context(verbs, info_name="invalidator")
    for name in verbs.list_commands(context):
        command = verbs.get_command(context, name)
        if command is not None:
            lines += _verb(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(lines).rstrip() + "\n"


def findings_page() -> str:
    """All codes that a finding may carry."""
    lines = ["# Findings", "", _GENERATED.format(page="findings"), ""]
    lines += ["What `invalidator check`, the start of the daemon and a reload may find, by code. `invalidator check"]
    lines += ["--explain CODE` prints one of these sections. A finding has its place (`file:line:column`, characters"]
    lines += [
        "counted from 1), often a reason (`why`), what to write (`help`), and what mends it as it stands (`fix`)."
    ]
    lines += ["An *error* keeps rules and settings from being used; a *warning* fails `check --strict`; an *info* is a"]
    lines += ["hint.", ""]
    for title, explained in codes.chapters().items():
        lines += [f"## {title}", ""]
        for code in explained:
            lines += [codes.page(code, level=3), ""]
    return "\n".join(lines).rstrip() + "\n"


def metrics_page() -> str:
    """All families of metrics."""
    return "\n".join(_metrics()) + "\n"


def _metrics() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield _GENERATED.format(page="metrics")
    yield ""
    yield (
        "`GET /metrics` answers in the Prometheus text format, or in OpenMetrics when the client accepts it. "
        f"There are {len(catalogue.FAMILIES)} families, and those of the Python client library (`process_*`, "
        "`python_gc_*`, `python_info`)."
    )
    yield ""
    yield (
        "Label values come from the configuration (`slot`, `rule`, `target`, `table` with a rule) or from fixed "
        "sets, never from rows. What is known before the first change is exposed as 0 from the start, so that "
        "`rate()` sees the first step."
    )
    for group in catalogue.GROUPS:
        yield from _group(group)
    yield from ("", "## Fixed label values", "", "| label | values |", "|---|---|")
    for label, values in label_values.FIXED_VALUES.items():
        yield f"| `{label}` | {', '.join(f'`{value}`' for value in values)} |"
    yield from ("", "## Buckets", "", "| family | upper bounds in seconds |", "|---|---|")
    yield f"| `invalidator_invalidation_duration_seconds` | {_bounds(DURATION_BUCKETS)} |"
    yield f"| the other histograms | {_bounds(DELIVERY_BUCKETS)} |"


def _group(group: catalogue.Group) -> Iterator[str]:
    yield from ("", f"## {group.title}", "", "| name | type | labels | meaning |", "|---|---|---|---|")
    for family in group.families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        note = f" {family.note}" if family.note else ""
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.help}{note} |"


def _bounds(bounds: tuple[float, ...]) -> str:
    return " ".join(f"{bound:g}" for bound in bounds)


def _verb(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## `{context.info_name}`"
    yield ""
    yield f"`invalidator {context.info_name} {usage}`"
    yield ""
    yield from _paragraphs(command.help or "")
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [record for record in records if record is not None and "--help" not in record[0]]
    if rows:
        yield "| option | |"
        yield "|---|---|"
        yield from (f"| `{_cell(option)}` | {_cell(text)} |" for option, text in rows)
        yield ""


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield " ".join(paragraph.split())
        yield ""


def _table(model: type[BaseModel], place: tuple[str, ...], skip: tuple[str, ...] = ()) -> Iterator[str]:
    yield "| setting | variable | type | default | |"
    yield "|---|---|---|---|---|"
    for path, field in _fields(model, place, skip):
        default = "required" if field.is_required() else f"`{_default(field.get_default(call_default_factory=True))}`"
        name = variable(path).replace("__NAME__", "__*NAME*__")
        text = _cell(" ".join((field.description or "").replace("``", "`").split()))
        yield f"| `{'.'.join(path)}` | {name} | {_cell(_type(field.annotation))} | {_cell(default)} | {text} |"


def _fields(
    model: type[BaseModel], place: tuple[str, ...], skip: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if name in skip:
            continue
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _fields(annotation, (*place, name), ())
        else:
            yield (*place, name), field


def _type(annotation: Any) -> str:
    """A type in the words of the settings file."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join("`null`" if part is type(None) else _type(part) for part in inner)
    if origin in {list, tuple, set, frozenset}:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, SecretStr):
        return "text (secret)"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return ""
    if isinstance(value, SecretStr):
        return '""' if not value.get_secret_value() else "***"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_default, value)) + "]"
    return str(value) if value != "" else '""'


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"settings": settings_page, "cli": command_page, "findings": findings_page, "metrics": metrics_page}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
