"""A YAML text becomes data with the place of every key and value.

The parser's events are composed here instead of by PyYAML's composer: so aliases are refused before they can
multiply, depth is bounded before it recurses, and each place is known in one pass.
"""

from __future__ import annotations

import difflib
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple

import yaml

from invalidator.yamlfile import syntax
from invalidator.yamlfile.diagnostic import Diagnostic, Invalid, line_starts, shown, split_lines

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 32

Path = tuple[str | int, ...]
"""How to get to a value from the top: keys and indexes."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK = r"(?:\r\n|[\r\n\x85\u2028\u2029])"
_FOLD = rf"(?P<fold>[ \t]*(?:{_BREAK}[ \t]*)+)|(?P<blanks>[ \t]+)"
_ESCAPE = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)"
_UNITS: Final[Mapping[str | None, re.Pattern[str]]] = {
    # one match is one character of the value; but blanks and a fold may be several, and an escaped line break is none
    None: re.compile(rf"{_FOLD}|(?s:.)"),
    "'": re.compile(rf"''|{_FOLD}|(?s:.)"),
    '"': re.compile(rf"(?P<joined>\\{_BREAK}[ \t]*)|{_ESCAPE}|{_FOLD}|(?s:.)"),
}

# The YAML 1.2 core schema; all else is text. https://yaml.org/spec/1.2.2/#1032-tag-resolution
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_MAX_INT_CHARACTERS: Final = 500  # Python refuses to print what has some thousand decimal digits, or 640 if told so
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_UNPRINTABLE: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Span(NamedTuple):
    """Where something stands; lines and columns count from 1, the end is behind its last character."""

    line: int
    column: int
    end_line: int
    end_column: int
    style: str | None = None
    """A scalar's quote or block indicator."""

    @property
    def width(self) -> int:
        """How many characters a caret should underline on the first line."""
        return max(1, self.end_column - self.column) if self.line == self.end_line else 1


@dataclass(frozen=True)
class Document:
    """The one document of a YAML file."""

    file: str
    text: str
    data: Any
    """Built of dict (keys are always text), list, str, int, float, bool and None; None for an empty file."""
    values: Mapping[Path, Span]
    keys: Mapping[Path, Span]
    """Where the key stands under which the value of this path is."""

    def span(self, path: Path) -> Span:
        """Where the value of the path stands, or else the nearest thing around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Span(1, 1, 1, 1))

    def key_span(self, path: Path) -> Span:
        """Where the key of the path stands, or else its value."""
        return self.keys.get(path) or self.span(path)

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, as the places count them."""
        return split_lines(self.text)

    def diagnostic(self, span: Span, code: str, message: str, help_text: str | None = None) -> Diagnostic:
        """An error at this place."""
        return Diagnostic(self.file, span.line, span.column, span.width, code, message, help_text)

    def within(self, path: Path, offset: int, width: int = 1) -> Span:
        """Where a part of a text value stands in the source.

        Args:
            path: the path of a text value.
            offset: index of the part's first character in the value.
            width: its length.

        Escapes and folded lines are counted; in block scalars at least the line is right.
        """
        span = self.span(path)
        indexes = self._source_indexes(path, span)
        if not indexes:
            return span
        first = indexes[min(offset, len(indexes) - 1)] + max(0, offset - len(indexes) + 1)
        last = indexes[min(offset + max(1, width) - 1, len(indexes) - 1)]
        line, column = self._position(first)
        end_line, end_column = self._position(max(first, last) + 1)
        return Span(line, column, end_line, end_column)

    @cached_property
    def _starts(self) -> list[int]:
        return line_starts(self.text)

    def _position(self, index: int) -> tuple[int, int]:
        line = bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1

    def _source_indexes(self, path: Path, span: Span) -> list[int]:
        """For each character of a text value, the index of the source character that begins it."""
        start = self._starts[span.line - 1] + span.column - 1
        end = self._starts[span.end_line - 1] + span.end_column - 1
        if span.style in {"|", ">"}:
            return _block_indexes(self._value(path), self.text, start, end)
        quotes = 1 if span.style else 0
        return _flow_indexes(self.text, start + quotes, end - quotes, _UNITS[span.style])

    def _value(self, path: Path) -> str:
        value = self.data
        for step in path:
            value = value[step]
        return str(value)


