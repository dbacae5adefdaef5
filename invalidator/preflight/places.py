"""Where each rule reads which column, as places in its file: what findings point at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from invalidator import yamlfile
from invalidator.model import Operation
from invalidator.preflight.finding import At
from invalidator.rules.condition.tree import Changed, columns_of, terms_of
from invalidator.rules.lookup_sql import Placeholder
from invalidator.rules.rule import GROUPS, Rule
from invalidator.rules.template import Reference, TemplateError, parse

Part = Literal["template", "changed", "when", "lookup"]

_REFERENCE: Final = re.compile(r"""\{\{|\}\}|\{(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^{}"'])*\}""")
_NAME: Final = re.compile(r"""\{\s*(?:[^\W\d]\w*\s*\.\s*)?("(?:[^"]|"")*"|[^\s|}.]+)""")
_ROW: Final = frozenset({"row", "new", "old"})
_OLD: Final = frozenset({Operation.UPDATE, Operation.DELETE})


@dataclass(frozen=True, slots=True)
class Use:
    """A rule reads a column here."""

    rule: Rule
    column: str
    scope: str
    """``row`` (both images), ``new`` or ``old``."""
    part: Part
    at: At
    written: str
    """``{slug|lower}``, or the column's name in a list or condition."""
    around: str
    """The template or condition that it stands in."""

    @property
    def needs_old(self) -> bool:
        """Whether the value before a change is needed."""
        if self.part == "changed":
            return Operation.UPDATE in self.rule.events
        return self.scope in {"row", "old"} and bool(self.rule.events & _OLD)

    @property
    def needs_new(self) -> bool:
        """Whether the value after a change is needed."""
        return self.scope in {"row", "new"} and bool(self.rule.events & {Operation.INSERT, Operation.UPDATE})


class Places:
    """The rule files, parsed once more for their positions.

    Args:
        sources: the text of each rule file by its name.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._paths: dict[tuple[str, str], tuple[yamlfile.Document, yamlfile.Path]] = {}
        for file, text in sources.items():
            document = yamlfile.parse(text, file)
            rules = _get(document.data, ("rules",))
            for index, entry in enumerate(rules if isinstance(rules, list) else ()):
                if isinstance(entry, dict):
                    self._paths[file, str(entry.get("name"))] = (document, ("rules", index))

    def at(self, rule: Rule, *steps: str | int, key: bool = False) -> At:
        """The value under these steps of a rule, or the key before it; the rule itself if there is none."""
        document, path = self._rule(rule)
        if document is None:
            return At(rule.place.file, rule.place.line, rule.place.column)
        wanted = (*path, *steps)
        if wanted not in document.values:
            wanted, key = (*path, "name"), False
        span = document.key_span(wanted) if key else document.span(wanted)
        return At(document.file, span.line, span.column, span.width)

    def within(self, rule: Rule, steps: yamlfile.Path, offset: int, width: int) -> At:
        """A part of a text value of a rule."""
        document, path = self._rule(rule)
        if document is None:
            return At(rule.place.file, rule.place.line, rule.place.column)
        span = document.within((*path, *steps), offset, width)
        return At(document.file, span.line, span.column, span.width)

    def value(self, rule: Rule, *steps: str | int) -> object:
        """What is written under these steps of a rule; None when nothing is."""
        document, path = self._rule(rule)
        return None if document is None else _get(document.data, (*path, *steps))

    def has_written_coarse(self, rule: Rule) -> bool:
        """Whether somebody wrote the rule's coarse form, instead of leaving it to be derived."""
        return bool(self.value(rule, "coarse"))

    def uses(self, rule: Rule) -> list[Use]:
        """Every column that the rule reads, with its place."""
        return [
            *(
                Use(rule, each.reference.name, each.reference.scope, "template", each.at, each.written, each.around)
                for each in self._references(rule)
                if each.reference.scope in _ROW
            ),
            *self._changed(rule),
            *self._bound(rule),
            *self._asked(rule),
        ]

    def results(self, rule: Rule, lookup: str) -> list[tuple[At, str]]:
        """The columns of a lookup's result that the rule's templates name, with their places."""
        return [(each.at, each.reference.name) for each in self._references(rule) if each.reference.scope == lookup]

    def _references(self, rule: Rule) -> Iterator[_Referred]:
        document, path = self._rule(rule)
        if document is None:
            return
        written = False
        for group in GROUPS:
            entries = _get(document.data, (*path, "invalidate", group))
            for index, text in enumerate(entries if isinstance(entries, list) else ()):
                written = written or group != "cdn"
                yield from _in_template(document, (*path, "invalidate", group, index), str(text))
        own = (*path, "prefix")
        prefix = own if _get(document.data, own) is not None else ("defaults", "prefix")
        text = _get(document.data, prefix)
        if written and isinstance(text, str):
            yield from _in_template(document, prefix, text)

    def _changed(self, rule: Rule) -> Iterator[Use]:
        columns = self.value(rule, "changed")
        for index, name in enumerate(columns if isinstance(columns, list) else ()):
            at = self.at(rule, "changed", index)
            yield Use(rule, str(name), "row", "changed", at, str(name), "changed")

    def _bound(self, rule: Rule) -> Iterator[Use]:
        for lookup in rule.lookups:
            text = lookup.sql.text
            for part in lookup.sql.parts:
                name = _NAME.match(text, part.offset) if isinstance(part, Placeholder) else None
                if name is None or not isinstance(part, Placeholder) or not part.reference.is_row_value:
                    continue
                at = self.within(rule, ("lookup", lookup.name, "sql"), name.start(1), len(name[1]))
                written = text[part.offset : text.index("}", name.end()) + 1]
                around = f"what lookup '{lookup.name}' finds"
                yield Use(rule, part.reference.name, part.reference.scope, "lookup", at, written, around)

    def _asked(self, rule: Rule) -> Iterator[Use]:
        for term in terms_of(rule.when.node) if rule.when is not None else ():
            part: Part = "changed" if isinstance(term, Changed) else "when"
            for column in columns_of(term):
                at = self.within(rule, ("when",), column.offset, column.width)
                yield Use(rule, column.name, column.scope, part, at, column.name, "when")

    def _rule(self, rule: Rule) -> tuple[yamlfile.Document | None, yamlfile.Path]:
        return self._paths.get((rule.place.file, rule.name), (None, ()))


@dataclass(frozen=True, slots=True)
class _Referred:
    """A reference in a template."""

    reference: Reference
    at: At
    written: str
    around: str


def _in_template(document: yamlfile.Document, path: yamlfile.Path, text: str) -> Iterator[_Referred]:
    for match in _REFERENCE.finditer(text):
        reference = _reference(match[0])
        name = _NAME.match(match[0])
        if reference is None or name is None:
            continue
        span = document.within(path, match.start() + name.start(1), len(name[1]))
        yield _Referred(reference, At(document.file, span.line, span.column, span.width), match[0], text)


def _reference(text: str) -> Reference | None:
    if text in {"{{", "}}"}:
        return None
    try:
        references = parse(text, None).references
    except TemplateError:  # the loader has said so
        return None
    return references[0] if references else None


def _get(data: object, path: yamlfile.Path) -> object:
    for step in path:
        try:
            data = data[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return data
