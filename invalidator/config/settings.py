"""The sections of the settings file, and the value that the rest of the program gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from invalidator.continuity import Settings as ContinuitySettings
from invalidator.delivery import Settings as DeliverySettings
from invalidator.delivery.journal import Settings as StateSettings
from invalidator.errors import ConfigError
from invalidator.ports import Options, SourceOptions, TargetOptions
from invalidator.postgres.lookups import Settings as LookupSettings
from invalidator.reloading import Settings as ReloadSettings
from invalidator.telemetry.listen import DEFAULT as DEFAULT_LISTEN
from invalidator.telemetry.listen import parse as parse_listen


def _checked_listen(text: str) -> str:
    try:
        parse_listen(text)
    except ConfigError as error:
        code, message = "bad-value", "'{text}' is not an address to listen on"
        help_text = "write host:port, such as 127.0.0.1:8642, or :8642 for every address"
        raise PydanticCustomError(code, message, {"text": text, "help": help_text}) from error
    return text


class HttpSettings(Options):
    """``http:``, the public read-only listener."""

    listen: Annotated[str, AfterValidator(_checked_listen)] = DEFAULT_LISTEN
    """Where /livez, /readyz, /metrics and /status answer. Port 0 takes a free one."""


class LogSettings(Options):
    """``log:``, the events on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are written."""
    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object a line, or columns for people; auto: console on a terminal, else json."""


class AdminSettings(Options):
    """``admin:``, what only the operator on this machine may ask for."""

    socket: str = ""
    """Path of a unix socket with mode 0600, for `invalidator reload`, `purge`, `tail` and `explain --live`.
    Empty: none."""
    recent_rows: int = Field(default=256, ge=0, le=100_000)
    """How many of the newest row changes are kept for `explain --live` and `tail`, if there is a socket."""


class PreflightSettings(Options):
    """``preflight:``, what the running daemon looks at again and again."""

    interval_seconds: float = Field(default=30, ge=0.1)
    """How often the database is held against the rules while the daemon streams: columns, replica identities,
    partitions, publication, slot; and the SQL of lookups if any of that changed, or something was wrong with them. It
    reads the catalog only."""
    targets_interval_seconds: float = Field(default=600, ge=1)
    """How often each target is asked whether it would take our calls; CDNs by purging the tag `invalidator-probe`."""


class ShutdownSettings(Options):
    """``shutdown:``, what happens on SIGTERM."""

    grace_seconds: float = Field(default=20, ge=0)
    """How long batches that have begun may take to finish; what does not is read again after the next start.
    Keep it below the time after which the supervisor kills (Kubernetes: 30 s)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the daemon is told, checked. Secrets in it are never shown by ``repr``."""

    file: Path | None
    """The settings file; None when the environment says it all."""
    rules: tuple[Path, ...]
    """Rule files, and directories of them, as seen from the current directory."""
    source: SourceOptions
    """The options of the source; their ``type`` names its module."""
    targets: dict[str, TargetOptions]
    """By name, in the order of the file."""
    delivery: DeliverySettings
    continuity: ContinuitySettings
    http: HttpSettings
    log: LogSettings
    lookups: LookupSettings
    preflight: PreflightSettings
    admin: AdminSettings
    reload: ReloadSettings
    shutdown: ShutdownSettings
    state: StateSettings
