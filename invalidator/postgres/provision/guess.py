"""Which tables a query seems to read, told from its words alone: for SQL that is printed without a connection."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | --[^\n]* | /\*.*?\*/ | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$  # nothing in these is a name
      | (?P<quoted>"(?:[^"]|"")*") | (?P<word>[^\W\d][\w$]*) | (?P<sign>[^\s\w])""",
    re.DOTALL | re.VERBOSE,
)
_ENDS_FROM = frozenset(
    "where group order having limit union except intersect window fetch offset select for".split()  # noqa: SIM905  (words read better so)
)
_HAVE_FROM_INSIDE = frozenset({"extract", "substring", "trim", "overlay"})


def tables_named(query: str) -> list[tuple[str, str]]:
    """Schema and name of what stands behind FROM and JOIN, in order; without a schema it is ``public``."""
    return _Query(query).tables()


class _Query:
    """Walks over the words; ``_from`` says for each open parenthesis whether a FROM list is open in it."""

    def __init__(self, text: str) -> None:
        self._tokens = [
            (match.lastgroup or "", match[0]) for match in _TOKEN.finditer(text) if match.lastgroup not in {None, "tag"}
        ]
        self._from: list[bool | None] = [False]  # None: a function whose arguments are parted by FROM
        self._found: dict[tuple[str, str], None] = {}
        self._at = 0

    def tables(self) -> list[tuple[str, str]]:
        own = set(self._with_names())
        while self._at < len(self._tokens):
            self._step()
        return [(schema or "public", name) for schema, name in self._found if schema or name not in own]

    def _step(self) -> None:
        word = self._word(self._at)
        before = self._word(self._at - 1)
        self._at += 1
        if word == "(":
            self._from.append(None if before in _HAVE_FROM_INSIDE else False)
        elif word == ")" and len(self._from) > 1:
            self._from.pop()
        elif word in _ENDS_FROM:
            self._from[-1] = False
        elif (word in {"from", "join"} and self._from[-1] is not None and before != "distinct") or (
            word == "," and self._from[-1]
        ):
            self._from[-1] = True
            self._entry()

    def _entry(self) -> None:
        """What stands behind FROM, JOIN or a comma: a name, unless it is a function or a parenthesis."""
        while self._word(self._at) in {"only", "lateral"}:
            self._at += 1
        names: list[str] = []
        while self._is_name(self._at):
            names.append(self._name(self._at))
            self._at += 1
            if self._word(self._at) != ".":
                break
            self._at += 1
        if names and self._word(self._at) != "(":
            self._found["" if len(names) == 1 else names[-2], names[-1]] = None

    def _with_names(self) -> Iterator[str]:
        """The names that WITH gives: before ``AS (``, past a list of columns."""
        for at in range(1, len(self._tokens)):
            behind = at + 1
            while self._word(behind) in {"not", "materialized"}:
                behind += 1
            if self._word(at) != "as" or self._word(behind) != "(":
                continue
            named = at - 1
            if self._word(named) == ")":
                while named > 0 and self._word(named) != "(":
                    named -= 1
                named -= 1
            if self._is_name(named):
                yield self._name(named)

    def _word(self, at: int) -> str:
        """The token in lower case; of a quoted name nothing that could be taken for a keyword."""
        if not 0 <= at < len(self._tokens):
            return ""
        kind, text = self._tokens[at]
        return '"' if kind == "quoted" else text.lower()

    def _is_name(self, at: int) -> bool:
        return 0 <= at < len(self._tokens) and self._tokens[at][0] in {"word", "quoted"}

    def _name(self, at: int) -> str:
        kind, text = self._tokens[at]
        return text[1:-1].replace('""', '"') if kind == "quoted" else text.lower()
