"""Random rule files: nothing crashes, nothing takes long, nothing is refused without a place and a known code.

``FUZZ_EXAMPLES=100000 pytest --timeout=0 tests/unit/rules/test_fuzz.py`` looks longer.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings

from invalidator import codes
from invalidator.model import Column, Invalidation, Operation, Relation, Transaction
from invalidator.ports import TagGrammar
from invalidator.rules import document, lookup_sql, testing
from invalidator.rules.document import Loaded
from invalidator.rules.engine import Engine
from invalidator.rules.rows import row_message
from invalidator.rules.rule import Rule
from invalidator.yamlfile import Diagnostic, Invalid
from tests.support.rule_files import damaged_shipped, spoiled

FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
MAX_SECONDS = 0.1
GRAMMARS = (TagGrammar("Edge", re.compile(rb"[!-+\--~]+"), 64, "printable ASCII without space and comma"),)
RULE = b"version: 1\nrules:\n- name: a\n  table: public.a\n  invalidate: {keys: ['a:{id}']}\n"
HUGE = b"0x" + b"F" * 4000
STARS = "*a" * 30


@FUZZ
@given(spoiled())
@example(RULE + b"  bulk_over: " + HUGE)
@example(RULE + b"tests:\n- name: " + HUGE + b"\n  table: public.a\n  insert: {id: 1}\n  expect: {}\n")
@example(RULE + b"tests:\n- name: a\n  table: public.a\n  insert: {id: {a: " + HUGE + b"}}\n  expect: {}\n")
@example(
    RULE.replace(b"public.a", b"'*." + STARS.encode() + b"b'")
    + b"tests:\n- name: a\n  table: public." + b"a" * 63 + b"\n  insert: {id: 1}\n  expect: {}\n"
)  # fmt: skip
def test_a_rule_file_with_mistakes_is_taken_or_refused_at_a_place_inside_soon(tmp_path: Path, raw: bytes) -> None:
    check(tmp_path, raw)


@FUZZ
@given(damaged_shipped())
def test_a_damaged_rule_file_is_taken_or_refused_at_a_place_inside_soon(tmp_path: Path, raw: bytes) -> None:
    check(tmp_path, raw)


def check(folder: Path, raw: bytes) -> None:
    path = folder / "rules.yaml"
    path.write_bytes(raw)
    seconds, found = timed(path)
    for _ in range(5 if seconds > MAX_SECONDS else 0):  # a busy machine, or the collector: what is slow stays slow
        seconds = min(seconds, timed(path)[0])
    assert seconds <= MAX_SECONDS, seconds
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", raw.decode("utf-8-sig", "replace"))
    for each in found:
        assert each.code in codes.all_codes(), each
        assert each.file == str(path)
        assert 1 <= each.line <= len(lines), each
        assert 1 <= each.column <= len(lines[each.line - 1]) + 1, each
        assert each.width >= 1
        assert each.message


def timed(path: Path) -> tuple[float, list[Diagnostic]]:
    """How long it takes to check the file, tests included, and what is said about it; what was taken is used."""
    begun = time.process_time()
    try:
        loaded = document.load_with_warnings([path])
    except Invalid as invalid:
        return time.process_time() - begun, refusals(invalid)
    found = [*loaded.warnings, *testing.findings(testing.run(loaded, cdn_grammars=GRAMMARS))]
    seconds = time.process_time() - begun
    assert all(each.render(loaded.sources[each.file]) for each in loaded.warnings)
    use(loaded)
    return seconds, found


def refusals(invalid: Invalid) -> list[Diagnostic]:
    assert invalid.diagnostics
    assert str(invalid)
    return list(invalid.diagnostics)


def use(loaded: Loaded) -> None:
    """Rules that were taken do something with any row."""
    engine = Engine(loaded.ruleset, states={}, tables={}, cdn_grammars=GRAMMARS)
    invalidation, transaction = Invalidation(), Transaction(1, 1, 1)
    for oid, rule in enumerate(loaded.ruleset.rules, 1):
        relation = relation_for(rule, oid)
        for lookup in rule.lookups:
            lookup_sql.wrap(lookup.sql, ["text"] * len(lookup.sql.parameters), limit=lookup.limit)
        function = engine.bind(relation)
        rows = [{column.name: value for column in relation.columns} for value in ("1", None, "*[\n")]
        for operation in (Operation.INSERT, Operation.UPDATE, Operation.DELETE) if function is not None else ():
            for old, new in zip(rows, [*rows[1:], rows[0]], strict=True):
                assert function is not None
                function(row_message(relation, operation, old, new), invalidation, transaction)
        engine.truncate([relation], invalidation, transaction)
    list(engine.coarse())


def relation_for(rule: Rule, oid: int) -> Relation:
    """A table as the rule wants it, with text in every column."""
    exact = rule.exact
    names = set(rule.changed or ())
    for template in (*exact.keys, *exact.tags, *exact.l1, *exact.cdn):
        names |= template.columns
    if rule.when is not None:
        names |= rule.when.columns
    names |= {each.name for lookup in rule.lookups for each in lookup.sql.parameters if each.scope != "meta"}
    columns = tuple(Column(name, 25, is_identity=at == 0) for at, name in enumerate(sorted(names)))
    return Relation(oid, rule.schema.replace("*", "x"), rule.table.replace("*", "x"), "d", columns)
