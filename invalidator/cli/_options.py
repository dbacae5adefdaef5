"""Options that several verbs share, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from invalidator.config import Settings

Function = TypeVar("Function", bound="Callable[..., object]")


def settings_options(function: Function) -> Function:
    """Add ``--settings`` and ``--set``; the function gets ``settings_file`` and ``overrides``."""
    function = click.option(
        "--set",
        "overrides",
        metavar="SETTING=VALUE",
        multiple=True,
        help="Override one setting, as in source.slot=other. Strongest of all; may be given again.",
    )(function)
    return settings_option(function)


def settings_option(function: Function) -> Function:
    """Add ``--settings``; the function gets ``settings_file``."""
    return click.option(
        "-c",
        "--settings",
        "settings_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Settings file.  [default: $INVALIDATOR_SETTINGS, or config/invalidator.yaml]",
    )(function)


def json_option(function: Function) -> Function:
    """Add ``--json``; the function gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(function)


def load_settings(settings_file: Path | None, overrides: tuple[str, ...]) -> Settings:
    """The settings that the options ask for.

    Raises:
        ConfigError: they cannot be used.
        click.UsageError: an override has no value.
    """
    from invalidator import config

    return config.load(settings_file, split_overrides(overrides))


def has_settings(settings_file: Path | None) -> bool:
    """Whether there is a settings file: named by the option or the variable, or in its usual place."""
    import os

    from invalidator import config

    return settings_file is not None or bool(os.environ.get("INVALIDATOR_SETTINGS")) or config.DEFAULT_PATH.exists()


def split_overrides(overrides: tuple[str, ...]) -> dict[str, str]:
    """``source.slot=other`` as mapping.

    Raises:
        click.UsageError: one has no value.
    """
    pairs = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator or not name:
            msg = f"--set {override}: write SETTING=VALUE, as in --set source.slot=other"
            raise click.UsageError(msg)
        pairs[name.strip()] = value
    return pairs
