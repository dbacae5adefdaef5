"""INVALIDATOR_… variables: which there are, what they hold, and which of them are misspelled.

``INVALIDATOR_TARGETS__EDGE__API_TOKEN`` is the setting ``targets.edge.api_token``; with ``_FILE`` behind it, it names a
file that holds the value; one with the credentials of a connection is read anew for each.
A secrets directory holds files that are called like variables or like paths: both
``invalidator_targets__edge__api_token`` and ``targets/edge/api_token``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from invalidator.credentials import FILE, Secret
from invalidator.errors import ConfigError

PREFIX: Final = "INVALIDATOR_"
DELIMITER: Final = "__"
SETTINGS: Final = "INVALIDATOR_SETTINGS"
SECRETS_DIR: Final = "INVALIDATOR_SECRETS_DIR"
CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"  # systemd: LoadCredential=
_RESERVED: Final = frozenset({SETTINGS, SECRETS_DIR})
_KUBERNETES: Final = re.compile(
    # A Service called "invalidator" or "invalidator-metrics" puts these into every pod of its namespace.
    # https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    r"INVALIDATOR_(?:[A-Z0-9]+_)*(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9]+)*|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)

SettingPath = tuple[str, ...]


class Shape(BaseSettings):
    """The base of the model that says which variables there are; made anew for the components in use."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="forbid")


@dataclass(frozen=True, slots=True)
class Override:
    """A value from outside the settings file."""

    path: SettingPath
    text: str
    origin: str
    """What holds it, for messages: a variable, a file or an option."""


class Names:
    """All variables that a shape allows."""

    def __init__(self, shape: type[BaseModel]) -> None:
        self.paths: dict[str, SettingPath] = {}
        self._open: dict[str, SettingPath] = {}
        self._read_when_used: set[SettingPath] = set()
        for path, field in _leaves(shape):
            is_open = get_origin(field.annotation) is dict
            (self._open if is_open else self.paths)[variable(path)] = path
            if _is_read_when_used(field):
                self._read_when_used.add(path)

    def held_by(self, path: SettingPath, text: str, file: Path) -> str:
        """What a setting is whose value was found in a file: that value, or for some the file, to be read anew."""
        return f"{FILE}{file}" if path in self._read_when_used else text

    def find(self, name: str) -> SettingPath | None:
        """The setting that a variable's name means; None when there is none."""
        name = name.upper()
        if name in self.paths:
            return self.paths[name]
        if name in self._open:
            return self._open[name]
        for start, path in self._open.items():  # a mapping with free names, such as headers
            rest = name.removeprefix(start + DELIMITER)
            if rest != name and rest and DELIMITER not in rest:
                return (*path, rest.lower())
        return None

    def suggestion(self, name: str, *, as_setting: bool = False) -> str:
        """What variable was probably meant, as a sentence; or what setting, as options name it."""
        known = [*self.paths, *self._open]
        path = split(name)
        if len(path) > 2 and path[0] == "targets" and variable((*path[:2], "type")) not in self.paths:
            known = [each for each in known if split(each)[0] != "targets" or split(each)[-1] == path[-1]]
            near = difflib.get_close_matches(name.upper(), known, 1, 0.7)
            also = f", or did you mean {'.'.join(split(near[0])) if as_setting else near[0]}?" if near else ""
            return f"there is no target '{path[1]}': set {variable((*path[:2], 'type'))} to make one{also}"
        near = difflib.get_close_matches(name.upper(), known, 1, 0.7)
        if near and as_setting:
            return f"did you mean {'.'.join(self.paths.get(near[0], split(near[0])))}?"
        return f"did you mean {near[0]}?" if near else "invalidator config   (lists the settings there are)"


def variable(path: SettingPath) -> str:
    """The variable of a setting."""
    return PREFIX + DELIMITER.join(part.upper().replace("-", "_") for part in path)


def split(name: str) -> SettingPath:
    """A variable's name as path, not yet checked; without the prefix and in lower case."""
    return tuple(part.lower() for part in name[len(PREFIX) :].split(DELIMITER))


