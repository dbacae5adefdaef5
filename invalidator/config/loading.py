"""From file, environment and options to ``Settings``, with everything that is wrong found in one go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, Field, create_model

from invalidator import registry, yamlfile
from invalidator.config import variables
from invalidator.config.settings import (
    AdminSettings,
    HttpSettings,
    LogSettings,
    PreflightSettings,
    Settings,
    ShutdownSettings,
)
from invalidator.config.variables import Names, Override, Shape
from invalidator.continuity import Settings as ContinuitySettings
from invalidator.delivery import Settings as DeliverySettings
from invalidator.delivery.journal import Settings as StateSettings
from invalidator.errors import ConfigError
from invalidator.ports import Options, SourceOptions, TargetOptions
from invalidator.postgres.lookups import Settings as LookupSettings
from invalidator.reloading import Settings as ReloadSettings

DEFAULT_PATH: Final = Path("config/invalidator.yaml")
DEFAULT_SOURCE: Final = "pgoutput"
_DEFAULT_RULES: Final = "rules.yaml"
Model = TypeVar("Model", bound=BaseModel)
_SUGGESTIONS: Final = {
    "postgres": "source",
    "database": "source",
    "sinks": "targets",
    "redis": "targets",
    "caches": "targets",
    "cdn": "targets",
    "log_level": "log",
    "logging": "log",
    "uri": "url",
    "host": "url",
    "address": "url",
    "endpoint": "url",
    "port": "listen",
    "bind": "listen",
    "connection": "dsn",
    "token": "api_token",
    "api_key": "api_token",
}
"""What people write who know another tool → the setting here, in whatever section has it."""
TARGET_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")


class File(Options):
    """The sections of the file; those of components are checked by the components."""

    rules: str | list[str] = _DEFAULT_RULES
    """A rule file, a directory of rule files, or a list of both."""
    delivery: DeliverySettings = DeliverySettings()
    """How batches reach the targets."""
    http: HttpSettings = HttpSettings()
    """The public read-only listener."""
    log: LogSettings = LogSettings()
    """Events on standard output."""
    continuity: ContinuitySettings = ContinuitySettings()
    """What happens when changes are missing, and how that is noticed."""
    lookups: LookupSettings = LookupSettings()
    """Where and how the SELECTs of rules run."""
    admin: AdminSettings = AdminSettings()
    """What only the operator on this machine may ask for."""
    reload: ReloadSettings = ReloadSettings()
    """New rules without a restart."""
    preflight: PreflightSettings = PreflightSettings()
    """Looking at database and targets while the daemon runs."""
    shutdown: ShutdownSettings = ShutdownSettings()
    """What happens on SIGTERM."""
    state: StateSettings = StateSettings()
    """A file for what CDNs that fail have not purged yet."""
    source: dict[str, Any] = Field(default_factory=dict)
    """Where committed changes come from."""
    targets: dict[str, dict[str, Any] | None]
    """Where stale entries live, each under a name of your choice."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each value that is no default came from."""

    settings: Settings
    origins: dict[yamlfile.Path, str]


