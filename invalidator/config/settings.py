"""The sections of the settings file, and the value that the rest of the program gets."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from invalidator.delivery import Settings as DeliverySettings
from invalidator.ports import Options

OptionsType = TypeVar("OptionsType", bound=Options)


def split_listen(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[ipv6]:port``.

    Raises:
        ValueError: it has another form.
    """
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not separator or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and "[" not in text):
        msg = f"{text!r} is not host:port"
        raise ValueError(msg)
    return host, int(port)


def _checked_listen(text: str) -> str:
    try:
        split_listen(text)
    except ValueError as error:
        code, message = "bad-value", "'{text}' is not an address to listen on"
        help_text = "write host:port, such as 127.0.0.1:8642, 0.0.0.0:8642 or [::]:8642"
        raise PydanticCustomError(code, message, {"text": text, "help": help_text}) from error
    return text


class HttpSettings(Options):
    """``http:``, the public read-only listener."""

    listen: Annotated[str, AfterValidator(_checked_listen)] = "127.0.0.1:8642"
    """Where /livez, /readyz, /metrics and /status answer. Port 0 takes a free one."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return split_listen(self.listen)


class LogSettings(Options):
    """``log:``, the events on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are written."""
    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object a line, or columns for people; auto: console on a terminal, else json."""


class ShutdownSettings(Options):
    """``shutdown:``, what happens on SIGTERM."""

    grace_seconds: float = Field(default=20, ge=0)
    """How long batches that have begun may take to finish; what does not is read again after the next start.
    Keep it below the time after which the supervisor kills (Kubernetes: 30 s)."""


@dataclass(frozen=True, slots=True)
class Component:
    """A source or a target with its options."""

    name: str
    """The target's name in the settings; ``source`` for the source."""
    type: str
    """The component's file name: ``registry.load`` finds its module by it."""
    options: Options
    """The component's own ``Settings``."""

    def options_as(self, kind: builtins.type[OptionsType]) -> OptionsType:
        """The options, known to be of this class.

        Raises:
            TypeError: they are of another one.
        """
        if not isinstance(self.options, kind):
            msg = f"{self.name} has options of {self.options.__class__.__module__}, not of {kind.__module__}"
            raise TypeError(msg)
        return self.options


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the daemon is told, checked. Secrets in it are never shown by ``repr``."""

    file: Path | None
    """The settings file; None when the environment says it all."""
    rules: tuple[Path, ...]
    """Rule files, and directories of them, as seen from the current directory."""
    source: Component
    targets: dict[str, Component]
    """By name, in the order of the file."""
    delivery: DeliverySettings
    http: HttpSettings
    log: LogSettings
    shutdown: ShutdownSettings

    def rule_files(self) -> tuple[Path, ...]:
        """The rule files, directories replaced by their ``*.yaml`` and ``*.yml`` in order of name.

        Looks at the disk: files of a directory come and go.
        """
        found: list[Path] = []
        for path in self.rules:
            if path.is_dir():
                inside = (file for file in path.iterdir() if file.suffix in {".yaml", ".yml"})
                found += sorted(file for file in inside if not file.name.startswith("."))
            else:
                found.append(path)
        return tuple(found)
