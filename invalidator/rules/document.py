"""Rule files become a ``RuleSet``; what is wrong in any of them is reported at once, with file, line and column.

    load                 the rules, or every error
    load_with_warnings   the same, and what is worth knowing about them
    load_text            the same of one text

The format itself is in ``schema.py``, the meaning of one rule in ``assembly.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Final

from invalidator import yamlfile
from invalidator.rules import condition
from invalidator.rules.assembly import Assembled, assemble
from invalidator.rules.inline_tests import InlineTest, assemble_tests, check_tests
from invalidator.rules.rule import Coarse, Exact, Place, Rule, RuleSet
from invalidator.rules.schema import RuleFile
from invalidator.rules.suggestions import SUGGESTIONS
from invalidator.rules.template import Literal, Reference, Template
from invalidator.yamlfile import Diagnostic

_SUFFIXES: Final = (".yaml", ".yml")
_HASH_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules that can be used, and what is worth knowing about them."""

    ruleset: RuleSet
    warnings: tuple[Diagnostic, ...]
    """Severity ``warning`` or ``info``, in order of file and line."""
    sources: Mapping[str, str]
    """The text of each file by its name."""
    tests: tuple[InlineTest, ...] = ()
    """The tests of all files, in order."""
    places: Mapping[tuple[str, str, str], Place] = field(default_factory=dict)
    """Rule, group (``keys``, ``tags``, ``l1``, ``cdn``) and text of an exact template, prefix included → its place."""


def load(paths: Sequence[Path]) -> RuleSet:
    """The rules of these files and directories.

    Raises:
        yamlfile.Invalid: holds every error of all files.
    """
    return load_with_warnings(paths).ruleset


def load_with_warnings(paths: Sequence[Path]) -> Loaded:
    """The rules of these files and directories, with the warnings about them.

    A directory stands for all ``*.yaml`` and ``*.yml`` directly in it, in order of their names; hidden ones are
    left out. A file that is reached twice is read once. Rule names are unique over all files.

    Raises:
        yamlfile.Invalid: holds every error of all files.
    """
    reader = _Reader()
    for path in paths:
        reader.add(path)
    return reader.finish()


def load_text(text: str, file: str) -> Loaded:
    """The rules of one text, which is a rule file by itself.

    Raises:
        yamlfile.Invalid: holds every error.
    """
    reader = _Reader()
    reader.add_text(text, file)
    return reader.finish()


def rules_without_coarse_cdn(ruleset: RuleSet) -> tuple[Rule, ...]:
    """The rules whose coarse form purges everything at the CDNs, which needs a target's consent."""
    return tuple(rule for rule in ruleset.rules if rule.coarse.cdn_all)


