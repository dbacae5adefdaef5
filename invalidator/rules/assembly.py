"""One rule of a document becomes a ``Rule``: defaults filled in, prefix applied, confined, coarse form completed.

What is wrong is noted with its place and the work goes on, so that all mistakes are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.model import Operation
from invalidator.rules import condition, derivation, globs
from invalidator.rules.condition import Condition
from invalidator.rules.lints import lint
from invalidator.rules.lookup_sql import parse_sql
from invalidator.rules.rule import Coarse, Exact, Lookup, Place, Rule
from invalidator.rules.schema import RuleFile, RuleModel, duration_seconds
from invalidator.rules.table_names import split_table
from invalidator.rules.template import Literal, Template, TemplateError, parse
from invalidator.rules.written import REFERENCE, glob_offset, map_literals, open_glob
from invalidator.yamlfile import Diagnostic, Document, Path, Severity, Span

_GLOB: Final = re.compile(r"[*?\[]")
_OF_ONE_CHANGE: Final = re.compile(r"\{\s*meta\s*\.\s*(op|lsn|xid|commit_time)\b")
_MINIMUM_LITERAL: Final = 3
_CLEARS: Final = "a glob stands before anything literal, so this would drop everything from the in-process caches"


@dataclass(frozen=True, slots=True)
class Assembled:
    """A rule, and where its exact templates stand."""

    rule: Rule
    places: Mapping[tuple[str, str], Span]
    """Group (``keys``, ``tags``, ``l1``, ``cdn``) and text of a template, prefix included → its place."""


def assemble(document: Document, file: RuleFile) -> tuple[list[Assembled], list[Diagnostic]]:
    """The rules of one file, and what is to be said about them; with an error the rules are not to be used."""
    rules: list[Assembled] = []
    diagnostics: list[Diagnostic] = []
    for index in range(len(file.rules)):
        assembler = _Assembler(document, file, index)
        rules.append(Assembled(assembler.rule(), assembler.places))
        diagnostics += assembler.diagnostics
        diagnostics += lint(document, ("rules", index), file.rules[index], rules[-1].rule)
    return rules, list(dict.fromkeys(diagnostics))


class _Assembler:
    """The work on one rule."""

    def __init__(self, document: Document, file: RuleFile, index: int) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.places: dict[tuple[str, str], Span] = {}
        self._document = document
        self._defaults = file.defaults
        self._model: RuleModel = file.rules[index]
        self._path: Path = ("rules", index)
        own = self._model.prefix
        self._prefix_text = file.defaults.prefix if own is None else own
        self._prefix_path: Path = ("defaults", "prefix") if own is None else (*self._path, "prefix")
        self._prefix = parse(self._prefix_text, None)
        # An L1 template is a glob, but the prefix is no glob anywhere.
        as_glob = map_literals(globs.escape_text, self._prefix_text)
        self._before = {"keys": self._prefix_text, "tags": self._prefix_text, "l1": as_glob, "cdn": ""}

    def rule(self) -> Rule:
        """The rule; to be used only if no error was noted."""
        model, defaults = self._model, self._defaults
        schema, table = split_table(model.table)
        delays = defaults.repeat_after if model.repeat_after is None else model.repeat_after
        self._check_prefix()
        self._check_changed()
        self._check_scopes(self._prefix_text, self._prefix_path)
        exact = self._exact()
        self._check_lookups(exact)
        span = self._document.span(self._path)
        return Rule(
            name=model.name,
            schema=schema,
            table=table,
            events=frozenset(Operation(event) for event in model.events),
            changed=None if model.changed is None else frozenset(model.changed),
            exact=exact,
            coarse=self._coarse(exact),
            bulk_over=model.bulk_over,
            repeat_after=tuple(sorted({duration_seconds(delay) for delay in delays})),
            soft=defaults.soft if model.soft is None else model.soft,
            place=Place(self._document.file, span.line, span.column),
            lookups=self._lookups(),
            when=self._when(),
        )

    def _when(self) -> Condition | None:
        """The condition, whose text the schema has checked; with what is to be said about it."""
        if self._model.when is None:
            return None
        made = condition.parse(self._model.when)
        path = (*self._path, "when")
        for found in condition.lint(made, frozenset(Operation(event) for event in self._model.events)):
            span = self._document.within(path, found.offset, found.width)
            at = (self._document.file, span.line, span.column, span.width)
            finding = Diagnostic(*at, found.code, found.message, found.help, found.severity, why=found.why)
            self.diagnostics.append(finding)
        return made

    # -- the exact form ----------------------------------------------------------------------------------------

    def _exact(self) -> Exact:
        written = self._model.invalidate
        if not (written.keys or written.tags or written.l1 or written.cdn):
            span = self._document.key_span((*self._path, "invalidate"))
            message = f"rule '{self._model.name}' invalidates nothing"
            self._note(span, "empty-invalidate", message, "give at least one of keys, tags, l1 and cdn")
        return Exact(
            keys=self._exact_group("keys", written.keys),
            tags=self._exact_group("tags", written.tags),
            l1=self._exact_group("l1", written.l1),
            cdn=self._exact_group("cdn", written.cdn),
        )

    def _exact_group(self, group: str, texts: Sequence[str]) -> tuple[Template, ...]:
        templates: list[Template] = []
        for text, path in self._entries(("invalidate", group), texts):
            template = parse(self._before[group] + text, None)
            self._check_scopes(text, path)
            self._check_one_lookup(template, path)
            self._check_confined(group, template, text, path)
            if group == "l1":
                self._check_glob_around_value(text, path)
            else:
                self._check_exact_name(group, text, path)
            templates.append(template)
            self.places.setdefault((group, template.text), self._document.span(path))
        return tuple({template.text: template for template in templates}.values())

    def _check_confined(self, group: str, template: Template, text: str, path: Path) -> None:
        """Something literal stands before the first row value, so that no row can name what it likes."""
        front = template.before_row()
        lead = "".join(part.text for part in front.parts if isinstance(part, Literal))
        if group == "l1":
            wild = _GLOB.search(lead)
            if wild is not None and not lead[: wild.start()]:
                help_text = "begin with something literal; '*' alone, which clears the caches, belongs under coarse:"
                self._note_part(path, glob_offset(text), "unconfined-template", _CLEARS, help_text)
                return
        if template.uses_row and not lead:
            if group != "cdn" and self._prefix.uses_row:
                path, text = self._prefix_path, self._prefix_text
            message = "nothing literal stands before the first row value, so a row could name anything"
            help_text = f"begin with something literal, as in '{self._model.name}:{text[:60]}'"
            first = REFERENCE.match(text)
            self._note_part(path, 0, "unconfined-template", message, help_text, width=first.end() if first else 1)

    def _check_exact_name(self, group: str, text: str, path: Path) -> None:
        offset = glob_offset(text)
        if offset is None:
            return
        if group == "cdn":
            message = f"'{text[offset]}' is no glob in a CDN tag: this purges exactly the tag with that character"
            self._note_part(path, offset, "glob-in-key", message, None, severity="warning")
            return
        verb = "unlinks exactly this name" if group == "keys" else "looks for exactly this tag"
        message = f"'{text[offset]}' is no glob here: this {verb}; patterns are for l1: and coarse:"
        named = re.match(r"\[([A-Za-z_]\w+)\]", text[offset:])
        column = f"; if a column is meant: {{{named[1]}}}" if named else ""
        self._note_part(path, offset, "glob-in-key", message, f"write the pattern under coarse: or l1:{column}")

    def _check_glob_around_value(self, text: str, path: Path) -> None:
        """A value inside a class, or behind a backslash, would become a part of the glob's syntax."""
        offset = open_glob(text)
        if offset is not None:
            what = "a class that is not closed" if text[offset] == "[" else "a backslash"
            message = f"a value behind {what} would be read as a part of the glob"
            help_text = "close the class before the value: '[ab]{id}'" if text[offset] == "[" else "write '[\\\\]'"
            self._note_part(path, offset, "glob-around-value", message, help_text)

    def _check_prefix(self) -> None:
        offset = glob_offset(self._prefix_text)
        if offset is not None:
            message = f"'{self._prefix_text[offset]}' cannot stand in a prefix, because it is put before keys"
            self._note_part(self._prefix_path, offset, "glob-in-key", message, None)

    def _check_changed(self) -> None:
        if self._model.changed is not None and "update" not in self._model.events:
            message = "`changed:` is about updates, and this rule does not look at them"
            span = self._document.key_span((*self._path, "changed"))
            self._note(span, "changed-without-update", message, "add update to events:", severity="warning")

    # -- lookups -----------------------------------------------------------------------------------------------

    def _lookups(self) -> tuple[Lookup, ...]:
        made: list[Lookup] = []
        for name, model in self._model.lookup.items():
            span = self._document.span((*self._path, "lookup", name, "sql"))
            timeout = None if model.timeout is None else duration_seconds(model.timeout)
            place = Place(self._document.file, span.line, span.column)
            made.append(Lookup(name, parse_sql(model.sql), model.limit, timeout, place))
        return tuple(made)

    def _check_scopes(self, text: str, path: Path) -> None:
        """Every scope that is no image of the row is a lookup of this rule."""
        try:
            parse(text, self._model.lookup)
        except TemplateError as error:
            self._note_part(path, error.offset, error.code, error.message, error.help, width=error.width)

    def _check_one_lookup(self, template: Template, path: Path) -> None:
        if len(template.lookups) > 1 and self._model.lookup.keys() >= set(template.lookups):
            message = f"columns of the lookups {' and '.join(template.lookups)} cannot be in one name"
            help_text = "join the tables in the SQL of one lookup"
            self._note(self._document.span(path), "two-lookups", message, help_text)

    def _check_lookups(self, exact: Exact) -> None:
        templates = exact.templates
        used = {name for template in templates for name in template.lookups}
        columns = {column for template in templates for column in template.columns}
        for name in self._model.lookup:
            span = self._document.key_span((*self._path, "lookup", name))
            if name in columns:
                message = f"'{name}' is a lookup here, and {{{name}}} in a template is a column of the row"
                help_text = f"write {{{name}.column}} for what was looked up, or give the lookup another name"
                self._note(span, "lookup-name-clash", message, help_text)
            elif name not in used:
                message = f"the lookup '{name}' is not used by any template, so it never runs"
                help_text = f"name one of its columns, as in {{{name}.id}}, or remove it"
                self._note(span, "lookup-unused", message, help_text, severity="warning")
        if used and "delete" in self._model.events and not any(not t.lookups for t in (*exact.tags, *exact.cdn)):
            self._note_lookup_after_delete(sorted(used))

    def _note_lookup_after_delete(self, used: Sequence[str]) -> None:
        message = f"after a DELETE the lookup '{used[0]}' may find nothing: it sees the tables as they are then"
        help_text = "if its rows go with the deleted one (ON DELETE CASCADE), drop a tag that needs no lookup too"
        self._note(self._document.key_span((*self._path, "lookup")), "lookup-after-delete", message, help_text, "info")

    # -- the coarse form ---------------------------------------------------------------------------------------

    def _coarse(self, exact: Exact) -> Coarse:
        written = self._model.coarse
        keys, key_patterns = self._coarse_names("keys", written.keys)
        tags, tag_patterns = self._coarse_names("tags", written.tags)
        if not (written.keys or written.tags):
            keys, key_patterns = self._derived_names("keys", exact.keys)
            tags, tag_patterns = self._derived_names("tags", exact.tags)
        l1 = self._coarse_l1(written.l1)
        if not written.l1:
            l1 = derivation.without_covered(derivation.covering_l1_pattern(template) for template in exact.l1)
            self._check_width("l1", l1)
        cdn = tuple(
            self._coarse_template("cdn", text, path) for text, path in self._entries(("coarse", "cdn"), written.cdn)
        )
        if not written.cdn:
            cdn = tuple(template for template in exact.cdn if derivation.is_fixed(template))
        cdn_all = not written.cdn and len(cdn) < len(exact.cdn)
        return Coarse(keys, key_patterns, tags, tag_patterns, l1, cdn, cdn_all)

    def _coarse_names(self, group: str, texts: Sequence[str]) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
        """Exact names and patterns; row values of the prefix make a pattern, because no row is known."""
        exact: list[Template] = []
        patterns: list[Template] = []
        for text, path in self._entries(("coarse", group), texts):
            template = self._coarse_template(group, text, path)
            offset = glob_offset(text)
            if _has_star(template) or not derivation.is_fixed(self._prefix):
                pattern = derivation.joined(derivation.covering_pattern(self._prefix), template)
                self._check_coarse_pattern(pattern, text, path)
                patterns.append(pattern)
                continue
            if offset is not None:
                message = f"'{text[offset]}' is no glob here, because without '*' this is an exact name"
                self._note_part(path, offset, "glob-in-key", message, "write '*' to make it a pattern")
            exact.append(derivation.joined(self._prefix, template))
        return tuple(exact), tuple(patterns)

    def _coarse_l1(self, texts: Sequence[str]) -> tuple[Template, ...]:
        front = derivation.covering_pattern(self._prefix)
        entries = list(self._entries(("coarse", "l1"), texts))
        for text, path in entries:
            self._check_glob_around_value(text, path)
        return tuple(derivation.joined(front, self._coarse_template("l1", text, path)) for text, path in entries)

    def _coarse_template(self, group: str, text: str, path: Path) -> Template:
        template = parse(text, None)
        if template.uses_row:
            found = next(match for match in REFERENCE.finditer(text) if _uses_row(match[0]))
            message = f"{found[0]} is a row value, and no row is known when the coarse form is applied"
            help_text = (
                "name the tag that all of these pages carry"
                if group == "cdn"
                else "write '*' where the value would stand; only {meta.…} can be filled in"
            )
            self._note_part(path, found.start(), "row-in-coarse", message, help_text, width=len(found[0]))
        elif (fact := _OF_ONE_CHANGE.search(text)) is not None:
            message = f"{{meta.{fact[1]}}} is of one change, and would name nothing that another change has made"
            help_text = "only {meta.schema} and {meta.table} hold for all rows of a table"
            self._note_part(path, fact.start(), "row-in-coarse", message, help_text, width=len(fact[0]))
        return template

    def _check_coarse_pattern(self, pattern: Template, text: str, path: Path) -> None:
        lead = "".join(part.text for part in pattern.parts if isinstance(part, Literal))
        wild = _GLOB.search(lead)
        if wild is not None and not lead[: wild.start()]:
            message = "this pattern matches whatever Redis holds, also what is no cache"
            help_text = "begin with something literal, as in 'user:*'"
            self._note_part(path, glob_offset(text), "unconfined-template", message, help_text)

    def _derived_names(
        self, group: str, exact: Sequence[Template]
    ) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
        fixed = tuple(template for template in exact if derivation.is_fixed(template))
        moving = (template for template in exact if not derivation.is_fixed(template))
        patterns = derivation.without_covered(derivation.covering_pattern(template) for template in moving)
        self._check_width(group, patterns)
        if patterns and self._is_coarse_likely():
            found = ", ".join(f"'{pattern.text}'" for pattern in patterns)
            message = f"the coarse form scans all of Redis for {found}"
            help_text = (
                "if your application adds each of these keys to the set of a tag when it fills it, that tag costs far"
                " less: coarse: {tags: [...], keys: []}"
            )
            span = self._document.key_span((*self._path, "invalidate", group))
            self._note(span, "coarse-derived", message, help_text, severity="info")
        return fixed, patterns

    def _is_coarse_likely(self) -> bool:
        """Whether the author asked for what needs the coarse form (TRUNCATE by default does not count).

        A lookup may find more than its limit, or no answer in time.
        """
        model = self._model
        return (
            bool(model.lookup)
            or model.bulk_over is not None
            or ("events" in model.model_fields_set and "truncate" in model.events)
        )

    def _check_width(self, group: str, patterns: Sequence[Template]) -> None:
        for pattern in patterns:
            if len(derivation.literal_text(pattern)) < _MINIMUM_LITERAL:
                message = f"the coarse form derived from this is '{pattern.text}', which matches nearly everything"
                span = self._document.key_span((*self._path, "invalidate", group))
                help_text = "use a longer literal text, or write coarse:"
                self._note(span, "pattern-too-wide", message, help_text, severity="warning")

    # -- notes -------------------------------------------------------------------------------------------------

    def _entries(self, where: tuple[str, str], texts: Sequence[str]) -> Iterator[tuple[str, Path]]:
        for index, text in enumerate(texts):
            yield text, (*self._path, *where, index)

    def _note_part(
        self,
        path: Path,
        offset: int | None,
        code: str,
        message: str,
        help_text: str | None,
        *,
        width: int = 1,
        severity: Severity = "error",
    ) -> None:
        span = self._document.span(path) if offset is None else self._document.within(path, offset, width)
        self._note(span, code, message, help_text, severity=severity)

    def _note(self, span: Span, code: str, message: str, help_text: str | None, severity: Severity = "error") -> None:
        at = (self._document.file, span.line, span.column, span.width)
        self.diagnostics.append(Diagnostic(*at, code, message, help_text, severity))


def _has_star(template: Template) -> bool:
    return any("*" in part.text for part in template.parts if isinstance(part, Literal))


def _uses_row(reference: str) -> bool:
    return parse(reference, None).uses_row
