"""Templates turned round: which rules can drop a name, and with what row values.

    solutions   every way in which a template can have made a name
    droppers    the templates of all rules that can drop it, exact and coarse

A name can be read in several ways (``a:{x}:{y}`` and ``a:1:2:3``), so all of them are told, up to a bound. Filters are
undone where that is possible; of the others the answer keeps the filter: ``lower(slug) = 'hello'``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from invalidator.rules import globs
from invalidator.rules.rule import Rule, RuleSet
from invalidator.rules.template import DEFAULT, FILTERS, Filter, Reference, Template, encode

MAX_SOLUTIONS: Final = 50
_MAX_STEPS: Final = 20_000
_MAX_TOKENS: Final = 200

_DIGITS: Final = {"md5": 32, "sha1": 40, "sha256": 64}
_HEXADECIMAL: Final = re.compile(rb"[0-9a-f]*")
_FACTS: Final[Mapping[str, re.Pattern[bytes]]] = {
    "lsn": re.compile(rb"[0-9A-F]{1,8}/[0-9A-F]{1,8}"),
    "xid": re.compile(rb"[0-9]{1,10}"),
    "commit_time": re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z|-?\d+"),
}
_GLOB: Final = re.compile(rb"\*+|\?|\[(?:\\.|[^\]\\])*\]|\\.|[^*?\[\\]+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Value:
    """What one reference must have been: its column, behind those filters that could not be undone."""

    reference: Reference
    text: bytes | None
    """None: NULL."""

    def __str__(self) -> str:
        """As a condition in the manner of SQL."""
        name = self.reference.name
        if self.reference.scope != "row":
            name = f"{self.reference.scope}.{name}"
        for step in self.reference.filters:
            name = f"{step.name}({name})"
        return f"{name} IS NULL" if self.text is None else f"{name} = {_quoted(self.text)}"

    def holds(self, value: bytes | None) -> bool:
        """Whether the column can have had this value."""
        return self.reference.filtered(value) == self.text


Solution = tuple[Value, ...]
"""One way in which a name can have come about: a condition for each reference, in order; empty: any row."""


@dataclass(frozen=True, slots=True)
class Dropper:
    """One template that can drop the name that was asked for."""

    rule: Rule
    group: str
    template: Template
    solutions: tuple[Solution, ...]
    is_coarse: bool
    """It belongs to the coarse form, which drops the name together with others."""
    is_complete: bool = True
    """False: there may be more solutions than those."""


def droppers(ruleset: RuleSet, group: str, name: bytes) -> list[Dropper]:
    """Every template that can drop this name, in the order of the rules.

    Args:
        ruleset: the rules.
        group: one of ``rule.GROUPS``; in ``l1`` the name is an entry, which patterns cover.
        name: the complete name, prefix included.
    """
    found: list[Dropper] = []
    for rule in ruleset.rules:
        for template, is_glob, is_coarse in _templates(rule, group):
            ways, is_complete = search(template, name, rule, is_glob=is_glob)
            if ways or not is_complete:
                found.append(Dropper(rule, group, template, tuple(ways), is_coarse, is_complete))
    return found


def _templates(rule: Rule, group: str) -> Iterator[tuple[Template, bool, bool]]:
    """Template, whether its literal text is a glob, and whether it belongs to the coarse form."""
    coarse = rule.coarse
    forms: dict[str, tuple[tuple[Template, ...], tuple[Template, ...], tuple[Template, ...]]] = {
        "keys": (rule.exact.keys, coarse.keys, coarse.key_patterns),
        "tags": (rule.exact.tags, coarse.tags, coarse.tag_patterns),
        "l1": (rule.exact.l1, (), coarse.l1),
        "cdn": (rule.exact.cdn, coarse.cdn, ()),
    }
    exact, coarse_names, coarse_patterns = forms[group]
    yield from ((template, group == "l1", False) for template in exact)
    yield from ((template, False, True) for template in coarse_names)
    yield from ((template, True, True) for template in coarse_patterns)


def search(
    template: Template, name: bytes, rule: Rule | None = None, *, is_glob: bool = False
) -> tuple[list[Solution], bool]:
    """The ways in which the template can have made the name, or covers it; and whether these are all.

    Args:
        template: what to turn round.
        name: what it made.
        rule: whose template; narrows what the facts of a change can be.
        is_glob: the template's literal text is a glob, and the name is one that it covers.
    """
    found: dict[Solution, None] = {}
    searching = _Search(template, name, rule, is_glob=is_glob)
    for way in searching.ways(0, 0, {}):
        if len(found) == MAX_SOLUTIONS:
            return list(found), False
        found[way] = None
    return list(found), searching.is_complete


def solutions(template: Template, name: bytes, rule: Rule | None = None, *, is_glob: bool = False) -> list[Solution]:
    """The ways of :func:`search`, as many as it finds."""
    return search(template, name, rule, is_glob=is_glob)[0]


class _Any:
    """``*`` of a glob."""


_Token = bytes | re.Pattern[bytes] | _Any | Reference


class _Search:
    """Tries every way to cut a name into the parts of a template, bounded in steps."""

    def __init__(self, template: Template, name: bytes, rule: Rule | None, *, is_glob: bool) -> None:
        self._name = name
        self._rule = rule
        self._steps = _MAX_STEPS
        self._tokens = list(_tokens(template, is_glob=is_glob))
        if len(self._tokens) > _MAX_TOKENS:
            self._steps = -1

    @property
    def is_complete(self) -> bool:
        """Whether the bound on steps was kept."""
        return self._steps >= 0

    def ways(self, token: int, at: int, values: Mapping[Reference, Value]) -> Iterator[Solution]:
        """The solutions from here on; ``values`` are those of the references before."""
        self._steps -= 1
        if self._steps < 0:
            return
        if token == len(self._tokens):
            if at == len(self._name):
                yield tuple(values.values())
            return
        for end, known in self._next(self._tokens[token], token, at, values):
            yield from self.ways(token + 1, end, known)

    def _next(
        self, now: _Token, token: int, at: int, values: Mapping[Reference, Value]
    ) -> Iterator[tuple[int, Mapping[Reference, Value]]]:
        """Where this token can end, and what is known then."""
        match now:
            case bytes():
                if self._name.startswith(now, at):
                    yield at + len(now), values
            case re.Pattern():
                if one := now.match(self._name, at):
                    yield one.end(), values
            case _Any():
                yield from ((end, values) for end in self._ends(token, at))
            case Reference():
                for end in self._ends(token, at):
                    for value in _inverted(now, self._name[at:end], self._rule):
                        if _agrees(value, values.values()):
                            yield end, {**values, now: value}

    def _ends(self, token: int, at: int) -> Iterable[int]:
        """Where a value that starts here can end: at the end, or before the literal text that follows it."""
        if token + 1 == len(self._tokens):
            return (len(self._name),)
        after = self._tokens[token + 1]
        if isinstance(after, bytes):
            return [match.start() + at for match in re.finditer(b"(?=" + re.escape(after) + b")", self._name[at:])]
        return range(at, len(self._name) + 1)


def _tokens(template: Template, *, is_glob: bool) -> Iterator[_Token]:
    for part in template.parts:
        if isinstance(part, Reference):
            yield part
        elif is_glob:
            yield from map(_glob_token, _GLOB.findall(encode(part.text)))
        else:
            yield encode(part.text)


def _glob_token(text: bytes) -> _Token:
    """One element of a glob as Redis reads it."""
    match text[:1]:
        case b"*":
            return _Any()
        case b"?":
            return re.compile(rb".", re.DOTALL)
        case b"[" if len(text) > 1:
            inside = text[1:-1]
            negated = b"^" if inside[:1] == b"^" else b""
            members = re.findall(rb"\\.|[^\\]-[^\\\]]|[^\\]", inside[len(negated) :], re.DOTALL)
            ranges = b"".join(
                re.escape(member[:1]) + b"-" + re.escape(member[2:])
                if len(member) == 3 and member[:1] <= member[2:]
                else re.escape(member[-1:])
                for member in members
            )
            return re.compile(b"[" + negated + ranges + b"]" if ranges else rb"(?!)", re.DOTALL)
        case b"\\" if len(text) > 1:
            return text[1:]
        case _:
            return text


def _agrees(value: Value, others: Iterable[Value]) -> bool:
    """Whether a column that is named more than once can have had one value for all of them."""
    for other in others:
        if (other.reference.scope, other.reference.name) != (value.reference.scope, value.reference.name):
            continue
        if not other.reference.filters and not value.holds(other.text):
            return False
        if not value.reference.filters and not other.holds(value.text):
            return False
        if other.reference == value.reference and other.text != value.text:
            return False
    return True


def _inverted(reference: Reference, text: bytes, rule: Rule | None) -> Iterator[Value]:
    """What the reference can have been for it to write this text."""
    if reference.scope != "meta" and reference.filtered(None) == text:
        yield Value(replace(reference, filters=()), None)
    kept = [step for step in reference.filters if step.name != DEFAULT]
    while kept and kept[-1].name in _UNDOING:
        undone = _UNDOING[kept.pop().name](text)
        if undone is None:
            return
        text = undone
    value = Value(replace(reference, filters=tuple(kept)), text)
    if _is_plausible(kept, text) and (reference.scope != "meta" or _is_possible(value, rule)):
        yield value


def _decoded(text: bytes) -> bytes | None:
    value = unquote_to_bytes(text)
    return value if FILTERS["urlencode"](value) == text else None


def _unwrapped(text: bytes) -> bytes | None:
    return text[1:-1] if len(text) >= 2 and text[:1] == b"{" and text[-1:] == b"}" else None


_UNDOING: Final = {"urlencode": _decoded, "hashtag": _unwrapped}


def _is_plausible(kept: list[Filter], text: bytes) -> bool:
    """Whether the last filter can have written this."""
    if not kept:
        return True
    name = kept[-1].name
    if name in _DIGITS:
        return len(text) == _DIGITS[name] and _HEXADECIMAL.fullmatch(text) is not None
    return FILTERS[name](text) == text  # lower, upper and trim change nothing of what they have written


def _is_possible(value: Value, rule: Rule | None) -> bool:
    """Whether a fact of a change that this rule sees can be this."""
    text, name = value.text or b"", value.reference.name
    if name in _FACTS and not value.reference.filters:
        return _FACTS[name].fullmatch(text) is not None
    if rule is None:
        return True
    if name == "op":
        return any(value.holds(encode(event.value)) for event in rule.events)
    patterns = {"schema": rule.schema, "table": rule.table}
    pattern = patterns.get(name)
    if pattern is None:
        return True
    if "*" not in pattern:
        return value.holds(encode(pattern))
    decoded = text.decode("utf-8", "surrogateescape")
    return bool(value.reference.filters) or globs.name_matcher(pattern).fullmatch(decoded) is not None


def _quoted(text: bytes) -> str:
    return "'" + text.decode("utf-8", "backslashreplace").replace("'", "''") + "'"
