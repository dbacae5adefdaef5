"""Runs the tests of rule files with the very functions of the stream: no rule is judged by a second opinion.

    run       what each test expects and gets, and which rules fired
    require   the same as a gate: raises when a test fails

Expectations are exact, because what is dropped too much is a defect too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator import yamlfile
from invalidator.errors import ConfigError
from invalidator.model import Operation, Relation, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.document import Loaded
from invalidator.rules.explain import Outcome, RuleExplanation, scene
from invalidator.rules.inline_tests import KINDS, InlineTest
from invalidator.rules.rule import Rule
from invalidator.yamlfile import Diagnostic

EVERYTHING: Final = "everything"
"""Stands for ``cdn_all`` among names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one kind should hold, and what it holds."""

    kind: str
    """One of ``KINDS``, ``cdn_all`` or ``widened``."""
    expected: tuple[str, ...]
    got: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Expected, and not there."""
        return tuple(name for name in self.expected if name not in self.got)

    @property
    def unexpected(self) -> tuple[str, ...]:
        """There, and not expected."""
        return tuple(name for name in self.got if name not in self.expected)


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended."""

    test: InlineTest
    differences: tuple[Difference, ...] = ()
    fired: frozenset[str] = frozenset()
    """The names of the rules that fired."""
    error: str | None = None
    """Why it could not be run."""

    @property
    def passed(self) -> bool:
        """Whether the rules do exactly what the test expects."""
        return self.error is None and not self.differences

    def diagnostic(self) -> Diagnostic:
        """The failure as a finding at the test."""
        test = self.test
        message = f"test '{test.name}' fails: {self.error or '; '.join(map(_in_words, self.differences))}"
        at = (test.place.file, test.place.line, test.place.column, 1)
        return Diagnostic(*at, "test-failed", message, "`invalidator test` shows which rule explains it")


@dataclass(frozen=True, slots=True)
class Report:
    """How all tests ended."""

    results: tuple[Result, ...]
    rules: tuple[Rule, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The tests that do not pass."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def never_fired(self) -> tuple[Rule, ...]:
        """The rules that no test fires."""
        fired = {name for result in self.results for name in result.fired}
        return tuple(rule for rule in self.rules if rule.name not in fired)


def run(
    loaded: Loaded,
    *,
    cdn_grammars: Sequence[TagGrammar] = (),
    relations: Mapping[tuple[str, str], Relation] | None = None,
    select: str = "",
) -> Report:
    """Run the tests of the rule files.

    Args:
        loaded: rules and tests.
        cdn_grammars: what the configured CDNs take as a tag.
        relations: tables as the catalog knows them, by schema and table; of others the tests' columns are all.
        select: only tests whose name holds this text, whatever its case.
    """
    chosen = [test for test in loaded.tests if select.lower() in test.name.lower()]
    known = relations or {}
    results = tuple(
        run_one(test, loaded, cdn_grammars=cdn_grammars, relation=known.get((test.schema, test.table)))
        for test in chosen
    )
    return Report(results, loaded.ruleset.rules)


def require(loaded: Loaded, *, cdn_grammars: Sequence[TagGrammar] = ()) -> Report:
    """Run all tests, and refuse rules that do not do what their own tests say.

    Raises:
        yamlfile.Invalid: a test fails; holds a finding ``test-failed`` for each.
    """
    report = run(loaded, cdn_grammars=cdn_grammars)
    if report.failures:
        raise yamlfile.Invalid([result.diagnostic() for result in report.failures], loaded.sources)
    return report


def run_one(
    test: InlineTest, loaded: Loaded, *, cdn_grammars: Sequence[TagGrammar] = (), relation: Relation | None = None
) -> Result:
    """Run one test over all rules for its table."""
    try:
        shown = scene(test.relation(relation), test.operation, test.old, test.new, cdn_grammars=cdn_grammars)
    except ConfigError as error:
        return Result(test, error=str(error))
    explanations = [shown.explain(rule) for rule in loaded.ruleset.rules if test.is_for(rule)]
    fired = frozenset(each.rule.name for each in explanations if each.outcome is Outcome.FIRED)
    return Result(test, tuple(_differences(test, explanations)), fired)


def _differences(test: InlineTest, explanations: Sequence[RuleExplanation]) -> list[Difference]:
    compared: list[tuple[str, frozenset[bytes], set[bytes]]] = []
    for kind in KINDS:
        got: set[bytes] = set().union(*(getattr(each.invalidation, kind) for each in explanations))
        compared.append((kind, test.expected.get(kind, frozenset()), got))
    found = [Difference(kind, shown(wanted), shown(got)) for kind, wanted, got in compared if wanted != got]
    everything = any(each.invalidation.cdn_all for each in explanations)
    if everything != test.cdn_all:
        found.append(Difference("cdn_all", (EVERYTHING,) * test.cdn_all, (EVERYTHING,) * everything))
    reasons = {reason for each in explanations for reason in each.widened}
    if test.operation is Operation.TRUNCATE and WidenReason.TRUNCATE not in test.widened:
        reasons.discard(WidenReason.TRUNCATE)
    if reasons != test.widened:
        found.append(Difference("widened", tuple(sorted(test.widened)), tuple(sorted(reasons))))
    return found


def shown(names: frozenset[bytes] | set[bytes]) -> tuple[str, ...]:
    """The names as people read them, in order."""
    return tuple(name.decode("utf-8", "backslashreplace") for name in sorted(names))


def _in_words(difference: Difference) -> str:
    parts = [f"{word} {', '.join(names)}" for word, names in _sides(difference) if names]
    return f"{difference.kind}: {' and '.join(parts)}"


def _sides(difference: Difference) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("missing", difference.missing), ("unexpected", difference.unexpected)