class _Reader:
    """Collects rules and findings over all files."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._named: dict[tuple[str, ...], list[Rule]] = {}
        self._findings: list[Diagnostic] = []
        self._sources: dict[str, str] = {}
        self._tests: list[InlineTest] = []
        self._places: dict[tuple[str, str, str], Place] = {}
        self._seen: set[str] = set()

    def add(self, path: Path) -> None:
        """Read a file, or every rule file in a directory."""
        try:
            files = _files_in(path) if path.is_dir() else [path]
        except OSError as error:  # not readable for us, or a network file system that lost it
            message = f"cannot be read: {error.strerror or error}"
            self._findings.append(Diagnostic(str(path), 0, 0, 1, "unreadable-file", message, None))
            return
        if not files:
            message = "this directory holds no rule file"
            help_text = "the names of rule files end in .yaml or .yml"
            self._findings.append(Diagnostic(str(path), 0, 0, 1, "no-rules", message, help_text))
        for file in files:
            identity = os.path.realpath(file)
            if identity not in self._seen:
                self._seen.add(identity)
                self._add(partial(yamlfile.read, file))

    def add_text(self, text: str, file: str) -> None:
        """Read a text that is a rule file."""
        self._add(partial(yamlfile.parse, text, file))

    def finish(self) -> Loaded:
        """All rules.

        Raises:
            yamlfile.Invalid: an error was found in any file.
        """
        rules = tuple(self._rules.values())
        errors = [finding for finding in self._findings if finding.severity == "error"]
        ruleset = RuleSet(rules, "" if errors else _hash(rules))
        errors = errors or list(check_tests(self._tests, ruleset))  # only now is it known which rules there are
        if errors:
            raise yamlfile.Invalid(errors, self._sources)
        warnings = sorted(self._findings, key=lambda finding: (finding.file, finding.line, finding.column))
        return Loaded(ruleset, tuple(warnings), self._sources, tuple(self._tests), self._places)

    def _add(self, read: Callable[[], yamlfile.Document]) -> None:
        try:
            document = read()
            self._sources[document.file] = document.text
            _refuse_settings(document)
            model = yamlfile.validate(RuleFile, document, suggestions=SUGGESTIONS)
        except yamlfile.Invalid as invalid:
            self._findings += invalid.diagnostics
            self._sources.update(invalid.sources)
            return
        assembled, findings = assemble(document, model)
        self._findings += findings
        for index, made in enumerate(assembled):
            first = self._rules.setdefault(made.rule.name, made.rule)
            if first is not made.rule:
                message = f"there is a rule '{made.rule.name}' already, at {first.place}"
                span = document.span(("rules", index, "name"))
                self._findings.append(document.diagnostic(span, "duplicate-rule", message))
            self._note_same_targets(document, made)
            for (group, text), span in made.places.items():
                place = Place(document.file, span.line, span.column)
                self._places.setdefault((made.rule.name, group, text), place)
        tests, findings = assemble_tests(document, model)
        self._tests += tests
        self._findings += findings

    def _note_same_targets(self, document: yamlfile.Document, made: Assembled) -> None:
        rule = made.rule
        for (group, text), span in made.places.items():
            others = self._named.setdefault((rule.schema, rule.table, group, text), [])
            other = next((other for other in others if other.events & rule.events), None)
            others.append(rule)
            if other is not None:
                message = f"rule '{other.name}' at {other.place} names the same for the same table"
                at = (document.file, span.line, span.column, span.width)
                self._findings.append(Diagnostic(*at, "same-target", message, None, "warning"))


def _refuse_settings(document: yamlfile.Document) -> None:
    """Say it in one finding if somebody takes the settings for rules.

    Raises:
        yamlfile.Invalid: this is a settings file.
    """
    data = document.data
    if isinstance(data, dict) and "targets" in data and not isinstance(data.get("rules"), list):
        message = "this is a settings file, and rules were expected here"
        help_text = f"write --settings {document.file}: its rules are checked with it"
        found = document.diagnostic(yamlfile.Span(1, 1, 1, 1), "settings-file", message, help_text)
        raise yamlfile.Invalid([found], {document.file: document.text})


def _files_in(directory: Path) -> list[Path]:
    return sorted(
        entry
        for entry in directory.iterdir()
        if entry.suffix in _SUFFIXES and not entry.name.startswith(".") and not entry.is_dir()
    )


def rule_hash(rule: Rule) -> str:
    """A name for what one rule means."""
    return _hash([rule])


def _hash(rules: Iterable[Rule]) -> str:
    """A name for what the rules mean: comments, layout and the order of rules, lists and files do not change it."""
    normal = sorted((_normal_rule(rule) for rule in rules), key=lambda rule: str(rule["name"]))
    text = json.dumps(normal, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_HASH_DIGITS]


def _normal_rule(rule: Rule) -> dict[str, object]:
    return {
        "name": rule.name,
        "table": [rule.schema, rule.table],
        "events": sorted(rule.events),
        "changed": None if rule.changed is None else sorted(rule.changed),
        "exact": _normal_templates(rule.exact),
        "coarse": _normal_templates(rule.coarse),
        "bulk_over": rule.bulk_over,
        "repeat_after": rule.repeat_after,
        "soft": rule.soft,
        "lookups": sorted([each.name, each.sql.text, each.limit, each.timeout_seconds] for each in rule.lookups),
        "when": None if rule.when is None else condition.written(rule.when.node),
    }


def _normal_templates(form: Exact | Coarse) -> dict[str, object]:
    """Each field of the form; templates by their parts, because ``{ id }`` means ``{id}``."""
    normal: dict[str, object] = {}
    for each in fields(form):
        value = getattr(form, each.name)
        normal[each.name] = value if isinstance(value, bool) else sorted(map(_normal_template, value))
    return normal


def _normal_template(template: Template) -> str:
    return json.dumps([_normal_part(part) for part in template.parts])


def _normal_part(part: Literal | Reference) -> tuple[object, ...]:
    """All fields, one level after the other; written out, because ``astuple`` takes as long as parsing."""
    if isinstance(part, Literal):
        return (part.text,)
    return part.scope, part.name, [(step.name, step.argument) for step in part.filters]
