"""The SQL of a lookup: what is written in a rule, checked, and wrapped into one statement for many rows.

    SELECT o.user_id FROM orders o WHERE o.id = {order_id}

becomes

    SELECT "i"."ord", l.* FROM unnest($1::text[]) WITH ORDINALITY AS "i"("1", "ord")
    CROSS JOIN LATERAL (SELECT * FROM (
    SELECT o.user_id FROM orders o WHERE o.id = ("i"."1")::bigint
    ) AS q LIMIT 101) AS l

(with a name that no SQL uses instead of ``i``). Standing inside, it cannot be anything but a query, as far as this
lexer ends texts and comments where Postgres does; whoever runs it sends it as one statement in a transaction that
changes nothing, so that no more depends on that. No value is ever a part of the text. Values travel as text, as the
stream has them, and each is read as the type of its column: so arrays, enums, composites and ``bytea`` need nothing
special.

The lexical structure is that of src/backend/parser/scan.l with ``standard_conforming_strings`` on, which sessions pin.
Where its versions differ, or a text would go on in a second literal, it is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.rules.template import Reference, TemplateError, parse_reference

SQL_FACTS: Final = ("schema", "table")
"""What ``{meta.…}`` may name in the SQL: the facts that are the same for all rows of a batch."""

_ESCAPED: Final = "e'"
_INPUT: Final = '"invalidator input"'
_OPENING_WORDS: Final = ("select", "with", "values", "table")
_NAMING_WORDS: Final = frozenset({"join", "as", "table"})  # not "from": … IS DISTINCT FROM {column}

# To Postgres every character beyond ASCII is a letter, the no-break space too.
_SPACE: Final = re.compile(r"[ \t\n\r\f\v]+")
_LINE_END: Final = re.compile(r"[\r\n]|\Z")
_WORD: Final = re.compile(r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*")
_DOLLAR_QUOTE: Final = re.compile(r"\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$")
_PARAMETER: Final = re.compile(r"\$\d+")
_PERCENT: Final = re.compile(r"%s\b|%\(\w+\)s")
_OTHER_PLACEHOLDER: Final = re.compile(r"(?<![:\w]):(?P<name>[A-Za-z_]\w*)|\?(?!\S)|@\w+")
_NUMBER: Final = re.compile(r"[0-9][A-Za-z0-9_.\u0080-\U0010ffff]*")
_COMMENT_PART: Final = re.compile(r"/\*|\*/")
_STRING: Final = re.compile(r"'(?:[^']|'')*+'")
_ESCAPE_STRING: Final = re.compile(r"'(?:[^'\\]|''|\\.)*+'", re.DOTALL)
_QUOTED_NAME: Final = re.compile(r'"(?:[^"]|"")*+"')
_LOOKS_LIKE_REFERENCE: Final = re.compile(r"(?<!\{)\{\s*(?:[^\W\d]\w*\s*\.\s*)?[^\W\d]\w*\s*\}(?!\})")
_DOUBLED: Final = re.compile(r"\{(\{\s*(?:[^\W\d]\w*\s*\.\s*)?[^\W\d]\w*\s*\})\}")


@dataclass(frozen=True, slots=True)
class Text:
    """Text of the statement as it stands, and where it stands in the rule's text."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value that is bound, and where its brace stands in the rule's text."""

    reference: Reference
    offset: int


@dataclass(frozen=True)
class LookupSql:
    """A checked SELECT with placeholders."""

    text: str
    """As written in the rule."""
    parts: tuple[Text | Placeholder, ...]

    @property
    def parameters(self) -> tuple[Reference, ...]:
        """The distinct values that are bound, in order of appearance: the first one is ``$1``."""
        return tuple(dict.fromkeys(part.reference for part in self.parts if isinstance(part, Placeholder)))


@dataclass(frozen=True, slots=True)
class WrappedSql:
    """One statement that asks for many rows at once, in Postgres' own form (``$1``, no escapes for a driver).

    Each parameter is a ``text[]`` with one value per asked row, all of the same length. The result has the number of
    the asked row first (counting from 1), then the columns of the rule's SELECT.
    """

    text: str
    parameters: tuple[Reference, ...]
    """What each of ``$1``, ``$2``, … stands for."""
    segments: tuple[tuple[int, int, int], ...]
    """Start in this text, start in the rule's text, and length there; in order."""

    def source_offset(self, offset: int) -> int | None:
        """Where a character of this text stands in the rule's SQL; None for what the rule did not write.

        Args:
            offset: counts from 0 (the position in a Postgres error counts from 1).
        """
        at = bisect_right(self.segments, offset, key=lambda segment: segment[0]) - 1
        if at < 0:
            return None
        start, source, length = self.segments[at]
        end = self.segments[at + 1][0] if at + 1 < len(self.segments) else start + length
        if offset > end:
            return None
        return source + min(offset - start, max(0, length - 1))