def _flow_indexes(text: str, start: int, end: int, units: re.Pattern[str]) -> list[int]:
    indexes: list[int] = []
    for match in units.finditer(text, start, end):
        match match.lastgroup:
            case "joined":
                pass
            case "blanks":
                indexes += range(match.start(), match.end())
            case "fold":  # one line break is a space, each further one is itself
                indexes += [match.start()] * max(1, len(split_lines(match[0])) - 2)
            case _:
                indexes.append(match.start())
    return indexes


def _block_indexes(value: str, text: str, start: int, end: int) -> list[int]:
    """Folding and indentation change white space only, so the other characters come in the same order."""
    at = start + len(split_lines(text[start:end])[0])  # behind the header
    indexes: list[int] = []
    for character in value:
        if not character.isspace():
            found = text.find(character, at, end)
            at = at if found < 0 else found
        indexes.append(at)
        at += 0 if character.isspace() else 1
    return indexes


def read(path: FilePath | str) -> Document:
    """Read the one YAML document in a UTF-8 file.

    Raises:
        Invalid: it cannot be read, or is no YAML of the allowed kind.
    """
    return parse(read_text(path), os.fspath(path))


def read_text(path: FilePath | str) -> str:
    """The content of a UTF-8 file, without byte order mark.

    Raises:
        Invalid: it cannot be read.
    """
    file = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        found = Diagnostic(file, 0, 0, 1, "unreadable-file", f"cannot be read: {reason}", _file_beside(file))
        raise Invalid([found], {}) from None
    if len(raw) > MAX_BYTES:
        raise Invalid([_too_large(file)], {})
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        lines = split_lines(before)
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        at = Diagnostic(file, len(lines), len(lines[-1]) + 1, 1, "not-utf8", message, "save the file as UTF-8")
        raise Invalid([at], {file: raw.decode("utf-8-sig", "replace")}) from None


def _file_beside(file: str) -> str | None:
    """What was probably meant by the name of a file that is not there."""
    folder, name = os.path.split(file)
    try:
        names = [] if os.path.lexists(file) else os.listdir(folder or ".")
    except (OSError, ValueError):
        return None
    near = difflib.get_close_matches(name, names, 1, 0.7)
    return f"did you mean '{os.path.join(folder, near[0])}'?" if near else None


def parse(text: str, file: str) -> Document:
    """Read the one YAML document in a text.

    Args:
        text: the file's content, without byte order mark.
        file: its name in messages.

    Raises:
        Invalid: it is no YAML of the allowed kind; holds every error that could be found.
    """
    if len(text) > MAX_BYTES:
        raise Invalid([_too_large(file)], {})
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        lines = split_lines(text[: bad.start()])
        message = f"the control character U+{ord(bad[0]):04X} is not allowed in YAML"
        at = Diagnostic(file, len(lines), len(lines[-1]) + 1, 1, "yaml-syntax", message, _UNPRINTABLE_HELP)
        raise Invalid([at], {file: text})
    composer = _Composer(text, file)
    try:
        data = composer.document()
    except yaml.MarkedYAMLError as error:
        composer.problems.append(_syntax_error(error, text, file))
        data = None
    except _TooDeepError:
        data = None
    if composer.problems:
        raise Invalid(composer.problems, {file: text})
    return Document(file, text, data, composer.values, composer.keys)


_UNPRINTABLE_HELP: Final = r'inside double quotes it can be written as an escape such as "\e" or "\x00"'


def _too_large(file: str) -> Diagnostic:
    message = f"the file is larger than {MAX_BYTES // (1024 * 1024)} MiB"
    return Diagnostic(file, 0, 0, 1, "too-large", message, "split it: a directory of rule files is read as one")


class _TooDeepError(Exception):
    """The nesting bound was reached; the problem is noted."""