def candidates(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are ours, in a fixed order."""
    return {
        name: environment[name]
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in _RESERVED and not _is_of_kubernetes(name, environment[name])
    }


def _is_of_kubernetes(name: str, value: str) -> bool:
    if not _KUBERNETES.fullmatch(name):
        return False
    # INVALIDATOR_HTTP_PORT=9999 is somebody's guess at a setting; Kubernetes writes tcp://10.0.0.1:9999 there.
    return not name.endswith("_PORT") or "_SERVICE_" in name or "://" in value


def overrides(environment: Mapping[str, str], names: Names) -> list[Override]:
    """What the environment and the secrets directories set; a later one wins over an earlier one.

    Raises:
        ConfigError: a variable or a secret is misspelled, given twice, or cannot be read.
    """
    found = [*_from_directory(environment.get(CREDENTIALS_DIRECTORY), CREDENTIALS_DIRECTORY, names)]
    found += _from_directory(environment.get(SECRETS_DIR), SECRETS_DIR, names)
    ours = candidates(environment)
    unknown: list[str] = []
    for name, value in ours.items():
        path = names.find(name)
        if path is not None:
            found.append(Override(path, value, name))
            continue
        plain = name.removesuffix("_FILE")
        path = names.find(plain) if plain != name else None
        if path is None:
            unknown.append(f"unknown variable {name}: {names.suggestion(name)}")
        elif plain in ours:
            msg = f"both {plain} and {name} are set: remove one of them"
            raise ConfigError(msg)
        else:
            found.append(Override(path, names.held_by(path, _read(value, name), Path(value)), name))
    if unknown:
        raise ConfigError("\n".join(unknown))
    return found


def parse(shape: type[Shape], override: Override) -> dict[str, Any]:
    """The nested mapping that an override stands for; lists and mappings are read as JSON.

    Raises:
        ConfigError: the text is no JSON where some is needed.
    """
    try:
        return _Single(shape, override)()
    except SettingsError as error:
        msg = f"{override.origin}: a list or mapping is needed here, written as JSON"
        raise ConfigError(msg, fix=f"""{override.origin}='["one", "two"]'""") from error


class _Single(EnvSettingsSource):
    """An environment of nothing but one value."""

    def __init__(self, shape: type[Shape], override: Override) -> None:
        self._given = {(PREFIX + DELIMITER.join(override.path)).lower(): override.text}
        super().__init__(shape)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given


def _leaves(model: type[BaseModel], path: SettingPath = ()) -> Iterator[tuple[SettingPath, FieldInfo]]:
    """Each setting's path, and what it is."""
    for name, field in model.model_fields.items():
        inner = _model_of(field)
        if inner is not None:
            yield from _leaves(inner, (*path, name))
        else:
            yield (*path, name), field


def _is_read_when_used(field: FieldInfo) -> bool:
    """Whether the setting may say from where it is to be read anew each time."""
    kinds = (field.annotation, *get_args(field.annotation))
    return any(isinstance(each, type) and issubclass(each, Secret) for each in kinds)


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    for annotation in (field.annotation, *get_args(field.annotation)):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return None if get_origin(field.annotation) in {list, tuple, dict} else annotation
    return None


def _from_directory(directory: str | None, name: str, names: Names) -> Iterator[Override]:
    if not directory:
        return
    path = Path(directory)
    try:
        if not path.is_dir():
            msg = f"{name}: there is no directory {directory}"
            raise ConfigError(msg)
        secrets = NestedSecretsSettingsSource.load_secrets(path.resolve())
    except (OSError, SettingsError, UnicodeDecodeError) as error:
        msg = f"{name}: {directory} cannot be read: {error}"
        raise ConfigError(msg) from error
    for file, text in sorted(secrets.items()):
        spelled = file.replace("/", DELIMITER).upper()
        spelled = spelled if spelled.startswith(PREFIX) else PREFIX + spelled
        setting = names.find(spelled)
        if setting is not None:
            yield Override(setting, names.held_by(setting, text, path / file), f"{directory}/{file}")
        elif file.upper().startswith(PREFIX) or DELIMITER in file:  # other files there are somebody else's
            msg = f"unknown secret {directory}/{file}: {names.suggestion(spelled)}"
            raise ConfigError(msg)


def _read(file: str, name: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{name}: {file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        raise ConfigError(msg) from error