def parse_sql(text: str) -> LookupSql:
    """Read the SQL of a lookup.

    Raises:
        TemplateError: it is no single query, or a placeholder is wrong; codes ``lookup-syntax``,
            ``template-syntax`` and ``unknown-meta``.
    """
    return _Lexer(text).sql()


def wrap(sql: LookupSql, type_names: Sequence[str], *, limit: int) -> WrappedSql:
    """The statement for many rows.

    Args:
        sql: what the rule says.
        type_names: the type of each of ``sql.parameters`` as SQL writes it (``format_type(oid, -1)``).
        limit: one row more than this comes back for an asked row that has more.
    """
    numbers = {reference: at for at, reference in enumerate(sql.parameters, 1)}
    arrays = ", ".join(f"${at}::text[]" for at in numbers.values())
    names = ", ".join(f'"{at}"' for at in numbers.values())
    asked = f'unnest({arrays}) WITH ORDINALITY AS {_INPUT}({names}, "ord")'
    made = f'SELECT {_INPUT}."ord", l.* FROM {asked} CROSS JOIN LATERAL (SELECT * FROM (\n'  # noqa: S608  (our names)
    segments: list[tuple[int, int, int]] = []
    for part in sql.parts:
        if isinstance(part, Text):
            segments.append((len(made), part.offset, len(part.text)))
            made += part.text
        else:
            at = numbers[part.reference]
            segments.append((len(made), part.offset, 1))
            made += f'(({_INPUT}."{at}")::{type_names[at - 1]})'
    made += f"\n) AS q LIMIT {limit + 1}) AS l"
    return WrappedSql(made, sql.parameters, tuple(segments))


