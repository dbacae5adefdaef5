"""What is told about one code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Code:
    """The explanation of one code."""

    name: str
    """Stable, such as ``unknown-field``."""
    severity: Literal["error", "warning", "info"]
    """As it usually is."""
    meaning: str
    """What is the matter, in a sentence or two."""
    why: str = ""
    """What would go wrong if it were let through."""
    wrong: str = ""
    """An example that gets this code."""
    right: str = ""
    """The example, mended."""
    language: Literal["rules", "settings", "sql", "sh", "text"] = "rules"
    """What the examples are. Of rules: a file, an entry of ``rules:`` (begins with ``- name``), or fields of a rule."""
