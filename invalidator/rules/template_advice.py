"""What was probably meant by a template that cannot be read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from invalidator.rules.filters import FILTERS

NAME_HELP: Final = "write the name of a column, as in {id}"
UNUSUAL_HELP: Final = 'put unusual column names in double quotes: {"Weird Name"}'
UNCLOSED_HELP: Final = "write '}' behind the name, as in {id}; '{{' is a literal brace"

_FILTER_HELP: Final = "only filters stand behind a column, as in {id|lower}"
_FILTERS: Final = {
    "downcase": "lower",
    "upcase": "upper",
    "hash": "sha256",
    "sha512": "sha256",
    "escape": "urlencode",
    "encode": "urlencode",
}
"""What other tools call a filter of ours, or one that does as well."""

_FACTS: Final = {
    "operation": "op",
    "action": "op",
    "event": "op",
    "name": "table",
    "time": "commit_time",
    "timestamp": "commit_time",
}
"""What other tools call a fact of the change."""

_WRAPPED: Final = re.compile(r"['`\[](?P<column>[^'`\[\]{}]+)['`\]]")
_PART_HELP: Final = "a template takes whole columns: select a part of one in a lookup, or keep it in a generated column"
_IMAGES: Final = {"row": "", "this": "", "self": "", "record": "", "after": "new.", "before": "old."}
"""What other tools call the row, or one image of it."""

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$]*")
_CALL: Final = re.compile(r"\(\s*(?P<column>\w+)\s*\)")
_OTHERWISE: Final = re.compile(r"(?:or|\?\?|\?:)\s*'(?P<text>[^'}]*)'")
_HYPHENS: Final = re.compile(r"(?:-\w+)+")
_BLANKS: Final = re.compile(r"\w+(?: +\w+)*(?=\s*[|}])")
_DOT: Final = re.compile(r"\.\s*(?P<column>\w+)")


def behind_name(name: str, rest: str) -> str:
    """What to write where something else than a filter follows a column.

    Args:
        name: the column.
        rest: the template from there on.
    """
    if (call := _CALL.match(rest)) is not None:
        step = name.lower() if name.lower() in FILTERS else "lower"
        return (
            f"write {{{call['column']}|{step}}}" if step == name.lower() else f"there are no functions: {_FILTER_HELP}"
        )
    if rest.startswith(("->", "[", "#>")):
        return _PART_HELP
    if (hyphens := _HYPHENS.match(rest)) is not None:
        return f'write {{"{name}{hyphens[0]}"}} if the column is called so'
    if (dot := _DOT.match(rest)) is not None:
        column = dot["column"]
        return f"there is one dot at most: write {{{name}.{column}}} if '{name}' is a lookup, else {{{column}}}"
    if (otherwise := _OTHERWISE.match(rest)) is not None:
        return f"write {{{name}|default:'{otherwise['text']}'}}"
    if (blanks := _BLANKS.match(rest)) is not None:
        return f'write {{"{name} {blanks[0]}"}} if the column is called so'
    return _FILTER_HELP


def instead_of_scope(scope: str, rest: str, lookups: Sequence[str]) -> str:
    """What to write for a word before the dot that is neither an image nor a lookup.

    Args:
        scope: the word.
        rest: the template from the dot on.
        lookups: the lookups of the rule.
    """
    known = ("new", "old", "meta", *lookups)
    dot = _DOT.match(rest)
    column = dot["column"] if dot is not None else "column"
    word = scope.lower()
    if word in known:
        return f"write {{{word}.{column}}}"
    if word in _IMAGES:
        return f"write {{{_IMAGES[word]}{column}}}"
    near = difflib.get_close_matches(word, known, 1, 0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    if column in FILTERS:
        return f"write {{{scope}|{column}}}"
    return (
        f"write {{{column}}} for a column of the changed row; before a dot stand {', '.join(known)}; "
        "a part of a JSON column takes a lookup or a generated column"
    )


def instead_of_quotes(rest: str) -> str:
    """What to write where something begins that is no name.

    Args:
        rest: the template from there on.
    """
    wrapped = _WRAPPED.match(rest)
    if wrapped is None:
        return UNUSUAL_HELP
    column = wrapped["column"]
    return f"write {{{column}}}" if _PLAIN.fullmatch(column) else f'write {{"{column}"}}: names stand in double quotes'


def filter_meant(name: str, known: Iterable[str]) -> str | None:
    """For a filter that is not there."""
    return _suggestion(_FILTERS.get(name.lower(), name.lower()), known)


def fact_meant(name: str, known: Iterable[str]) -> str | None:
    """For a fact of the change that is not there."""
    return _suggestion(_FACTS.get(name.lower(), name.lower()), known)


def _suggestion(word: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean '{near[0]}'?" if near else None
