"""Runs the tests of rule files with the very functions of the stream: no rule is judged by a second opinion.

    run       what each test expects and gets, and which rules fired
    require   the same as a gate: raises when a test fails

Expectations are exact, because what is dropped too much is a defect too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from invalidator import yamlfile
from invalidator.errors import ConfigError
from invalidator.model import Invalidation, Operation, Relation, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.document import Loaded
from invalidator.rules.explain import KINDS, Answer, Outcome, RuleExplanation, Scene, answered_by, name_text, scene
from invalidator.rules.guessing import misfit
from invalidator.rules.inline_tests import InlineTest
from invalidator.rules.reasons import Reasons
from invalidator.rules.rule import Place, Rule
from invalidator.rules.table_names import join_table
from invalidator.rules.template import Template
from invalidator.yamlfile import Diagnostic

EVERYTHING: Final = "everything"
"""Stands for ``cdn_all`` among names."""
_MAX_EXPLAINED: Final = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """What one kind should hold, and what it holds."""

    kind: str
    """One of ``KINDS``, ``cdn_all`` or ``widened``."""
    expected: tuple[str, ...]
    got: tuple[str, ...]
    reasons: Mapping[str, tuple[str, ...]]
    """Missing or unexpected name → the rules and templates that explain it."""

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
    scene: Scene | None = None
    """The change as the rules saw it."""
    needs: str | None = None
    """Why it was skipped: a lookup that nobody answered."""

    @property
    def passed(self) -> bool:
        """Whether the rules do exactly what the test expects."""
        return self.error is None and self.needs is None and not self.differences

    @property
    def note(self) -> str:
        """That it was skipped, and why."""
        return f"test '{self.test.name}' ({self.test.place.file}:{self.test.place.line}) was not run: {self.needs}"

    def diagnostic(self) -> Diagnostic:
        """The failure as a finding at the test."""
        test = self.test
        error, _, mending = (self.error or "").partition("\n   = ")
        message = f"test '{test.name}' fails: {error or '; '.join(map(_in_words, self.differences))}"
        help_text = mending.partition(":")[2].strip() or "`invalidator test` shows which rule explains it"
        return Diagnostic(test.place.file, test.place.line, test.place.column, 1, "test-failed", message, help_text)


@dataclass(frozen=True, slots=True)
class Report:
    """How all tests ended."""

    results: tuple[Result, ...]
    rules: tuple[Rule, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The tests that do not pass, but for the skipped ones."""
        return tuple(result for result in self.results if not result.passed and result.needs is None)

    @property
    def skipped(self) -> tuple[Result, ...]:
        """The tests that need the database to answer a lookup."""
        return tuple(result for result in self.results if result.needs is not None)

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
    otherwise: Answer | None = None,
) -> Report:
    """Run the tests of the rule files.

    Args:
        loaded: rules and tests.
        cdn_grammars: what the configured CDNs take as a tag.
        relations: tables as the catalog knows them, by schema and table; of others the tests' columns are all.
        select: only tests whose name holds this text, whatever its case.
        otherwise: answers lookups for which a test gives no rows.
    """
    chosen = [test for test in loaded.tests if select.lower() in test.name.lower()]
    known = relations or {}
    results = tuple(
        run_one(
            test,
            loaded,
            cdn_grammars=cdn_grammars,
            relation=known.get((test.schema, test.table)),
            otherwise=otherwise,
        )
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


@dataclass(frozen=True, slots=True)
class Untested:
    """A template from which no test makes a name."""

    rule: Rule
    group: str
    template: Template
    place: Place


def untested_templates(loaded: Loaded, report: Report) -> tuple[Untested, ...]:
    """The exact templates, of rules that some test fires, from which no test of the report makes a name."""
    rules = {rule.name: rule for rule in report.rules}
    never = {rule.name for rule in report.never_fired}
    left = {key: place for key, place in loaded.places.items() if key[0] not in never and key[0] in rules}
    for result in report.results:
        if result.scene is None:
            continue
        for name, group, text in [key for key in left if key[0] in result.fired]:
            template = next(each for each in getattr(rules[name].exact, group) if each.text == text)
            if result.scene.exact(rules[name], group, template):
                del left[name, group, text]
    return tuple(
        Untested(rules[name], group, next(each for each in getattr(rules[name].exact, group) if each.text == text), at)
        for (name, group, text), at in left.items()
    )


def _table_to_test(rule: Rule) -> str:
    written = join_table(rule.schema, rule.table)
    return f"a table that {written} matches" if "*" in written else f"table: {written}"


def findings(report: Report) -> list[Diagnostic]:
    """What the tests say about the rules: ``test-failed`` for each failure, ``untested-rule`` if there are tests."""
    if not report.results:
        return []
    untested = [
        Diagnostic(
            rule.place.file,
            rule.place.line,
            rule.place.column,
            1,
            "untested-rule",
            f"no test fires rule '{rule.name}'",
            f"add one under tests: with {_table_to_test(rule)}",
            "info",
        )
        for rule in report.never_fired
    ]
    return [*(result.diagnostic() for result in report.failures), *untested]


def run_one(
    test: InlineTest,
    loaded: Loaded,
    *,
    cdn_grammars: Sequence[TagGrammar] = (),
    relation: Relation | None = None,
    otherwise: Answer | None = None,
) -> Result:
    """Run one test over all rules for its table; ``otherwise`` answers the lookups that the test does not answer."""
    rules = [rule for _, rule in loaded.ruleset.for_table(test.schema, test.table)]
    try:
        shown = scene(
            test.relation(rules, relation),
            test.operation,
            test.old,
            test.new,
            cdn_grammars=cdn_grammars,
            answer=partial(_answer, answered_by(test.lookups), otherwise),
        )
        for rule in rules:
            _check_fit(rule, shown)
        explanations = [shown.explain(rule) for rule in rules]
    except ConfigError as error:
        return Result(test, error=str(error))
    if unanswered := [each for each in explanations if not all(question.is_answered for question in each.questions)]:
        return Result(test, needs=_unanswered(unanswered[0]))
    fired = frozenset(each.rule.name for each in explanations if each.outcome is Outcome.FIRED)
    return Result(test, tuple(_differences(Reasons(loaded, test, shown, explanations))), fired, scene=shown)


def _check_fit(rule: Rule, shown: Scene) -> None:
    """In the stream such a rule widens, which is not what the author of a row means."""
    why = misfit(shown.relation, rule)
    if why is not None and shown.operation is not Operation.TRUNCATE:
        message = (
            f"the row does not fit the condition of rule '{rule.name}' ({rule.place.file}:{rule.place.line}): {why}"
        )
        raise ConfigError(message, fix="write the values as Postgres prints them, texts and dates in quotes")


def _answer(first: Answer, otherwise: Answer | None, invalidation: Invalidation) -> None:
    first(invalidation)
    if otherwise is not None and invalidation.lookups:
        otherwise(invalidation)


def _unanswered(explanation: RuleExplanation) -> str:
    question = next(each for each in explanation.questions if not each.is_answered)
    name, place = question.lookup.name, question.lookup.place
    asked = ", ".join(f"{column} = {value}" for column, value in question.parameters)
    return (
        f"rule '{explanation.rule.name}' asks its lookup '{name}' ({place.file}:{place.line}) with {asked}: "
        f"write what it finds, as lookup: {{{name}: [...]}}, or run the test with --online"
    )


def _differences(reasons: Reasons) -> Iterator[Difference]:
    test, explanations = reasons.test, reasons.explanations
    for kind in KINDS:
        wanted = test.expected.get(kind, frozenset())
        got: set[bytes] = set().union(*(getattr(each.invalidation, kind) for each in explanations))
        if wanted != got:
            why = {name: reasons.missing(kind, name) for name in sorted(wanted - got)[:_MAX_EXPLAINED]}
            why |= {name: reasons.unexpected(kind, name) for name in sorted(got - wanted)[:_MAX_EXPLAINED]}
            in_words = {name_text(name): tuple(lines) for name, lines in why.items()}
            yield Difference(kind, _texts(wanted), _texts(got), in_words)
    everything = any(each.invalidation.cdn_all for each in explanations)
    if everything != test.cdn_all:
        no_tag = tuple(_without_tag(each.rule) for each in explanations if each.invalidation.cdn_all)
        why_all = {EVERYTHING: no_tag or ("the coarse form of no rule is used that lacks a CDN tag",)}
        yield Difference("cdn_all", (EVERYTHING,) * test.cdn_all, (EVERYTHING,) * everything, why_all)
    widened = {reason for each in explanations for reason in each.widened}
    if test.operation is Operation.TRUNCATE and WidenReason.TRUNCATE not in test.widened:
        widened.discard(WidenReason.TRUNCATE)
    if widened != test.widened:
        because = {str(reason): tuple(reasons.widened(reason)) for reason in widened - test.widened}
        yield Difference("widened", tuple(sorted(test.widened)), tuple(sorted(widened)), because)


def _without_tag(rule: Rule) -> str:
    return f"rule '{rule.name}' ({rule.place.file}:{rule.place.line}): its coarse form has no CDN tag"


def _texts(names: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(map(name_text, sorted(names)))


def _in_words(difference: Difference) -> str:
    parts = [f"{word} {', '.join(names)}" for word, names in _sides(difference) if names]
    return f"{difference.kind}: {' and '.join(parts)}"


def _sides(difference: Difference) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("missing", difference.missing), ("unexpected", difference.unexpected)
