"""The report of ``invalidator test`` as text, JSON or JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from invalidator.rules.document import Loaded
    from invalidator.rules.testing import Difference, Report, Result, Untested


@dataclass(frozen=True, slots=True)
class Shown:
    """What is to be shown."""

    loaded: Loaded
    report: Report
    untested: tuple[Untested, ...] | None
    """Templates that no test renders; None: coverage is not asked for."""


def text(shown: Shown) -> str:
    """For people: the failures with what explains them, then the counts."""
    from invalidator.yamlfile.diagnostic import printable

    lines: list[str] = []
    for result in shown.report.failures:
        lines += [*_failure(result), ""]
    for result in shown.report.skipped:
        lines += [f"SKIP  {_head(result)}", f"  {result.needs}", ""]
    lines += _counts(shown)
    if shown.untested is not None:
        lines += _coverage(shown, shown.untested)
    return "\n".join(printable(line) for line in lines)


def _counts(shown: Shown) -> Iterator[str]:
    report = shown.report
    total, failed, skipped = len(report.results), len(report.failures), len(report.skipped)
    if not total and shown.loaded.tests:
        yield f"no test has such a name; there are {len(shown.loaded.tests)} tests"
    elif not total:
        yield "there are no tests in these files: write them under `tests:`"
    else:
        counts = (("failed", failed), ("skipped", skipped), ("passed", total - failed - skipped))
        words = ", ".join(f"{number} {word}" for word, number in counts if number)
        yield f"{_count(total, 'test')} in {_count(len(shown.loaded.sources), 'file')}: {words}"


def _coverage(shown: Shown, untested: tuple[Untested, ...]) -> Iterator[str]:
    never = shown.report.never_fired
    rules = len(shown.report.rules)
    yield f"coverage: {rules - len(never)} of {_count(rules, 'rule')} fired"
    yield from (f"  never fired     rule '{rule.name}' ({rule.place.file}:{rule.place.line})" for rule in never)
    for each in untested:
        place = f"{each.place.file}:{each.place.line}"
        yield f"  never rendered  {each.group} {each.template.text} of rule '{each.rule.name}' ({place})"


def _failure(result: Result) -> Iterator[str]:
    yield f"FAIL  {_head(result)}"
    if result.error is not None:
        yield from (f"  {line}" for line in result.error.split("\n"))
    for difference in result.differences:
        yield from _difference(difference)


def _head(result: Result) -> str:
    place = result.test.place
    return f"{result.test.name}  ({place.file}:{place.line})"


def _difference(difference: Difference) -> Iterator[str]:
    yield f"  {difference.kind:<13} expected    {'  '.join(difference.expected) or 'nothing'}"
    yield f"  {'':<13} got         {'  '.join(difference.got) or 'nothing'}"
    for word, names in (("missing", difference.missing), ("unexpected", difference.unexpected)):
        for name in names:
            reasons = difference.reasons.get(name, ())
            yield f"  {'':<13} {word:<11} {name}" + (f"  ← {reasons[0]}" if reasons else "")
            yield from (f"  {'':<13} {'':<11} {'':<{len(name)}}  ← {reason}" for reason in reasons[1:])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def json_document(shown: Shown) -> str:
    """For programs."""
    report = shown.report
    made: dict[str, Any] = {
        "passed": len(report.results) - len(report.failures) - len(report.skipped),
        "failed": len(report.failures),
        "skipped": len(report.skipped),
        "tests": [_result_document(result) for result in report.results],
    }
    if shown.untested is not None:
        made["coverage"] = {
            "rules": len(report.rules),
            "never_fired": [{"rule": rule.name, "place": str(rule.place)} for rule in report.never_fired],
            "never_rendered": [
                {"rule": each.rule.name, "group": each.group, "template": each.template.text, "place": str(each.place)}
                for each in shown.untested
            ],
        }
    return json.dumps(made, indent=2, ensure_ascii=False)


def _result_document(result: Result) -> dict[str, Any]:
    return {
        "name": result.test.name,
        "place": str(result.test.place),
        "passed": result.passed,
        "rules_fired": sorted(result.fired),
        "error": result.error,
        "skipped": result.needs,
        "differences": [
            {
                "kind": each.kind,
                "expected": list(each.expected),
                "got": list(each.got),
                "missing": {name: list(each.reasons.get(name, ())) for name in each.missing},
                "unexpected": {name: list(each.reasons.get(name, ())) for name in each.unexpected},
            }
            for each in result.differences
        ],
    }


def junit(shown: Shown) -> str:
    """For CI systems: one suite per rule file, as the JUnit report that they all read."""
    from invalidator.yamlfile.diagnostic import printable

    suites: dict[str, list[Result]] = {}
    for result in shown.report.results:
        suites.setdefault(result.test.place.file, []).append(result)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    for file, results in suites.items():
        skipped = sum(result.needs is not None for result in results)
        failed = sum(not result.passed for result in results) - skipped
        name = quoteattr(printable(file))
        lines.append(
            f'  <testsuite name={name} tests="{len(results)}" failures="{failed}" errors="0" skipped="{skipped}">'
        )
        lines += [line for result in results for line in _testcase(result, name)]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"])


def _testcase(result: Result, file: str) -> Iterator[str]:
    from invalidator.yamlfile.diagnostic import printable

    head = f"    <testcase classname={file} name={quoteattr(printable(result.test.name))}"
    head += f' file={file} line="{result.test.place.line}"'
    if result.passed:
        yield f"{head}/>"
        return
    yield f"{head}>"
    if result.needs is not None:
        yield f"      <skipped message={quoteattr(printable(result.needs))}/>"
    else:
        body = escape("\n".join(map(printable, _failure(result))))
        yield f'      <failure message="not what the test expects">{body}</failure>'
    yield "    </testcase>"


RENDERERS: Final[dict[str, Callable[[Shown], str]]] = {"text": text, "json": json_document, "junit": junit}
