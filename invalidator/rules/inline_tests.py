"""The ``tests:`` of rule files as values: one change each, and exactly what must come of it.

``testing.py`` runs them. Here they are read, and held against the rules: a test that no rule is for, or whose row
lacks a column that a rule needs, would say nothing, so it is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from invalidator.model import Operation, Relation, WidenReason
from invalidator.rules.compiler.bound import missing_columns
from invalidator.rules.explain import KINDS
from invalidator.rules.guessing import with_likely_types
from invalidator.rules.rows import JsonRow, relation_of
from invalidator.rules.rule import Place, Rule, RuleSet
from invalidator.rules.schema import InlineTestModel, RuleFile
from invalidator.rules.table_names import split_table
from invalidator.rules.template import encode
from invalidator.yamlfile import Diagnostic, Document, Path, Span

_IDENTITY_HELP: Final = "leave identity: out: without it all of the old row is sent, as with FULL"


@dataclass(frozen=True, slots=True)
class InlineTest:
    """One test: a change, and exactly what all rules of all files together must make of it."""

    name: str
    schema: str
    table: str
    operation: Operation
    old: JsonRow | None
    new: JsonRow | None
    identity: tuple[str, ...] | None
    """The columns of the replica identity; None: FULL."""
    lookups: Mapping[str, tuple[JsonRow, ...]]
    """What lookups find, by name; a lookup without an entry is not answered."""
    expected: Mapping[str, frozenset[bytes]]
    """Names by kind (``KINDS``); a kind without an entry must stay empty."""
    cdn_all: bool
    widened: frozenset[WidenReason]
    place: Place
    table_span: Span
    row_span: Span
    lookup_spans: Mapping[str, Span]

    def relation(self, rules: Iterable[Rule], known: Relation | None = None) -> Relation:
        """The changed table: as the catalog knows it, or with the columns that the rows have.

        Args:
            rules: those for the table; their conditions tell what a text in a row stands for.
            known: what the catalog says.
        """
        rows = [row for row in (self.old, self.new) if row is not None]
        if known is None:
            made = relation_of(self.schema, self.table, rows, self.identity)
            return with_likely_types(made, rows, rules)
        if self.identity is None:
            return known
        columns = tuple(replace(column, is_identity=column.name in self.identity) for column in known.columns)
        return replace(known, replica_identity="d", columns=columns)


def assemble_tests(document: Document, file: RuleFile) -> tuple[list[InlineTest], list[Diagnostic]]:
    """The tests of one file, and what is wrong with them by themselves."""
    tests: list[InlineTest] = []
    diagnostics: list[Diagnostic] = []
    seen: dict[str, int] = {}
    for index, model in enumerate(file.tests):
        path: Path = ("tests", index)
        first = seen.setdefault(model.name, document.span(path).line)
        if first != document.span(path).line:
            message = f"there is a test of this name already, at line {first}"
            diagnostics.append(document.diagnostic(document.span((*path, "name")), "duplicate-test", message))
        if "*" in model.table:
            message = "a test is about one row of one table, so '*' cannot stand here"
            help_text = "write the name of a table that the rule is for"
            diagnostics.append(document.diagnostic(document.span((*path, "table")), "bad-value", message, help_text))
            continue
        tests.append(_assembled(document, path, model))
        diagnostics += _bad_identity(document, path, tests[-1])
    return tests, diagnostics


def _assembled(document: Document, path: Path, model: InlineTestModel) -> InlineTest:
    schema, table = split_table(model.table)
    operation, old, new = _images(model)
    span = document.span(path)
    return InlineTest(
        name=model.name,
        schema=schema,
        table=table,
        operation=operation,
        old=old,
        new=new,
        identity=None if model.identity is None else tuple(model.identity),
        lookups={name: tuple(rows) for name, rows in model.lookup.items()},
        expected={kind: frozenset(map(encode, getattr(model.expect, kind))) for kind in KINDS},
        cdn_all=model.expect.cdn_all,
        widened=frozenset(model.expect.widened),
        place=Place(document.file, span.line, span.column),
        table_span=document.span((*path, "table")),
        row_span=document.key_span((*path, operation.value)),
        lookup_spans={name: document.key_span((*path, "lookup", name)) for name in model.lookup},
    )


def _images(model: InlineTestModel) -> tuple[Operation, dict[str, Any] | None, dict[str, Any] | None]:
    if model.insert is not None:
        return Operation.INSERT, None, model.insert
    if model.delete is not None:
        return Operation.DELETE, model.delete, None
    if model.update is not None:
        old, new = model.update.old, model.update.new
        return Operation.UPDATE, new | old, old | new
    return Operation.TRUNCATE, None, None


def _bad_identity(document: Document, path: Path, test: InlineTest) -> Iterator[Diagnostic]:
    given = {*(test.old or {}), *(test.new or {})}
    for index, column in enumerate(test.identity or ()):
        if column not in given and test.operation is not Operation.TRUNCATE:
            message = f"the row of this test has no column '{column}'"
            span = document.span((*path, "identity", index))
            near = _IDENTITY_HELP if column.lower() == "full" else _near(column, sorted(given))
            yield document.diagnostic(span, "test-missing-column", message, near)


def check_tests(tests: Sequence[InlineTest], ruleset: RuleSet) -> Iterator[Diagnostic]:
    """What is wrong with the tests in view of all rules."""
    tables = sorted({f"{rule.schema}.{rule.table}" for rule in ruleset.rules})

    @cache
    def meant(name: str) -> str:
        return _near(name, tables) or f"there are rules for {', '.join(tables[:10])}"

    for test in tests:
        concerned = [rule for _, rule in ruleset.for_table(test.schema, test.table)]
        if not concerned:
            message = f"no rule is for {test.schema}.{test.table}, so this test says nothing"
            yield _error(test, test.table_span, "test-without-rule", message, meant(f"{test.schema}.{test.table}"))
            continue
        yield from _unknown_lookups(test, concerned)
        if test.operation is not Operation.TRUNCATE:
            yield from _missing_columns(test, concerned)


def _unknown_lookups(test: InlineTest, rules: Sequence[Rule]) -> Iterator[Diagnostic]:
    known = sorted({lookup.name for rule in rules for lookup in rule.lookups})
    for name, span in test.lookup_spans.items():
        if name not in known:
            message = f"no rule for {test.schema}.{test.table} has a lookup '{name}'"
            listing = f"there are {', '.join(known)}" if known else "none of them has a lookup at all"
            yield _error(test, span, "test-unknown-lookup", message, _near(name, known) or listing)


def _missing_columns(test: InlineTest, rules: Sequence[Rule]) -> Iterator[Diagnostic]:
    """In the stream a missing column widens, which is not what the author of a shortened row means."""
    relation = test.relation(())
    for rule in rules:
        missing = sorted(missing_columns(rule, relation)) if test.operation in rule.events else []
        if missing:
            names = ", ".join(f"'{name}'" for name in missing)
            message = f"the row of this test lacks {names}, which rule '{rule.name}' ({rule.place}) needs"
            help_text = f"add {', '.join(f'{name}: …' for name in missing)} (null is a value too)"
            yield _error(test, test.row_span, "test-missing-column", message, help_text)


def _error(test: InlineTest, span: Span, code: str, message: str, help_text: str | None) -> Diagnostic:
    return Diagnostic(test.place.file, span.line, span.column, span.width, code, message, help_text)


def _near(word: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"did you mean '{near[0]}'?" if near else None
