"""Templates such as ``user:{id}``: text with references to row values and facts of the change.

    template   = { text | "{{" | "}}" | "{" reference "}" }
    reference  = [ "new." | "old." | lookup "." ] column { "|" filter }  |  "meta." fact { "|" filter }
    lookup     = name of one of the rule's lookups: the column is one of its result
    column     = bare name, exactly as the table spells it  |  '"' any characters, '""' for a quote '"'
    filter     = name [ ":" quoted argument ]

Nothing here is evaluated by a general engine. Values are bytes from end to end, because a database may hold
bytes that are no valid UTF-8 and a key must equal the application's key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from invalidator.rules import template_advice
from invalidator.rules.filters import DEFAULT, FILTERS, encode

__all__ = [
    "DEFAULT", "FILTERS", "META", "RESERVED_SCOPES", "ROW_SCOPES",
    "Filter", "Literal", "Reference", "Template", "TemplateError",
    "encode", "literal", "parse", "parse_reference",
]  # fmt: skip

ROW_SCOPES: Final = frozenset({"row", "new", "old"})
"""The scopes of row values; ``row`` is a bare column: rendered for every row image there is."""

RESERVED_SCOPES: Final = frozenset({"row", "new", "old", "meta"})
"""What no lookup can be called."""

META: Final = ("schema", "table", "op", "lsn", "xid", "commit_time")
"""What ``{meta.…}`` may name."""


MAX_FILTERS: Final = 16
"""On one value; each is a call within the call of the next one, and Python's compiler bounds those."""


class TemplateError(Exception):
    """A template cannot be understood.

    Args:
        message: what is wrong.
        offset: 0-based character in the template's text.
        width: how many characters are meant, at least 1.
        code: ``template-syntax``, ``unknown-filter``, ``unknown-meta`` or ``unknown-lookup``.
        help: what was probably meant, if that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        offset: int,
        width: int = 1,
        code: str = "template-syntax",
        help: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.width = max(1, width)
        self.code = code
        self.help = help


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that stands in the template itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Filter:
    """One step that a value passes through."""

    name: str
    argument: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that is put in when a row is rendered."""

    scope: str
    """``row``, ``new``, ``old``, ``meta``, or the name of a lookup."""
    name: str
    filters: tuple[Filter, ...] = ()

    @property
    def is_row_value(self) -> bool:
        """Whether it names a column of the changed row."""
        return self.scope in ROW_SCOPES

    @property
    def is_lookup(self) -> bool:
        """Whether it names a column of a lookup's result."""
        return self.scope not in RESERVED_SCOPES

    def filtered(self, value: bytes | None) -> bytes | None:
        """The value behind all filters; None is NULL and passes through every filter but ``default``."""
        for step in self.filters:
            if step.name == DEFAULT:
                value = encode(step.argument or "") if value is None else value
            elif value is not None:
                value = FILTERS[step.name](value)
        return value


