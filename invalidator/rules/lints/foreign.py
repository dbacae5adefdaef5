"""Habits of other template languages: text that is literal here, where its author meant a value.

Everything found here is a valid template, so each form has a near miss that is right: ``{{users}}:list`` is a hash tag
of Redis Cluster, ``users::all`` the way Spring separates a cache's name, ``user#{id}`` a separator like any other. So
what could be meant as it is written is told only if the name is one of a column.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from invalidator.rules.written import REFERENCE


@dataclass(frozen=True, slots=True)
class Habit:
    """A piece of a template's text."""

    offset: int
    """0-based character in the text."""
    width: int
    message: str
    help: str


@dataclass(frozen=True, slots=True)
class _Form:
    """How another language writes a value."""

    pattern: re.Pattern[str]
    is_certain: bool = False
    """Nobody writes this as it is."""
    is_common: bool = False
    """People do write this as it is, also where no value is around."""
    consequence: str = "this is literal text, no column"


_NAME: Final = r"(?P<name>[^\W\d]\w*)"
_DOTTED: Final = rf"(?:\w*\.)*{_NAME}"  # {{ post.id }}, {{ .ID }}
_BRACES: Final = "'{{' and '}}' are literal braces here"
_FORMS: Final = (
    _Form(re.compile(rf"\{{\{{\s*{_DOTTED}\s*(?:\|[^{{}}]*)?\}}\}}"), consequence=_BRACES),
    _Form(re.compile(rf"(?<![\w$])\${_NAME}")),
    _Form(re.compile(rf"%\({_NAME}\)[sd]"), is_certain=True),
    _Form(re.compile(rf"<%=?\s*{_DOTTED}\s*%>"), is_certain=True),
    _Form(re.compile(rf"<{_NAME}>")),
    _Form(re.compile(rf"(?<=/):{_NAME}|^:(?P<first>[^\W\d]\w*)")),
    _Form(re.compile(rf"(?<=:):{_NAME}"), is_common=True),
)
_POSITIONAL: Final = re.compile(r"%[sd](?!\w)")
_PREFIXES: Final = {"$": re.compile(r"\$\Z"), "#": re.compile(r"(?<!\w)#\Z"), "%": re.compile(r"(?<!\w)%\Z")}
_LIKE_A_COLUMN: Final = re.compile(r"(?:\w*_)?(?:id|uuid|slug|sku|email)|\w*[a-z]Id", re.ASCII)
_CAPITALS: Final = re.compile(r"\{\s*(?:(?:new|old)\s*\.\s*)?(?P<name>[A-Z][A-Z0-9_]*)\s*(?=[|}])")
_QUOTES: Final = re.compile("[\u2018-\u201f\u00ab\u00bb]")
_INVISIBLE: Final = re.compile("[\u00a0\u00ad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]")
_OUTER_BLANKS: Final = re.compile(r"\A +(?=\S)|(?<=\S) +\Z")
_SUSPECT: Final = re.compile(rf"[$#%<]|\.\*|\{{\{{|[:/]:|^:|\{{[^{{}}]*[A-Z]|{_QUOTES.pattern}|{_INVISIBLE.pattern}")
_GLOBS: Final = (
    (re.compile(r"(?<![\w}\]])\.\*"), "'.*' is no regular expression here: it stands for a dot and anything behind it"),
    (re.compile(r"(?<=[:/_-])%\Z"), "'%' is no wildcard here: it stands for itself"),
)


def is_suspect(text: str) -> bool:
    """Whether it is worth looking closely: one search in place of a dozen, for nearly all templates are right."""
    return _SUSPECT.search(text) is not None or text != text.strip(" ")


def habits(text: str, columns: Collection[str], *, is_glob: bool) -> list[Habit]:
    """What in a valid template looks like another language, in order of appearance.

    Args:
        text: the template as it is written.
        columns: names that the rule uses as columns elsewhere.
        is_glob: whether a ``*`` in it is a glob.
    """
    found = [*_references(text), *_literals(text, columns), *(_globs(text) if is_glob else ()), *_characters(text)]
    return sorted(found, key=lambda habit: habit.offset)


def _references(text: str) -> Iterator[Habit]:
    """References with something before them that belongs to them elsewhere, or spelled as Postgres spells none."""
    for match in REFERENCE.finditer(text):
        if match[0] in {"{{", "}}"}:
            continue
        before = text[: match.start()]
        first = before[-1:]
        if first in _PREFIXES and _PREFIXES[first].search(before):
            message = f"{first}{match[0]}: the '{first}' stays in the name"
            yield Habit(match.start() - 1, len(match[0]) + 1, message, f"write {match[0]}")
        capitals = _CAPITALS.match(match[0])
        if capitals is not None:
            name = capitals["name"]
            message = f"{match[0]}: columns are spelled as in the database, and Postgres makes small letters of a name"
            help_text = f'write {{{name.lower()}}}; or {{"{name}"}} if the column was really made with quotes'
            yield Habit(match.start(), len(match[0]), message + " without quotes", help_text)


def _literals(text: str, columns: Collection[str]) -> Iterator[Habit]:
    values = [match for match in REFERENCE.finditer(text) if match[0] not in {"{{", "}}"}]
    literal = text
    for match in values:  # what a filter's text holds is no habit
        literal = literal[: match.start()] + "\0" * len(match[0]) + literal[match.end() :]
    for form in _FORMS:
        for match in form.pattern.finditer(literal):
            name = next(name for name in match.groupdict().values() if name is not None)
            is_column = name in columns or _LIKE_A_COLUMN.fullmatch(name.lower()) or _LIKE_A_COLUMN.fullmatch(name)
            could_be_meant = form.is_common or values or match.start() == 0
            if form.is_certain or is_column or not could_be_meant:
                right = name.lower() if name.isupper() else name
                message = f"{match[0]}: {form.consequence}"
                yield Habit(match.start(), len(match[0]), message, f"write {{{right}}}")
    for match in _POSITIONAL.finditer(literal):
        message = f"{match[0]}: this is literal text, no value"
        yield Habit(match.start(), len(match[0]), message, "write the column that is meant in braces, as in {id}")


def _globs(text: str) -> Iterator[Habit]:
    for pattern, message in _GLOBS:
        for match in pattern.finditer(text):
            yield Habit(match.start(), len(match[0]), message, "write '*' for any characters")


def _characters(text: str) -> Iterator[Habit]:
    """What word processors put in."""
    if _QUOTES.match(text[:1]) and _QUOTES.match(text[-1:]):
        yield Habit(0, len(text), "typographic quotes are a part of the name", "use plain quotes: ' or \"")
    for match in _OUTER_BLANKS.finditer(text):
        where = "end" if match.start() else "beginning"
        yield Habit(match.start(), len(match[0]), f"the blank at the {where} is a part of the name", "remove it")
    for match in _INVISIBLE.finditer(text):
        message = f"the character U+{ord(match[0]):04X} is a part of the name, and nobody sees it"
        yield Habit(match.start(), 1, message, "remove it, or write a plain space")
