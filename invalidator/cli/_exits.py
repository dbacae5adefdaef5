"""How a command ends: exit codes, and what of an error is shown."""

from __future__ import annotations

import sys
from enum import IntEnum

from invalidator.errors import ConfigError, InvalidatorError, SlotInUse, SourceDisconnected, TargetUnavailable


class Exit(IntEnum):
    """Exit codes; those above 63 are of sysexits.h, so that supervisors know them (RestartPreventExitStatus=78)."""

    FINE = 0
    PROBLEMS = 1
    """The question was answered, and the answer is bad; or the stream cannot go on."""
    USAGE = 2
    """The command line cannot be understood."""
    UNREACHABLE = 69
    """Postgres or the daemon does not answer."""
    SOFTWARE = 70
    """A mistake in this program: please report the traceback."""
    CONFIG = 78
    """Settings, rules or the database's set-up are wrong; nothing was started."""
    INTERRUPTED = 130
    """Ctrl-C."""


def report(error: Exception) -> Exit:
    """Show an error on standard error; errors made for people without traceback. The result is the exit code."""
    from invalidator.telemetry.redaction import redact

    if isinstance(error, InvalidatorError):
        sys.stderr.write(redact(str(error)).rstrip() + "\n")
        return _code(error)
    import traceback

    sys.stderr.write(redact("".join(traceback.format_exception(error))))
    sys.stderr.write("this is a mistake in invalidator, not in your settings: please report it with the lines above\n")
    return Exit.SOFTWARE


def _code(error: InvalidatorError) -> Exit:
    match error:
        case ConfigError():
            return Exit.CONFIG
        case SourceDisconnected() | SlotInUse() | TargetUnavailable():
            return Exit.UNREACHABLE
        case _:
            return Exit.PROBLEMS
