"""The rule that is looked at: as it is written, as it was made, and where each part stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from invalidator.rules.rule import GROUPS, Rule
from invalidator.rules.schema import RuleModel
from invalidator.rules.template import Reference, Template, parse
from invalidator.yamlfile import Diagnostic, Document, Path, Severity, Span


@dataclass(frozen=True, slots=True)
class Written:
    """A template as it stands in the file."""

    path: Path
    """From the top of the file."""
    group: str
    text: str
    template: Template
    is_glob: bool = False
    """Whether a `*` in it stands for any characters."""


@dataclass(frozen=True)
class Subject:
    """One rule, with its templates in order of their place."""

    document: Document
    path: Path
    model: RuleModel
    rule: Rule

    @cached_property
    def exact(self) -> tuple[Written, ...]:
        """The templates of ``invalidate:``, without prefix."""
        return tuple(self._written("invalidate"))

    @cached_property
    def coarse(self) -> tuple[Written, ...]:
        """The templates of ``coarse:``, without prefix."""
        return tuple(self._written("coarse"))

    @cached_property
    def prefix(self) -> Written:
        """The prefix, of the rule or of the defaults."""
        own = self.model.prefix
        if own is not None:
            return Written((*self.path, "prefix"), "prefix", own, parse(own, None))
        text = (self.document.data.get("defaults") or {}).get("prefix", "")
        return Written(("defaults", "prefix"), "prefix", text, parse(text, None))

    @cached_property
    def named(self) -> frozenset[str]:
        """What the rule names as columns of its table outside of its condition."""
        names = {name for each in (*self.exact, self.prefix) for name in each.template.columns}
        asked = {each.name for lookup in self.rule.lookups for each in lookup.sql.parameters if each.is_row_value}
        return frozenset(names | asked | (self.rule.changed or set()))

    @property
    def columns(self) -> frozenset[str]:
        """What the rule names as columns of its table anywhere."""
        return self.named | (self.rule.when.columns if self.rule.when is not None else frozenset())

    def asked(self, template: Template) -> Iterator[tuple[str, Reference]]:
        """What the SQL of a template's lookups is asked with: name of the lookup and row value."""
        for lookup in self.rule.lookups:
            if lookup.name in template.lookups:
                yield from ((lookup.name, each) for each in lookup.sql.parameters if each.is_row_value)

    def note(
        self,
        span: Span,
        code: str,
        message: str,
        help_text: str | None = None,
        *,
        severity: Severity = "warning",
        why: str | None = None,
        fix: str | None = None,
    ) -> Diagnostic:
        """Something worth knowing at this place."""
        at = (self.document.file, span.line, span.column, span.width)
        return Diagnostic(*at, code, message, help_text, severity, why=why, fix=fix)

    def value(self, *below: str | int) -> Span:
        """Where a value of the rule stands."""
        return self.document.span((*self.path, *below))

    def key(self, *below: str | int) -> Span:
        """Where a key of the rule stands."""
        return self.document.key_span((*self.path, *below))

    def _written(self, form: Literal["invalidate", "coarse"]) -> Iterator[Written]:
        model = getattr(self.model, form)
        for group in GROUPS:
            for index, text in enumerate(getattr(model, group)):
                is_glob = group == "l1" or (form == "coarse" and group != "cdn")
                yield Written((*self.path, form, group, index), group, text, parse(text, None), is_glob)
