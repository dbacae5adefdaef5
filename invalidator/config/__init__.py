"""Settings: one typed value from a YAML file, the environment, files with secrets, and options, in that order.

settings     the sections and the value that ``load`` returns
variables    INVALIDATOR_… variables, their …_FILE form and secrets directories
loading      merges all of it and says what is wrong with file:line:column
agreement    whether rules and targets fit: what neither file shows alone
doubts       what can be used, and hardly does what is meant
"""

from __future__ import annotations

from invalidator.config.loading import DEFAULT_PATH, Loaded, load, load_with_origins
from invalidator.config.settings import HttpSettings, LogSettings, PreflightSettings, Settings, ShutdownSettings

__all__ = [
    "DEFAULT_PATH",
    "HttpSettings",
    "Loaded",
    "LogSettings",
    "PreflightSettings",
    "Settings",
    "ShutdownSettings",
    "load",
    "load_with_origins",
]
