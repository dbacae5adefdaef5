"""pydantic's findings become diagnostics: at the right place, in words about the file, with the mending."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from invalidator.yamlfile import advice
from invalidator.yamlfile.diagnostic import Diagnostic, Invalid, looks_secret, shown
from invalidator.yamlfile.document import Document, Path, Span

Model = TypeVar("Model", bound=BaseModel)

_UNSET: Final = object()
_EXPECTED: Final = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "iterable": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "model_attributes": "a mapping",
    "dataclass": "a mapping",
    "path": "a path",
    "url": "a URL",
}
_TYPE_ERROR: Final = re.compile(r"(\w+?)_(?:type|parsing|from_float|sub_type)")
_BOUNDS: Final = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
    "multiple_of": ("multiple_of", "must be a multiple of"),
}


def validate(
    model: type[Model],
    document: Document,
    *,
    path: Path = (),
    data: object = _UNSET,
    origins: Mapping[Path, str] | None = None,
    suggestions: Mapping[str, str] | None = None,
) -> Model:
    """The document, or the part of it at a path, as this model.

    Args:
        model: what the data must be.
        document: the file.
        path: where the part begins, such as ``("targets", "edge")``; empty for all of it.
        data: validated instead of what the file holds there (the file's data with overrides merged in).
        origins: for overridden values: complete path → the name of what holds it, shown instead of a place in the file.
        suggestions: unknown field → what is meant by it; asked before similar names are.

    A validator of the model can speak for itself by a ``PydanticCustomError`` whose type holds a hyphen: the type is
    the diagnostic's code, and its context may hold ``help``, ``at="key"`` (the key is marked instead of the value) and
    ``offset`` and ``width`` (a part of a text is marked). Fields with ``exclude=True`` are not offered in help lines.

    Raises:
        Invalid: holds every error.
    """
    subject = _at(document.data, path) if data is _UNSET else data
    if subject is None:
        subject = {}  # `edge:` with nothing below it is an empty mapping to its author
    try:
        return model.model_validate(subject)
    except ValidationError as error:
        explain = _Explainer(model, document, path, subject, origins or {}, suggestions or {})
        findings = error.errors(include_url=False)
        diagnostics = dict.fromkeys(explain(finding) for finding in findings)
        raise Invalid(list(diagnostics), {document.file: document.text}) from None


def _at(data: Any, path: Path) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _has(data: object, step: str | int) -> bool:
    match data:
        case dict():
            return step in data
        case list():
            return isinstance(step, int) and step < len(data)
        case _:
            return False


class _Explainer:
    """Turns one pydantic error after the other into a diagnostic."""

    def __init__(
        self,
        model: type[BaseModel],
        document: Document,
        root: Path,
        data: object,
        origins: Mapping[Path, str],
        suggestions: Mapping[str, str],
    ) -> None:
        self._model = model
        self._document = document
        self._root = root
        self._data = data
        self._origins = origins
        self._suggestions = suggestions

    def __call__(self, finding: Any) -> Diagnostic:
        """The diagnostic of one entry of ``ValidationError.errors()``."""
        location = self._known(tuple(finding["loc"]))
        kind: str = finding["type"]
        if kind == "extra_forbidden":
            return self._unknown_field(location)
        if kind == "missing":
            return self._missing_field(tuple(finding["loc"]))
        code, message, help_text = self._bad_value(kind, finding, location)
        context = finding.get("ctx") or {}
        at_key = context.get("at") == "key" or self._is_secret(location)  # the lines of a secret are not shown
        found = self._diagnostic(location, code, message, help_text, at_key=at_key)
        if "offset" in context and found.file == self._document.file:
            part = self._document.within(self._root + location, context["offset"], context.get("width", 1))
            return self._document.diagnostic(part, code, message, help_text)
        return found

    def _known(self, location: Path) -> Path:
        """The location without what pydantic adds to it (names of union members, ``[key]``)."""
        data: Any = self._data
        known: list[str | int] = []
        for step in location:
            if _has(data, step):
                data = data[step]
                known.append(step)
        return tuple(known)

    def _diagnostic(
        self, location: Path, code: str, message: str, help_text: str | None, *, at_key: bool = False, width: int = 0
    ) -> Diagnostic:
        path = self._root + location
        origin = self._origin(path)
        if origin is not None:
            return Diagnostic(origin, 0, 0, 1, code, message, help_text)
        span = self._document.key_span(path) if at_key else self._document.span(path)
        found = self._document.diagnostic(span, code, message, help_text)
        if width:
            return Diagnostic(found.file, found.line, found.column, width, code, message, help_text)
        return found

    def _origin(self, path: Path) -> str | None:
        """Where a value comes from that does not stand in the file."""
        for end in range(len(path), 0, -1):
            origin = self._origins.get(path[:end])
            if origin is not None:
                return origin
            if path[:end] in self._document.values:
                break
        return None

    # -- fields ------------------------------------------------------------------------------------------------

    def _unknown_field(self, location: Path) -> Diagnostic:
        *parents, name = location
        parent = tuple(parents)
        message = f"unknown field {shown(name)} in {self._place(parent)}"
        help_text = self._help_for_field(parent, str(name))
        return self._diagnostic(location, "unknown-field", message, help_text, at_key=True)

    def _help_for_field(self, parent: Path, name: str) -> str:
        allowed = _fields(_models_at(self._model, parent))
        listing = f"allowed here: {', '.join(sorted(allowed))}" if allowed else "nothing is allowed here"
        meant = self._suggestions.get(name)
        if meant in allowed:
            longer = next((field for field in sorted(allowed) if field.endswith(f"_{name}")), meant)
            return f"did you mean '{longer}'? {listing}"
        inner = self._inside(parent, name, allowed) or self._inside(parent, meant, allowed)
        if inner is not None:
            return inner if meant is None or f"'{name}'" in inner else f"did you mean '{meant}'? {inner}"
        near = advice.near(name, allowed)
        if near is not None:
            return f"did you mean '{near}'? {listing}"
        for end in range(len(parent) - 1, -1, -1):
            known = _fields(_models_at(self._model, parent[:end]))
            found = name if name in known else meant
            if found in known:
                renamed = "" if found == name else f"did you mean '{found}'? "
                return f"{renamed}'{found}' is a field of {self._place(parent[:end])}: indent it less. {listing}"
        return listing

    def _inside(self, parent: Path, name: str | None, allowed: Mapping[str, Any]) -> str | None:
        """For the field of one of the fields that are allowed."""
        inner = next((field for field, models in allowed.items() if name in _fields(models)), None)
        if inner is None:
            return None
        at = self._document.keys.get((*self._root, *parent, inner))
        put = f"indent it under line {at.line}" if at else f"put it under '{inner}:'"
        return f"'{name}' is a field of '{inner}': {put}"

    def _missing_field(self, location: Path) -> Diagnostic:
        parent = self._known(location[:-1])
        message = f"{self._place(parent)} needs the field '{location[-1]}'"
        width = 0 if self._root + parent in self._document.keys else 1  # a name, or else where the mapping begins
        help_text = None if self._is_secret(location) else advice.missing(str(location[-1]), self._field(location))
        return self._diagnostic(parent, "missing-field", message, help_text, at_key=True, width=width)

    def _place(self, location: Path) -> str:
        """How people call it: ``rule 'user' > invalidate``, never ``rules.0.invalidate``."""
        path = self._root + location
        words: list[str] = []
        for index, step in enumerate(path):
            if not isinstance(step, int):
                words.append(shown(step).strip("'"))
                continue
            item = _at(self._data, path[len(self._root) : index + 1]) if index >= len(self._root) else None
            name = item.get("name") if isinstance(item, dict) else None
            kind = words.pop().removesuffix("s") if words else "entry"
            words.append(f"{kind} {shown(name)}" if isinstance(name, str) and name else f"{kind} #{step + 1}")
        return " > ".join(words) or "the file"

    # -- values ------------------------------------------------------------------------------------------------

    def _bad_value(self, kind: str, finding: Any, location: Path) -> tuple[str, str, str | None]:
        value = finding.get("input")
        context: dict[str, Any] = finding.get("ctx") or {}
        if "-" in kind:
            return kind, finding["msg"], context.get("help")
        if self._is_secret(location):
            value = _Hidden()
        typed = _TYPE_ERROR.fullmatch(kind)
        if typed and typed[1] in _EXPECTED:
            return self._wrong_type(_EXPECTED[typed[1]], value, location)
        if kind in {"literal_error", "enum"}:
            return _not_one_of(context["expected"], value)
        help_text = "write an entry, or remove the field" if kind == "too_short" and not value else None
        return "bad-value", _message(kind, finding["msg"], context, value), help_text

    def _wrong_type(self, expected: str, value: object, location: Path) -> tuple[str, str, str | None]:
        if expected == "text" and _is_template_like(value):
            source = self._source(location)
            quoted = f"'{source}'" if source and "'" not in source and len(source) <= 80 else "'{id}'"
            help_text = f"a value that starts with '{{', or stands inside [ ... ], needs quotes: {quoted}"
            return "unquoted-template", "a template was expected here, but YAML read a mapping", help_text
        message = f"{expected} was expected here, but YAML read {_called(value)}"
        return "bad-value", message, self._help_for_type(expected, value, location)

    def _help_for_type(self, expected: str, value: object, location: Path) -> str | None:
        name = location[-1] if location else None
        field = self._field(location)
        match expected:
            case "text":
                return advice.for_text(value, field, self._source(location))
            case "a list":
                return advice.for_list(value, field)
            case "a mapping":
                of_entry = location[:-1] if self._names_entries(location[:-1]) else location
                return advice.for_mapping(value, name, field, _models_at(self._model, of_entry))
            case "true or false":
                return advice.for_boolean(value)
            case "a number" | "a whole number":
                return advice.for_number(value, name)
            case _:
                return None

    def _field(self, location: Path) -> FieldInfo | None:
        """The field that this is the value of; None for an entry of a list or of a mapping by name."""
        if not location or not isinstance(location[-1], str):
            return None
        above = _models_at(self._model, location[:-1])
        if len(location) > 1 and isinstance(location[-2], str) and self._names_entries(location[:-1]):
            return None
        return advice.fields(above).get(location[-1])

    def _names_entries(self, location: Path) -> bool:
        """Whether the keys of the mapping here are names of the author's choice."""
        field = self._field(location)
        return field is not None and typing.get_origin(field.annotation) is dict

    def _is_secret(self, location: Path) -> bool:
        if any(looks_secret(step) for step in self._root + location):
            return True
        models = _models_at(self._model, location[:-1]) if location else ()
        name = location[-1] if location else None
        fields = (model.model_fields.get(name) for model in models if isinstance(name, str))
        return any(field is not None and _mentions(field.annotation, (SecretStr, SecretBytes)) for field in fields)

    def _source(self, location: Path) -> str:
        """How a value stands in the file, if it does and on one line: for quoting it in a help line."""
        if self._origin(self._root + location) is not None:
            return ""
        span: Span = self._document.span(self._root + location)
        if span.line != span.end_line:
            return ""
        line = self._document.lines[span.line - 1]
        return line[span.column - 1 : span.end_column - 1].strip()


class _Hidden:
    """Stands for a secret in messages."""

    def __str__(self) -> str:
        return "the given value"


def _called(value: object) -> str:
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return shown(value)
        case int() | float():
            return f"the number {shown(value)}"
        case str():
            return f"the text {shown(value)}"
        case _:
            return shown(value)


def _is_template_like(value: object) -> bool:
    """Whether YAML made this mapping of an unquoted ``{id}`` or ``user:{id}``."""
    if not isinstance(value, dict) or not value:
        return False
    return all(inner is None or _is_template_like(inner) for inner in value.values())


def _not_one_of(expected: str, value: object) -> tuple[str, str, str | None]:
    if expected.count("'") == 2 or not re.search(r", | or ", expected):
        return "bad-value", f"{_called(value)} is not {expected}", f"write {expected}"
    choices = re.findall(r"'([^']*)'", expected)
    return "bad-value", f"{shown(value)} is not one of {expected}", advice.for_choice(value, choices)


def _message(kind: str, text: str, context: dict[str, Any], value: object) -> str:
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{shown(value)} is out of range: it {words} {context[name]}"
    if kind == "string_too_short":
        return (
            "must not be empty" if context["min_length"] == 1 else f"needs at least {context['min_length']} characters"
        )
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind == "too_short":
        return f"needs at least {context['min_length']} {_entries(context['min_length'])}"
    if kind == "too_long":
        return f"may have at most {context['max_length']} {_entries(context['max_length'])}"
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} does not have the form {context['pattern']}"
    if kind in {"value_error", "assertion_error"}:
        return str(context.get("error", text))
    return re.sub(r"^(?:Input|Value|String) should ", "this must ", text)


def _entries(count: int) -> str:
    return "entry" if count == 1 else "entries"


# -- models ----------------------------------------------------------------------------------------------------


def _models_at(model: type[BaseModel], path: Path) -> tuple[type[BaseModel], ...]:
    """The models that may describe the mapping at this path."""
    models: tuple[type[BaseModel], ...] = (model,)
    for step in path:
        if isinstance(step, int):
            continue
        inner: list[type[BaseModel]] = []
        for each in models:
            field = _fields((each,)).get(step)
            inner += field if field is not None else models
        models = tuple(dict.fromkeys(inner))
    return models


def _fields(models: Iterable[type[BaseModel]]) -> dict[str, tuple[type[BaseModel], ...]]:
    """The fields of these models by the name the file uses, each with the models inside it."""
    return {name: advice.models_in(field.annotation) for name, field in advice.fields(models).items()}


def _mentions(annotation: Any, types: tuple[type, ...]) -> bool:
    is_one = isinstance(annotation, type) and issubclass(annotation, types)
    return is_one or any(_mentions(part, types) for part in typing.get_args(annotation))
