"""One thing that is wrong in a file, and how it is shown: place, source line, caret, help.

A file is not trusted to be harmless to a terminal: control and direction characters are shown escaped, long lines
are cut around the caret, and values that look like secrets are masked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from invalidator.errors import ConfigError

Severity = Literal["error", "warning", "info"]

MAX_SHOWN_DIAGNOSTICS: Final = 50
_LINE_BREAK: Final = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")  # what YAML 1.1 parsers count as a line's end
_TAB: Final = "    "
_BEFORE: Final = 60  # characters shown left of the caret
_AFTER: Final = 100
_VALUE: Final = 60
_SECRET_NAME: Final = re.compile(r"(?i)password|passwd|secret|token|api_?key|credential|private_?key")
_SECRET_VALUE: Final = re.compile(  # bounded repetitions: a line may be megabytes long
    r"(?i)(?:password|passwd|secret|token|api_?key|credential|private_?key)\w{0,60}"
    r"(?:[\"']?\s{0,9}:\s{1,99}(?P<value>\S.*)|=(?P<parameter>[^\s\"']{1,999}))"
    r"|://[^/@\s:]{0,200}:(?P<password>[^@\s]{1,999})@"
    # a field whose colon, or the blank behind it, was forgotten
    r"|^[ ]{0,99}(?:- {1,9})?\w{0,60}(?:password|passwd|secret|token|api_?key|credential|private_?key)\w{0,60}"
    r"(?::| {1,9})(?P<unmarked>\S.*)"
)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something that is wrong, or worth knowing, at one place of a file."""

    file: str
    """The file's name as the operator gave it; or the name of whatever else holds the value (a variable)."""
    line: int
    """Counts from 1; 0 means all of the file."""
    column: int
    """Counts characters from 1."""
    width: int
    """How many characters the caret underlines."""
    code: str
    """Stable identifier such as ``unknown-field``; each is explained in the documentation."""
    message: str
    help: str | None = None
    """What to type instead."""
    severity: Severity = "error"
    why: str | None = None
    """What would go wrong, where the message alone does not say it."""
    fix: str | None = None
    """SQL, YAML or a command that mends it as it stands; alternatives on lines of their own."""

    @property
    def full_text(self) -> str:
        """Message, reason and mending, a line each, for where there is room for one text only."""
        labelled = (("why", self.why), ("help", self.help), ("fix", self.fix))
        return "\n".join([self.message, *(f"{label}: {text}" for label, text in labelled if text is not None)])

    def render(self, source_text: str) -> str:
        """The complete text for people, without a line break at the end."""
        return self.render_lines(split_lines(source_text))

    def render_lines(self, lines: Sequence[str]) -> str:
        """The same as ``render``, for a file that is already split."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [f"{printable(place)}: {self.severity}[{self.code}]: {printable(self.message)}"]
        if 1 <= self.line <= len(lines):
            number = str(self.line)
            gutter = " " * len(number)
            text, caret = _excerpt(mask_secrets(lines[self.line - 1]), self.column, self.width)
            parts += [f" {gutter} |", f" {number} | {text}".rstrip(), f" {gutter} | {caret}"]
        for label, advice in (("why", self.why), ("help", self.help), ("fix", self.fix)):
            if advice is not None:
                first, *more = advice.split("\n")
                parts.append(f"   = {label + ':':<5} {printable(first)}")
                parts += [f"           {printable(line)}" for line in more]
        return "\n".join(parts)


class Invalid(ConfigError):  # noqa: N818  (a state of the file)
    """One or more files cannot be used; nothing of them was taken over.

    Args:
        diagnostics: everything that is wrong; kept in order of file, line and column.
        sources: the text of each file by its name, for the excerpts.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic], sources: Mapping[str, str]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(diagnostics, key=_order))
        self.sources = dict(sources)
        lines = {file: split_lines(text) for file, text in sources.items()}
        shown_ones = self.diagnostics[:MAX_SHOWN_DIAGNOSTICS]
        texts = [diagnostic.render_lines(lines.get(diagnostic.file, ())) for diagnostic in shown_ones]
        if len(self.diagnostics) > len(shown_ones):
            texts.append(f"… and {len(self.diagnostics) - len(shown_ones)} more")
        super().__init__("\n\n".join(texts))


def _order(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    return (diagnostic.file, diagnostic.line, diagnostic.column, diagnostic.message)


def split_lines(text: str) -> list[str]:
    """The lines as the YAML parser counts them; at least one."""
    return _LINE_BREAK.split(text)


def line_starts(text: str) -> list[int]:
    """The index of each line's first character."""
    return [0, *(match.end() for match in _LINE_BREAK.finditer(text))]


def shown(value: object) -> str:
    """A value from a file as a message quotes it: the way YAML writes it, cut to a bearable length."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{_cut(value)}'"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return _cut(str(value))


def looks_secret(name: object) -> bool:
    """Whether a field of this name may hold a secret, so that its value is shown nowhere."""
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None


def mask_secrets(line: str) -> str:
    """The line with stars instead of what looks like a secret; its length stays, so that carets stay right."""
    for match in _SECRET_VALUE.finditer(line):
        start, end = match.span(match.lastgroup or 0)
        line = line[:start] + "*" * (end - start) + line[end:]
    return line


def printable(text: str) -> str:
    """The text with everything escaped that would steer a terminal instead of being read."""
    return "".join(_glyph(character) for character in text)


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE else text[:_VALUE] + "…"


def _glyph(character: str) -> str:
    if character == "\t":
        return _TAB
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def _cells(glyph: str) -> int:
    """How many terminal cells this takes: wide East Asian characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(part) else 2 if unicodedata.east_asian_width(part) in "WF" else 1 for part in glyph
    )


def _excerpt(line: str, column: int, width: int) -> tuple[str, str]:
    """What is shown of a source line, and the caret line beneath it."""
    at = min(column - 1, len(line))
    width = max(1, min(width, len(line) - at))
    start, end = max(0, at - _BEFORE), min(len(line), at + _AFTER)
    if len(line) <= _BEFORE + _AFTER:
        start, end = 0, len(line)
    lead = "…" if start else ""
    before = lead + printable(line[start:at])
    marked = printable(line[at : min(at + width, end)])
    after = printable(line[min(at + width, end) : end]) + ("…" if end < len(line) else "")
    return before + marked + after, " " * _cells(before) + "^" * max(1, _cells(marked))