class _Lexer:
    """Reads the SQL from left to right; ``at`` is the next character, ``start`` where the open text began."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._start = 0
        self._parts: list[Text | Placeholder] = []
        self._open: list[int] = []  # parentheses
        self._last = ""  # the word or character before, in lower case
        self._has_begun = False

    def sql(self) -> LookupSql:
        while self.at < len(self.text):
            self._token()
        if self._open:
            raise _error(self._open[-1], "no closing ')'")
        if not self._has_begun:
            raise _error(0, "a SELECT is missing here", help=_ONE_QUERY)
        self._end_text(self.at)
        if not any(isinstance(part, Placeholder) for part in self._parts):
            self._refuse_other_placeholder()
            message = "this SELECT asks for nothing of the changed row, so it would find the same for every row"
            raise _error(0, message, width=len(self.text), help="bind a column: … WHERE o.id = {order_id}")
        return LookupSql(self.text, tuple(self._parts))

    def _refuse_other_placeholder(self) -> None:
        """``:name`` and ``?`` may be right in SQL; where nothing is bound, they are meant as placeholders."""
        found = _OTHER_PLACEHOLDER.search(self.text)
        if found is not None:
            help_text = f"write {{{found['name']}}}: it becomes a bound parameter" if found["name"] else _WRITE_COLUMN
            raise _error(found.start(), f"'{found[0]}' is no placeholder here", width=len(found[0]), help=help_text)

    def _token(self) -> None:
        text, at = self.text, self.at
        if match := _SPACE.match(text, at):
            self.at = match.end()
        elif text.startswith("--", at):
            end = _LINE_END.search(text, at)
            self._silent(at, len(text) if end is None else end.start(), "a comment")
        elif text.startswith("/*", at):
            self._silent(at, self._comment_end(at), "a comment")
        elif text[at] in "'\"$" or text[at : at + 2] in ("e'", "E'"):
            self._quoted_or_parameter()
        elif text[at] == "{":
            self._placeholder()
        elif match := _WORD.match(text, at):
            self._word(match[0])
        elif match := _NUMBER.match(text, at):
            self._number(match[0])
        else:
            self._symbol(text[at])

    def _number(self, digits: str) -> None:
        self._word(digits)
        if self.text[self.at : self.at + 1] in ("'", "$"):  # Postgres 14 reads 1E'…' as 1 and E'…', 15 refuses it
            raise _error(self.at, "a quote right behind a number", help="write a space between them")

    def _word(self, word: str) -> None:
        self._begin(word, self.at)
        self.at += len(word)
        self._last = word.lower()

    def _begin(self, word: str, at: int) -> None:
        if not self._has_begun and word.lower() not in _OPENING_WORDS:
            raise _error(at, f"'{word}' begins no query", width=len(word), help=_ONE_QUERY)
        self._has_begun = True

    def _symbol(self, char: str) -> None:
        if char != "(":
            self._begin(char, self.at)
        match char:
            case "(":
                self._open.append(self.at)
            case ")" if not self._open:
                raise _error(self.at, "')' without '('")
            case ")":
                self._open.pop()
            case ";":
                is_last = not self.text[self.at + 1 :].strip()
                help_text = "remove the ';'" if is_last else "keep one SELECT; what another one finds is another lookup"
                raise _error(self.at, "a lookup is one SELECT: ';' cannot stand in it", help=help_text)
            case "}":
                raise _error(self.at, "'}' without '{'")
            case "%" if found := _PERCENT.match(self.text, self.at):
                raise _error(self.at, f"'{found[0]}' is no placeholder here", width=len(found[0]), help=_WRITE_COLUMN)
            case _:
                pass
        self._last = char
        self.at += 1

    def _quoted_or_parameter(self) -> None:
        text, at = self.text, self.at
        self._begin(text[at], at)
        if text[at] == "'" and self._last == _ESCAPED:
            message = "a text literal behind E'…': after a new line it would go on as a part of that one"
            raise _error(at, message, help="write one literal, or || between them")
        self._last = _ESCAPED if text[at] in "eE" else text[at]
        if text[at] == "$":
            self._dollar(at)
            return
        pattern, what = {
            "'": (_STRING, "a text literal"),
            '"': (_QUOTED_NAME, "a quoted name"),
        }.get(text[at], (_ESCAPE_STRING, "a text literal"))
        quote = at + (text[at] in "eE")
        match = pattern.match(text, quote)
        if match is None:
            raise _error(quote, f"no closing {text[quote]}")
        self._silent(at, match.end(), what)

    def _dollar(self, at: int) -> None:
        text = self.text
        if match := _PARAMETER.match(text, at):
            raise _error(at, f"'{match[0]}' is no placeholder here", width=len(match[0]), help=_WRITE_COLUMN)
        match = _DOLLAR_QUOTE.match(text, at)
        if match is None:
            self.at += 1  # Postgres will say what it thinks of it
            return
        end = text.find(match[0], match.end())
        if end < 0:
            raise _error(at, f"no closing {match[0]}", width=len(match[0]))
        self._silent(at, end + len(match[0]), "a dollar-quoted text")

    def _comment_end(self, at: int) -> int:
        depth = 0
        for match in _COMMENT_PART.finditer(self.text, at):
            depth += 1 if match[0] == "/*" else -1
            if depth == 0:
                return match.end()
        raise _error(at, "no closing */", width=2)

    def _silent(self, start: int, end: int, what: str) -> None:
        """Pass over text in which braces mean nothing; what looks like a placeholder there is a mistake."""
        found = _LOOKS_LIKE_REFERENCE.search(self.text, start, end)
        if found is not None:
            message = f"{found[0]} stands inside {what}, where it would be no placeholder but these very characters"
            outside = f"write it outside of the quotes, as in 'user:' || {found[0]}"
            help_text = "remove it" if what == "a comment" else outside
            help_text += f"; if the characters are meant, write {{{found[0]}}}"
            raise _error(found.start(), message, width=len(found[0]), help=help_text)
        for match in _DOUBLED.finditer(self.text, start, end):
            self._end_text(match.start())
            self._parts.append(Text(match[1], match.start(1)))
            self._start = match.end()
        self.at = end

    def _placeholder(self) -> None:
        at = self.at
        self._begin("{", at)
        if self.text.startswith("{{", at):
            raise _error(at, "SQL has no braces outside of quotes", width=2, help=_WRITE_COLUMN)
        if self._last == "." or self._last in _NAMING_WORDS:
            message = "a placeholder is a value; it cannot stand for the name of a table, a column or a schema"
            raise _error(at, message, help="write the name itself")
        reference, end = parse_reference(self.text, at)
        self._check_reference(reference, at, end)
        self._end_text(at)
        self._parts.append(Placeholder(reference, at))
        self._start = self.at = end
        self._last = "}"

    def _check_reference(self, reference: Reference, at: int, end: int) -> None:
        width = end - at
        if reference.filters:
            bar = self.text.index("|", at)
            message = "a value is bound as it is: there are no filters here"
            raise _error(bar, message, width=end - 1 - bar, help="use functions of SQL, such as lower({name})")
        if reference.is_lookup:
            message = f"'{reference.scope}' is no scope here: a lookup cannot ask with the result of another one"
            raise _error(at, message, width=width, help="known are a bare column, new, old and meta; join in the SQL")
        if reference.scope == "meta" and reference.name not in SQL_FACTS:
            message = f"{{meta.{reference.name}}} is of one change, and a lookup asks for many at once"
            raise _error(at, message, width=width, help="known are meta.schema and meta.table")

    def _end_text(self, end: int) -> None:
        if end > self._start:
            self._parts.append(Text(self.text[self._start : end], self._start))


_ONE_QUERY: Final = "write one query that begins with SELECT, WITH, VALUES or TABLE"
_WRITE_COLUMN: Final = "write the column in braces, as in {order_id}: it becomes a bound parameter"


def _error(offset: int, message: str, *, width: int = 1, help: str | None = None) -> TemplateError:
    return TemplateError(message, offset=offset, width=width, code="lookup-syntax", help=help)