@dataclass(frozen=True)
class Template:
    """A checked template: text and references in order, never two literals in a row."""

    text: str
    parts: tuple[Literal | Reference, ...]

    @cached_property
    def literal_prefix(self) -> str:
        """The literal text before the first reference of any kind."""
        first = self.parts[0] if self.parts else None
        return first.text if isinstance(first, Literal) else ""

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """All references in order, those to ``meta`` included."""
        return tuple(part for part in self.parts if isinstance(part, Reference))

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns of the changed row that the template needs."""
        return frozenset(part.name for part in self.references if part.is_row_value)

    @cached_property
    def lookups(self) -> tuple[str, ...]:
        """The lookups whose results the template needs, in order of appearance."""
        return tuple(dict.fromkeys(part.scope for part in self.references if part.is_lookup))

    @cached_property
    def uses_row(self) -> bool:
        """Whether the template depends on a row or on what is looked up for it, not only on ``meta`` facts."""
        return any(part.scope != "meta" for part in self.references)

    def before_row(self) -> Template:
        """The part before the first row value: what confines every name that the template can make."""
        parts: list[Literal | Reference] = []
        for part in self.parts:
            if isinstance(part, Reference) and part.scope != "meta":
                break
            parts.append(part)
        return _from_parts(parts)


def literal(text: str) -> Template:
    """A template of nothing but this text; braces in it are text too."""
    return _from_parts((Literal(text),))


def parse(text: str, lookups: Collection[str] | None = ()) -> Template:
    """Read a template.

    Args:
        text: what is written.
        lookups: the names of the rule's lookups; None: they are not known here, and every name is taken for one.

    Raises:
        TemplateError: it cannot be understood; says where and why.
    """
    return _parsed(text, None if lookups is None else tuple(lookups))


@lru_cache(maxsize=4096)
def _parsed(text: str, lookups: tuple[str, ...] | None) -> Template:
    """Kept, because checking a rule reads each of its templates several times: with 1,000 rules, 0.2 of 0.7 seconds."""
    return _Parser(text, lookups).template()


def parse_reference(text: str, at: int) -> tuple[Reference, int]:
    """Read one reference that begins with the brace at this index, of any lookup; and where it ends.

    Raises:
        TemplateError: it cannot be understood; offsets are those of the whole text.
    """
    parser = _Parser(text, None)
    parser.at = at
    return parser.reference(), parser.at


def _from_parts(parts: Iterable[Literal | Reference]) -> Template:
    merged = _merged(parts)
    return Template("".join(map(_written, merged)), merged)


def _merged(parts: Iterable[Literal | Reference]) -> tuple[Literal | Reference, ...]:
    """The parts without empty literals, and with neighbouring ones as one."""
    merged: list[Literal | Reference] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Literal):
            if isinstance(last, Literal):
                merged[-1] = Literal(last.text + part.text)
                continue
            if not part.text:
                continue
        merged.append(part)
    return tuple(merged)


def _written(part: Literal | Reference) -> str:
    if isinstance(part, Literal):
        return part.text.replace("{", "{{").replace("}", "}}")
    scope = "" if part.scope == "row" else part.scope + "."
    name = part.name if _NAME.fullmatch(part.name) else '"' + part.name.replace('"', '""') + '"'
    filters = "".join(
        "|" + step.name + ("" if step.argument is None else ":'" + step.argument.replace("'", "''") + "'")
        for step in part.filters
    )
    return "{" + scope + name + filters + "}"


_NAME: Final = re.compile(r"[^\W\d][\w$]*")
_TEXT: Final = re.compile(r"[^{}]+")
_SPACE: Final = re.compile(r"\s*")
_QUOTED: Final = {
    '"': re.compile(r'"((?:[^"]|"")*)"'),
    "'": re.compile(r"'((?:[^']|'')*)'"),
}
_SCOPES: Final = ("new", "old", "meta")


class _Parser:
    """Reads one template from left to right; ``at`` is the next character."""

    def __init__(self, text: str, lookups: Collection[str] | None) -> None:
        self.text = text
        self.at = 0
        self._lookups = lookups

    def template(self) -> Template:
        parts: list[Literal | Reference] = []
        while self.at < len(self.text):
            if match := _TEXT.match(self.text, self.at):
                self.at = match.end()
                parts.append(Literal(match[0]))
            elif self.text[self.at : self.at + 2] in ("{{", "}}"):
                parts.append(Literal(self.text[self.at]))
                self.at += 2
            elif self.text[self.at] == "}":
                raise _error(self.at, "'}' without '{'", help="write '}}' for a literal brace")
            else:
                parts.append(self.reference())
        return Template(self.text, _merged(parts))

    def reference(self) -> Reference:
        opened = self.at
        self.at += 1
        scope, name = self.scoped_name(opened)
        filters: list[Filter] = []
        while (char := self.char(opened)) == "|":
            self.at += 1
            filters.append(self.filter(opened))
            if len(filters) > MAX_FILTERS:
                raise _error(opened, f"more than {MAX_FILTERS} filters on one value", width=self.at - opened)
        if char != "}":
            help_text = template_advice.behind_name(name, self.text[self.at :])
            raise _error(self.at, f"expected '|' or '}}', found {char!r}", help=help_text)
        self.at += 1
        return Reference(scope, name, tuple(filters))

    def scoped_name(self, opened: int) -> tuple[str, str]:
        start, quoted, name = self.name(opened)
        if quoted or self.char(opened) != ".":
            return "row", name
        if name not in _SCOPES and (name == "row" or (self._lookups is not None and name not in self._lookups)):
            raise self.unknown_scope(start, name)
        self.at += 1
        start, quoted, column = self.name(opened)
        if name == "meta" and (quoted or column not in META):
            raise _error(
                start,
                f"unknown fact 'meta.{column}': known are {', '.join(META)}",
                width=self.at - start,
                code="unknown-meta",
                help=template_advice.fact_meant(column, META),
            )
        return name, column

    def unknown_scope(self, start: int, name: str) -> TemplateError:
        lookups = tuple(self._lookups or ())
        what = f"this rule looks up {', '.join(lookups)}" if lookups else "this rule has no lookup"
        help_text = template_advice.instead_of_scope(name, self.text[self.at :], lookups)
        message = f"'{name}' is no lookup of this rule ({what})"
        return _error(start, message, width=len(name), code="unknown-lookup", help=help_text)

    def name(self, opened: int) -> tuple[int, bool, str]:
        """Read a bare or quoted name: where it starts, whether it was quoted, and the name itself."""
        char = self.char(opened)
        start = self.at
        if char == '"':
            name = self.quoted(char)
            if not name:
                raise _error(start, "empty column name", width=2)
            return start, True, name
        match = _NAME.match(self.text, start)
        if match is None:
            what = "a column name is missing" if char in "|}." else f"{char!r} cannot start a column name"
            is_missing = char in "|}." or self.text[start : self.text.find("}", start)].isdigit()
            quotes = template_advice.instead_of_quotes(self.text[start:])
            raise _error(start, what, help=template_advice.NAME_HELP if is_missing else quotes)
        self.at = match.end()
        return start, False, match[0]

    def filter(self, opened: int) -> Filter:
        self.char(opened)
        start = self.at
        match = _NAME.match(self.text, start)
        name = match[0] if match else ""
        if name != DEFAULT and name not in FILTERS:
            known = (*FILTERS, DEFAULT)
            raise _error(
                start,
                f"unknown filter '{name}': known are {', '.join(known)}" if name else "a filter's name is missing",
                width=len(name),
                code="unknown-filter" if name else "template-syntax",
                help=template_advice.filter_meant(name, known),
            )
        self.at = start + len(name)
        has_argument = self.char(opened) == ":"
        if has_argument and name != DEFAULT:
            raise _error(self.at, f"filter '{name}' takes no argument")
        if not has_argument:
            if name == DEFAULT:
                raise _error(start, "filter 'default' needs a text", width=len(name), help="write default:'none'")
            return Filter(name)
        self.at += 1
        quote = self.char(opened)
        if quote not in _QUOTED:
            raise _error(self.at, "the text of 'default' must stand in quotes", help="write default:'none'")
        return Filter(name, self.quoted(quote))

    def quoted(self, quote: str) -> str:
        """Read text in quotes; a doubled quote stands for one."""
        match = _QUOTED[quote].match(self.text, self.at)
        if match is None:
            raise _error(self.at, f"no closing {quote}", width=len(self.text) - self.at)
        self.at = match.end()
        return match[1].replace(quote * 2, quote)

    def char(self, opened: int) -> str:
        """The next character that is no space."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.at >= len(self.text):
            raise _error(opened, "no closing '}'", width=len(self.text) - opened, help=template_advice.UNCLOSED_HELP)
        return self.text[self.at]


def _error(
    offset: int, message: str, *, width: int = 1, code: str = "template-syntax", help: str | None = None
) -> TemplateError:
    return TemplateError(message, offset=offset, width=width, code=code, help=help)