def load(
    path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check the settings.

    Args:
        path: the settings file; None: $INVALIDATOR_SETTINGS, or else config/invalidator.yaml if that exists.
        overrides: dotted setting → value; stronger than the environment, which is stronger than the file.
        environment: None: that of the process.

    Raises:
        ConfigError: they cannot be used; all that is wrong, each with its place and how to mend it.
    """
    return load_with_origins(path, overrides, environment=environment).settings


def load_with_origins(
    path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """The same as ``load``, with the origin of each value."""
    environment = os.environ if environment is None else environment
    return _Loading(_document(path, environment), environment, overrides or {}).run()


def _document(path: Path | None, environment: Mapping[str, str]) -> yamlfile.Document:
    given = path or (Path(environment[variables.SETTINGS]) if environment.get(variables.SETTINGS) else None)
    if given is not None:
        return yamlfile.read(given)
    if DEFAULT_PATH.exists():
        return yamlfile.read(DEFAULT_PATH)
    if not any(variables.split(name)[0] == "targets" for name in variables.candidates(environment)):
        msg = f"there are no settings: {DEFAULT_PATH} does not exist here"
        raise ConfigError(msg, fix=f"name the file: --settings FILE, or {variables.SETTINGS}=FILE")
    return yamlfile.parse("{}", _NO_FILE)


_NO_FILE: Final = "environment"


class _Loading:
    """One reading of the settings; collects diagnostics, so that all are reported at once."""

    def __init__(
        self, document: yamlfile.Document, environment: Mapping[str, str], overrides: Mapping[str, str]
    ) -> None:
        self._document = document
        self._environment = environment
        self._options = overrides
        self._diagnostics: list[yamlfile.Diagnostic] = []
        self._origins: dict[yamlfile.Path, str] = {}
        data = document.data
        self._data: dict[str, Any] = data if isinstance(data, dict) else {}
        if data is not None and not isinstance(data, dict):
            yamlfile.validate(File, document)  # says what was read instead of a mapping
        _refuse_rules(document)

    def run(self) -> Loaded:
        types = self._types()
        self._raise_if_any()
        shape = self._shape(types)
        merged = self._merged(shape)
        sections = self._checked(File, (), merged)
        self._check_targets(merged)
        components = {path: self._component(path, model, merged) for path, model in types.items()}
        self._raise_if_any()
        if sections is None:  # then there was a diagnostic, and it was raised
            raise AssertionError
        return Loaded(self._settings(sections, components), self._all_origins(merged))

    # -- components ----------------------------------------------------------------------------------------------

    def _types(self) -> dict[yamlfile.Path, type[Options]]:
        """The options' class of the source and of each target, from wherever its type is said."""
        found: dict[yamlfile.Path, type[Options]] = {}
        self._add_type(found, "sources", ("source",), self._said_type(("source",)) or DEFAULT_SOURCE)
        for name in self._target_names():
            path = ("targets", name)
            said = self._said_type(path)
            if said is None:
                where = self._document.key_span(path)
                message = f"target '{name}' needs the field 'type'"
                help_text = f"one of: {', '.join(registry.types('targets'))}"
                self._diagnostics.append(self._document.diagnostic(where, "missing-field", message, help_text))
            else:
                self._add_type(found, "targets", path, said)
        return found

    def _add_type(self, found: dict[yamlfile.Path, type[Options]], kind: str, path: yamlfile.Path, said: str) -> None:
        try:
            module = registry.load(kind, said)
        except ConfigError as error:
            where = self._document.span((*path, "type"))
            unknown = self._document.diagnostic(where, "unknown-type", str(error))
            if self._at((*path, "type")) != said:
                names = (*map(str, path), "type")
                dotted = ".".join(names)
                origin = f"--set {dotted}" if dotted in self._options else variables.variable(names)
                unknown = yamlfile.Diagnostic(origin, 0, 0, 1, unknown.code, unknown.message)
            self._diagnostics.append(unknown)
            return
        found[path] = cast("type[Options]", module.Settings)

    def _said_type(self, path: yamlfile.Path) -> str | None:
        dotted = ".".join(map(str, (*path, "type")))
        if dotted in self._options:
            return self._options[dotted]
        name = variables.variable((*map(str, path), "type"))
        if name in self._environment:
            return self._environment[name]
        section = self._at(path)
        said = section.get("type") if isinstance(section, dict) else None
        return None if said is None else str(said)

    def _target_names(self) -> list[str]:
        """The targets of the file, then those that only a variable names by giving their type."""
        targets = self._data.get("targets")
        names = [str(name) for name in targets] if isinstance(targets, dict) else []
        spelled = {variables.variable(("targets", name)) for name in names}
        extra: list[str] = []
        for name in variables.candidates(self._environment):
            path = variables.split(name)
            is_type = len(path) == 3 and path[0] == "targets" and path[2] == "type"
            if is_type and variables.variable(path[:2]) not in spelled:
                extra.append(path[1])
        return names + extra

    def _check_targets(self, merged: dict[str, Any]) -> None:
        targets = merged.get("targets")
        if isinstance(targets, dict) and not targets:
            where = self._document.key_span(("targets",))
            message = "there is no target: nothing could be invalidated"
            self._diagnostics.append(self._document.diagnostic(where, "missing-field", message))
        seen: dict[str, str] = {}
        for name in targets if isinstance(targets, dict) else ():
            where = self._document.key_span(("targets", name))
            if not TARGET_NAME.fullmatch(name):
                message = f"'{name}' is no name for a target"
                help_text = "small letters, digits, '-' and '_', and a letter first"
                self._diagnostics.append(self._document.diagnostic(where, "bad-value", message, help_text))
            other = seen.setdefault(name.replace("-", "_"), name)
            if other != name:
                message = f"targets '{other}' and '{name}' would share their variables ({variables.PREFIX}…)"
                self._diagnostics.append(self._document.diagnostic(where, "bad-value", message))

    def _component(self, path: yamlfile.Path, model: type[Options], merged: dict[str, Any]) -> Options | None:
        data: Any = merged
        for step in path:
            data = data.get(step) if isinstance(data, dict) else None
        if path == ("source",):
            data = {"type": DEFAULT_SOURCE} | (data if isinstance(data, dict) else {})
        return self._checked(model, path, data)

    # -- values --------------------------------------------------------------------------------------------------

    def _shape(self, types: dict[yamlfile.Path, type[Options]]) -> type[Shape]:
        """The model of all settings with these components: it defines which variables there are."""
        targets = {str(path[1]): (model, ...) for path, model in types.items() if path[0] == "targets"}
        targets_model = cast("type[BaseModel]", create_model("Targets", **cast("Any", targets)))
        fields: dict[str, Any] = {name: (field.annotation, field) for name, field in File.model_fields.items()}
        fields["source"] = (types[("source",)], ...)
        fields["targets"] = (targets_model, ...)
        return cast("type[Shape]", create_model("AllSettings", __base__=Shape, **fields))

    def _merged(self, shape: type[Shape]) -> dict[str, Any]:
        names = Names(shape)
        found = variables.overrides(self._environment, names)
        for dotted, text in self._options.items():
            path = tuple(dotted.split("."))
            if names.find(variables.variable(path)) is None:
                msg = f"unknown setting {dotted}: {names.suggestion(variables.variable(path), as_setting=True)}"
                raise ConfigError(msg)
            found.append(Override(path, text, f"--set {dotted}"))
        merged: dict[str, Any] = _copy(self._data)
        for override in found:
            _merge(merged, variables.parse(shape, override))
            self._origins[override.path] = override.origin
        return merged

    def _checked(self, model: type[Model], path: yamlfile.Path, data: object) -> Model | None:
        try:
            return yamlfile.validate(
                model, self._document, path=path, data=data, origins=self._origins, suggestions=_SUGGESTIONS
            )
        except yamlfile.Invalid as invalid:
            self._diagnostics += [_with_variable(diagnostic, path) for diagnostic in invalid.diagnostics]
            return None

    def _settings(self, sections: File, components: Mapping[yamlfile.Path, Options | None]) -> Settings:
        targets = {str(path[1]): options for path, options in components.items() if path[0] == "targets"}
        is_file = self._document.file != _NO_FILE
        return Settings(
            file=Path(self._document.file) if is_file else None,
            rules=self._rules(sections.rules),
            source=cast("SourceOptions", components[("source",)]),
            targets=cast("dict[str, TargetOptions]", targets),
            delivery=sections.delivery,
            continuity=sections.continuity,
            http=sections.http,
            log=sections.log,
            lookups=sections.lookups,
            preflight=sections.preflight,
            admin=sections.admin,
            reload=sections.reload,
            shutdown=sections.shutdown,
            state=sections.state,
        )

    def _rules(self, written: str | list[str]) -> tuple[Path, ...]:
        """In the file, paths are relative to it; from a variable or an option, to the current directory."""
        paths = [written] if isinstance(written, str) else written
        is_here = ("rules",) in self._origins or self._document.file == _NO_FILE
        folder = Path() if is_here else Path(self._document.file).parent
        return tuple(folder / path for path in paths)

    def _all_origins(self, merged: dict[str, Any]) -> dict[yamlfile.Path, str]:
        origins: dict[yamlfile.Path, str] = {}
        for path in _paths(merged):
            span = self._document.values.get(path)
            if span is not None:
                origins[path] = f"{self._document.file}:{span.line}"
        return origins | self._origins

    def _at(self, path: yamlfile.Path) -> Any:
        data: Any = self._data
        for step in path:
            data = data.get(step) if isinstance(data, dict) else None
        return data

    def _raise_if_any(self) -> None:
        if self._diagnostics:
            unique = list(dict.fromkeys(self._diagnostics))
            raise yamlfile.Invalid(unique, {self._document.file: self._document.text})


def _refuse_rules(document: yamlfile.Document) -> None:
    """Say it in one finding if somebody takes rules for the settings, or writes rules into them.

    Raises:
        yamlfile.Invalid: there are rules in it.
    """
    rules = document.data.get("rules") if isinstance(document.data, dict) else None
    if not isinstance(rules, list) or not any(isinstance(entry, dict) for entry in rules):
        return
    if "version" in document.data:
        span, message = yamlfile.Span(1, 1, 1, 1), "this is a rule file, and settings were expected here"
        name = Path(document.file).name
        help_text = f"leave --settings out, or name it in the settings, as in rules: {name}"
    else:
        span, message = document.key_span(("rules",)), "rules stand in a file of their own"
        help_text = "move them, below `version: 1`, into a file and name it here, as in rules: rules.yaml"
    found = document.diagnostic(span, "rule-file", message, help_text)
    raise yamlfile.Invalid([found], {document.file: document.text})


def _with_variable(diagnostic: yamlfile.Diagnostic, path: yamlfile.Path) -> yamlfile.Diagnostic:
    """A missing field may also come from the environment, where secrets belong."""
    missing = re.search(r" needs the field '(\w+)'$", diagnostic.message)
    if missing is None:
        return diagnostic
    name = variables.variable((*map(str, path), missing[1]))
    return replace(diagnostic, help=f"{diagnostic.help or 'write it here'}, or set {name} or {name}_FILE")


def _copy(data: Any) -> Any:
    return {key: _copy(value) for key, value in data.items()} if isinstance(data, dict) else data


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        known = into.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            _merge(known, value)
        else:
            into[key] = value


def _paths(data: Any, path: yamlfile.Path = ()) -> Iterator[yamlfile.Path]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(value, (*path, key))
    elif path:
        yield path
