"""One result of a check: what it is about, and what is to be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from invalidator.yamlfile import Diagnostic, Severity


class At(NamedTuple):
    """A place in a file; line 0 is the whole file."""

    file: str
    line: int = 0
    column: int = 0
    width: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnostic, and the name under which it stays the same finding when its text changes a little."""

    subject: str
    """The table, rule, slot, publication or target that it is about."""
    diagnostic: Diagnostic

    @property
    def code(self) -> str:
        """Stable identifier such as ``not-published``."""
        return self.diagnostic.code


def finding(  # noqa: PLR0913  (the fields of a record)
    subject: str,
    at: At,
    code: str,
    message: str,
    *,
    severity: Severity = "error",
    why: str | None = None,
    help: str | None = None,
    fix: str | None = None,
) -> Finding:
    """Make one."""
    return Finding(subject, Diagnostic(*at, code, message, help, severity, why, fix))


def listed(names: object, *, most: int = 5) -> str:
    """Names for a message, not too many of them."""
    every = list(names) if isinstance(names, (list, tuple)) else sorted(names)  # type: ignore[call-overload]
    text = ", ".join(map(str, every[:most]))
    return f"{text} and {len(every) - most} more" if len(every) > most else text
