"""Takes the text of a condition apart into words, names, values and signs, each of which knows its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from invalidator.rules.condition.tree import ConditionError

_TOKEN: Final = re.compile(
    r"""(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?!\w))
      | '(?P<text>(?:[^']|'')*)'
      | "(?P<quoted>(?:[^"]|"")*)"
      | (?P<name>[^\W\d][\w$]*)
      | (?P<operator><=|>=|<>|!=|===|==|&&|\|\||=~|!~|::|->>|->|[=<>!()\[\],.])
      | (?P<other>\S)""",
    re.VERBOSE,
)
_NEARLY_A_NUMBER: Final = re.compile(r"[\w.]+")
_SPACE: Final = re.compile(r"\s*")
_SPELLINGS: Final = {"==": "=", "<>": "!=", "&&": "and", "||": "or", "!": "not"}
_WORDS: Final = frozenset({"and", "or", "not", "in", "is", "null", "true", "false"})


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a condition that means something by itself."""

    kind: str
    """``word``, ``name``, ``quoted``, ``text``, ``number``, ``operator``, ``other`` or ``end``."""
    text: str
    offset: int
    width: int

    @property
    def shown(self) -> str:
        """The token as a message names it."""
        text = self.text if len(self.text) <= 30 else self.text[:30] + "…"
        return {"text": f"the text '{text}'", "quoted": f'"{text}"', "end": "the end"}.get(self.kind, f"'{text}'")


def tokens_of(text: str) -> list[Token]:
    """The tokens from left to right, the last of kind ``end``.

    Raises:
        ConditionError: something begins as a text, a name or a number, and is none.
    """
    tokens: list[Token] = []
    at = _end_of_space(text, 0)
    while at < len(text):
        match = _TOKEN.match(text, at)
        kind = (match.lastgroup if match else None) or "other"
        if match is None:  # cannot be: the last alternative takes any character but space
            break
        tokens.append(_token(kind, match, text))
        at = _end_of_space(text, match.end())
    # What is missing at the end is shown at the last thing that is there.
    last = tokens[-1] if tokens else Token("end", "", 0, 1)
    tokens.append(Token("end", "", last.offset, last.width))
    return tokens


def _end_of_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _token(kind: str, match: re.Match[str], whole: str) -> Token:
    offset, width = match.start(), match.end() - match.start()
    text = match[kind]
    if kind == "other" and text in "'\"":
        what = "text" if text == "'" else "name"
        message = f"no closing {text} after this {what}"
        help_text = f"close it; write {text}{text} for a quote inside"
        raise ConditionError(message, offset=offset, width=len(whole) - offset, help=help_text)
    if kind == "other" and text.isdigit():
        end = _NEARLY_A_NUMBER.match(whole, offset)
        message = f"'{end[0] if end else text}' is no number"
        digits = (end[0] if end else text).replace("_", "")
        help_text = f"write {digits}" if digits.isdecimal() and digits.isascii() else "a text stands in single quotes"
        raise ConditionError(message, offset=offset, width=len(end[0]) if end else 1, help=help_text)
    if kind == "text":
        text = text.replace("''", "'")
    elif kind == "quoted":
        text = text.replace('""', '"')
    elif kind == "operator":
        text = _SPELLINGS.get(text, text)
        kind = "word" if text in _WORDS else kind
    elif kind == "name" and text.lower() in _WORDS:
        kind, text = "word", text.lower()
    return Token(kind, text, offset, width)