class _Composer:
    """Builds the data from the parser's events and notes every place and every problem."""

    def __init__(self, text: str, file: str) -> None:
        self.values: dict[Path, Span] = {}
        self.keys: dict[Path, Span] = {}
        self.problems: list[Diagnostic] = []
        self._file = file
        self._lines = split_lines(text)
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))

    def document(self) -> object:
        next(self._events)  # StreamStart
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        data = self._node(next(self._events), ())
        next(self._events)  # DocumentEnd
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._refuse(after, "a second document begins here, but a file holds one", "put it into a file of its own")
        return data

    def _node(self, event: Any, path: Path) -> object:
        if isinstance(event, yaml.AliasEvent):
            self.values[path] = _span(event, event)
            self._refuse(event, f"'*{event.anchor}' is a YAML alias, which is not supported", syntax.ALIAS_HELP)
            return None
        if event.anchor is not None:
            self._refuse(event, f"'&{event.anchor}' is a YAML anchor, which is not supported", _ANCHOR_HELP)
        if event.tag is not None:
            help_text = _INCLUDE_HELP if "include" in event.tag else _TAG_HELP
            self._refuse(event, "YAML tags (a value that starts with '!') are not supported", help_text)
        if isinstance(event, yaml.ScalarEvent):
            self.values[path] = _span(event, event)
            return self._scalar(event)
        if len(path) >= MAX_DEPTH:
            self._refuse(event, f"more than {MAX_DEPTH} levels of nesting", None)
            raise _TooDeepError
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path)
        return self._mapping(event, path)

    def _sequence(self, start: Any, path: Path) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        self.values[path] = _span(start, event)
        return items

    def _mapping(self, start: Any, path: Path) -> dict[str, object]:
        data: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            where = (*path, key)
            if key in data:
                first = self.keys[where].line
                text = f"{shown(key)} is given twice in this mapping (first at line {first})"
                self._refuse(event, text, "keep one of the two", code="duplicate-key")
            else:
                self.keys[where] = _span(event, event)
            data[key] = self._node(next(self._events), where)
        self.values[path] = _span(start, event)
        return data

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a name was expected here, but YAML read a mapping or a list", syntax.QUOTE_HELP)
            raise _TooDeepError
        if event.anchor is not None or event.tag is not None:
            self._refuse(event, "YAML anchors and tags are not supported", _ANCHOR_HELP)
        if not event.style and event.value == "<<":
            self._refuse(event, "YAML merge keys ('<<') are not supported", _ANCHOR_HELP)
        return str(event.value)

    def _scalar(self, event: Any) -> object:
        text: str = event.value
        if event.style:
            return text
        if len(text) > _MAX_INT_CHARACTERS and _INT.fullmatch(text):
            self._refuse(event, "this number is too long", "put it into quotes if it is text", code="bad-value")
            return None
        return _plain(text)

    def _refuse(self, event: Any, message: str, help_text: str | None, *, code: str = "yaml-syntax") -> None:
        span = _span(event, event)
        at = _clamped(span.line, span.column, self._lines)
        self.problems.append(Diagnostic(self._file, *at, span.width, code, message, help_text))


def _span(start: Any, end: Any) -> Span:
    first, last = start.start_mark, end.end_mark
    style = getattr(start, "style", None) or None
    return Span(first.line + 1, first.column + 1, last.line + 1, last.column + 1, style)


def _clamped(line: int, column: int, lines: list[str]) -> tuple[int, int]:
    """A place inside the file: the parser names the line behind the last one when something is missing."""
    if line > len(lines) or (line == len(lines) > 1 and not lines[-1]):
        line = max(1, len(lines) if lines[-1] else len(lines) - 1)
        column = len(lines[line - 1]) + 1
    return line, max(1, min(column, len(lines[line - 1]) + 1))


def _plain(text: str) -> object:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


_ANCHOR_HELP: Final = "write the value out where it is needed; quote it if it is text"
_TAG_HELP: Final = "quote a value that starts with '!'"
_INCLUDE_HELP: Final = "files include no others; a directory of rule files is read as one set of rules"


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> Diagnostic:
    lines = split_lines(text)
    mark = error.problem_mark or error.context_mark
    place = _clamped(mark.line + 1, mark.column + 1, lines) if mark else (1, 1)
    found = syntax.mistake(error, lines, *place)
    return Diagnostic(file, found.line, found.column, 1, "yaml-syntax", found.message, found.help)
