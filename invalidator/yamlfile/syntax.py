"""What YAML's parser cannot read, at the place where its author went wrong and with what to type there.

A parser notices a mistake where it can go on no further, which is often the line behind it: a key without a blank, an
indentation that is one off, a bracket that nobody closed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import yaml

from invalidator.yamlfile.diagnostic import mask_secrets

QUOTE_HELP: Final = (
    "a template inside [ ... ], one that starts with '{', or one that holds ': ' or ' #' needs quotes, "
    'as in "user:{id}"'
)
ALIAS_HELP: Final = "a value that starts with '*' is a YAML alias: quote it"

_TABS_HELP: Final = "YAML indents with spaces, never tabs"
_BLANKS: Final = re.compile("[\u00a0\u1680\u2000-\u200d\u202f\u205f\u2060\u3000\ufeff]")
"""Blanks that look like a space and are none, and characters that look like nothing at all."""
_LEAD: Final = re.compile(r"[ ]*(?:- +)*")
_WITHOUT_BLANK: Final = re.compile(r"(?P<key>[A-Za-z_]\w*):(?P<value>[^\s:/].*)")
_WITHOUT_COLON: Final = re.compile(r"(?P<key>[A-Za-z_]\w*) +(?P<value>[^\s:]+)")
_FIELD: Final = re.compile(r"(?P<key>[A-Za-z_]\w*): +(?P<value>\S.*)")


class Mistake(NamedTuple):
    """Where to look, and what to say."""

    line: int
    column: int
    message: str
    help: str | None


class _Spot(NamedTuple):
    """A place in the text; both count from 1."""

    line: int
    column: int


def mistake(error: yaml.MarkedYAMLError, lines: list[str], line: int, column: int) -> Mistake:
    """The mistake behind an error of the parser.

    Args:
        error: what the parser says.
        lines: those of the file.
        line: of the place that the parser names, inside the file.
        column: likewise.
    """
    at = _Spot(line, column)
    began = error.context_mark
    context = at if began is None else _Spot(min(began.line + 1, len(lines)), began.column + 1)
    message = " ".join(part for part in (error.problem, error.context) if part)
    found = (
        _tab(lines, at, context, message)
        or _blank(lines, at, context)
        or _not_closed(error, lines, at, context)
        or _quote_over_lines(lines, at)
        or _field(error, lines, at, context)
        or _indentation(error, lines, at)
        or _partly_quoted(error, lines, at, message)
    )
    around = {lines[line - 1], lines[context.line - 1]}
    return found or Mistake(line, column, message, _general_help(message, around, lines, at))


def _tab(lines: list[str], at: _Spot, context: _Spot, message: str) -> Mistake | None:
    around = (lines[at.line - 1], lines[context.line - 1])
    found = any("\t" in text[: len(text) - len(text.lstrip())] for text in around)
    return Mistake(*at, message, _TABS_HELP) if found else None


def _blank(lines: list[str], at: _Spot, context: _Spot) -> Mistake | None:
    for line in dict.fromkeys((context.line, at.line)):
        found = _BLANKS.search(lines[line - 1])
        if found is not None:
            message = f"the character U+{ord(found[0]):04X} looks like a space and is none"
            return Mistake(line, found.start() + 1, message, "replace it by a plain space")
    return None


def _not_closed(error: yaml.MarkedYAMLError, lines: list[str], at: _Spot, context: _Spot) -> Mistake | None:
    """A quote, bracket or brace that is open where the line, or the file, ends."""
    opened = lines[context.line - 1][context.column - 1 : context.column]
    is_behind = at.line > context.line or not lines[at.line - 1][at.column - 1 :].strip()
    match error.context:
        case "while scanning a quoted scalar" if "end of stream" in (error.problem or ""):
            return Mistake(*context, f"this {opened} is not closed", f"close it with {opened}")
        case "while parsing a flow sequence" | "while parsing a flow mapping" if is_behind and opened in {"[", "{"}:
            closing = "]" if opened == "[" else "}"
            return Mistake(*context, f"this '{opened}' is not closed", f"close it with '{closing}'")
        case _:
            return None


def _quote_over_lines(lines: list[str], at: _Spot) -> Mistake | None:
    """A double quote that nobody closed on its line, so that the next one, which opens another text, closes it."""
    above = _line_above(lines, at.line)
    if above is None:
        return None
    opened, text = lines[above - 1], lines[at.line - 1][: at.column - 1]
    if "\\" in opened + text or opened.count('"') % 2 == 0 or text.count('"') % 2 == 0:
        return None
    return Mistake(above, opened.rindex('"') + 1, 'this " is not closed on its line', 'close it with "')


def _field(error: yaml.MarkedYAMLError, lines: list[str], at: _Spot, context: _Spot) -> Mistake | None:
    """A key without a blank behind its colon, or without a colon; the parser takes it for a part of the next line."""
    if error.context == "while scanning a simple key":
        return _key_alone(lines, context.line)
    is_nested = "mapping values are not allowed" in (error.problem or "")
    above = _line_above(lines, at.line)
    return _key_alone(lines, above) if is_nested and above is not None else None


def _key_alone(lines: list[str], line: int) -> Mistake | None:
    text = lines[line - 1]
    start = _column(text) - 1
    for pattern, message in (
        (_WITHOUT_BLANK, "no blank behind the ':' of '{}'"),
        (_WITHOUT_COLON, "no ':' behind '{}'"),
    ):
        found = pattern.fullmatch(text.rstrip(), start)
        if found is not None:
            written = mask_secrets(f"{found['key']}: {found['value']}")
            return Mistake(line, start + 1, message.format(found["key"]), f"write '{written}'")
    return None


def _indentation(error: yaml.MarkedYAMLError, lines: list[str], at: _Spot) -> Mistake | None:
    """A field that does not begin in the column of the field above."""
    text = lines[at.line - 1]
    above = _line_above(lines, at.line)
    problem = error.problem or ""
    if above is None or not re.search(
        r"mapping values are not allowed|expected '-' indicator|block end|expected key", problem
    ):
        return None
    column, wanted = _column(text), _column(lines[above - 1])
    is_at_start = at.column <= column or "mapping values" in problem
    if column == wanted or not is_at_start or _FIELD.fullmatch(lines[above - 1].rstrip(), wanted - 1) is None:
        return None
    message = f"this line begins in column {column}, and the field above in column {wanted}"
    return Mistake(
        at.line, column, message, f"begin in column {wanted}, as line {above} does; or check what it belongs to"
    )


def _partly_quoted(error: yaml.MarkedYAMLError, lines: list[str], at: _Spot, message: str) -> Mistake | None:
    """A value that has quotes or braces around its beginning alone, or a ': ' in it."""
    text = lines[at.line - 1]
    start = _column(text) - 1
    field = _FIELD.fullmatch(text.rstrip(), start)
    if field is None or at.column - 1 <= field.start("value") or text[start:].count("{") > 1 or "[" in text:
        return None
    if not re.search(r"mapping values are not allowed|block end|expected key", error.problem or ""):
        return None
    value = _unwrapped(field["value"])
    quoted = f'"{value}"' if '"' not in value and "\\" not in value else "'" + value.replace("'", "''") + "'"
    written = mask_secrets(f"{field['key']}: {quoted}")
    return Mistake(*at, message, f"all of the value needs quotes: {written}")


def _unwrapped(value: str) -> str:
    """Without the quotes around all of it, if quotes of the same kind inside made an end of them."""
    quote = value[0]
    closing = value.find(quote, 1)
    is_wrapped = quote in "\"'" and 0 < closing < len(value) - 1 and not value[closing + 1].isspace()
    return value[1:-1] if is_wrapped and value.endswith(quote) else value


def _in_flow(problem: str, lines: list[str], at: _Spot) -> str | None:
    """For what is wrong with quoted entries: one more pair of quotes would not help."""
    before, behind = lines[at.line - 1][: at.column - 1].rstrip(), lines[at.line - 1][at.column - 1 :]
    if "unknown escape" in problem:
        return "inside double quotes '\\' begins an escape: leave it out, write '\\\\', or use single quotes"
    is_between = before.endswith(("'", '"')) and behind.startswith(("'", '"'))
    return "write ',' between two entries" if "expected ','" in problem and is_between else None


def _general_help(problem: str, around: set[str], lines: list[str], at: _Spot) -> str | None:
    if (found := _in_flow(problem, lines, at)) is not None:
        return found
    if any(re.search(r"(?:[:\-,]\s+|\[\s*)\*", text) for text in around):
        return ALIAS_HELP
    if any("{" in text for text in around):
        return QUOTE_HELP
    first = lines[at.line - 1][at.column - 1 : at.column]
    if first in {"@", "`", "%"}:
        return f"a value that starts with '{first}' needs quotes"
    return None


def _column(text: str) -> int:
    """Where the field of a line begins, behind the dashes of lists."""
    lead = _LEAD.match(text)
    return (lead.end() if lead is not None else 0) + 1


def _line_above(lines: list[str], line: int) -> int | None:
    """The number of the nearest line above that says something."""
    numbers = range(line - 1, 0, -1)
    return next((at for at in numbers if lines[at - 1].strip() and not lines[at - 1].lstrip().startswith("#")), None)
