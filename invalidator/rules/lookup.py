"""What a rule asks the database for its rows, and how the answers become names.

A row function puts the values of a row under a plan into ``Invalidation.lookups``; before delivery
``postgres.lookups`` asks, and the plan turns what came back into keys, tags, patterns and CDN tags by the same rules
as the row code does: escaped, held against the CDNs' grammar, repeated. What could not be found out widens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from invalidator.errors import LookupFailed
from invalidator.model import Invalidation, Relation, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules import globs
from invalidator.rules.coarse import REASON_BITS, CoarseForm, relation_facts, widener
from invalidator.rules.lookup_sql import wrap
from invalidator.rules.rule import Lookup, Rule
from invalidator.rules.template import Literal, Reference, Template, encode
from invalidator.telemetry.state import RuleState

Asked = tuple[bytes | None, ...]
"""The values of one row image: the parameters of the SQL (never None), then what else the templates need."""

Found = Sequence[bytes | None]
"""One row of a result, as Postgres writes it as text."""

_TEXT_OID: Final = 25
_FIXED_FACTS: Final = ("schema", "table")


@dataclass(frozen=True, slots=True)
class _Given:
    """A value of the asked row."""

    at: int
    reference: Reference


@dataclass(frozen=True, slots=True)
class _Looked:
    """A value of the found row."""

    reference: Reference


_Part = bytes | _Given | _Looked


@dataclass(frozen=True, slots=True)
class _Name:
    """One template, ready to be rendered for a found row."""

    group: str
    parts: tuple[_Part, ...]


class LookupPlan:
    """One lookup of one rule for one relation: what it is asked with, and what its answers mean.

    Args:
        rule: whose lookup.
        lookup: which.
        templates: group (``keys``, ``tags``, ``l1``, ``cdn``) and template, of those that its answers fill.
        relation: where the asked values come from.
        state: where it counts.
        grammars: what the configured CDNs take as a tag.
        escape: escapes a value for an L1 glob.
    """

    def __init__(
        self,
        rule: Rule,
        lookup: Lookup,
        templates: Sequence[tuple[str, Template]],
        relation: Relation,
        state: RuleState,
        grammars: Sequence[TagGrammar],
        escape: Callable[[bytes], bytes],
    ) -> None:
        self.rule = rule
        self.lookup = lookup
        self.state = state
        facts = relation_facts(relation, next(iter(rule.events)))
        self._facts = {name: facts[name] for name in _FIXED_FACTS}
        self._grammars = grammars
        self._escape = escape
        self._widen = widener(state, CoarseForm(rule, self._facts, grammars))
        self._slots = list(lookup.sql.parameters)
        self._names = [_Name(group, tuple(self._parts(group, template))) for group, template in templates]
        oids = {column.name: column.type_oid for column in relation.columns}
        self.type_oids = tuple(
            oids[reference.name] if reference.is_row_value else _TEXT_OID for reference in lookup.sql.parameters
        )
        """The type of each parameter, as the source's server numbers it."""

    def __repr__(self) -> str:
        return f"<LookupPlan {self.rule.name}/{self.lookup.name}>"

    @property
    def slots(self) -> tuple[Reference, ...]:
        """What the values of an asked row are: no filters, never of a lookup; first those of the SQL."""
        return tuple(self._slots)

    @property
    def name(self) -> str:
        """The lookup's name."""
        return self.lookup.name

    @property
    def limit(self) -> int:
        """Rows for one asked row; more widen."""
        return self.lookup.limit

    @property
    def timeout_seconds(self) -> float | None:
        """Replaces the timeout of the settings."""
        return self.lookup.timeout_seconds

    def statement(self, type_names: Sequence[str]) -> str:
        """The SQL for many rows; each parameter is a ``text[]`` (see ``lookup_sql.wrap``)."""
        return wrap(self.lookup.sql, type_names, limit=self.lookup.limit).text

    def grouped(self, asked: Iterable[Asked]) -> dict[Asked, list[Asked]]:
        """The asked rows by the parameters of the SQL: the same question is asked once."""
        groups: dict[Asked, list[Asked]] = {}
        for values in asked:
            groups.setdefault(values[: len(self.type_oids)], []).append(values)
        return groups

    def constant(self, reference: Reference) -> bytes | None:
        """The value of a fact that is the same for all rows; None for any other reference."""
        return self._facts.get(reference.name) if reference.scope == "meta" else None

    def _parts(self, group: str, template: Template) -> Iterable[_Part]:
        for part in template.parts:
            if isinstance(part, Literal):
                yield encode(part.text)
            elif part.is_lookup:
                yield _Looked(part)
            elif (known := self.constant(part)) is not None:
                value = part.filtered(known) or b""
                yield self._escape(value) if group == "l1" else value
            else:
                bare = Reference(part.scope, part.name)
                if bare not in self._slots:
                    self._slots.append(bare)
                yield _Given(self._slots.index(bare), part)

    # -- answers -----------------------------------------------------------------------------------------------

    def answer(
        self,
        invalidation: Invalidation,
        asked: Sequence[Sequence[Asked]],
        columns: Sequence[str],
        found: Iterable[tuple[int, Found]],
    ) -> None:
        """Add what the found rows name.

        Args:
            invalidation: what is added to.
            asked: the asked rows; those of one entry have the same parameters.
            columns: the names of the result's columns.
            found: index of an entry of ``asked``, and a row that was found for it; up to one more than the limit.

        Raises:
            LookupFailed: a template names a column that the result does not have, or has twice; nothing was added.
        """
        at = self._columns(columns)
        rows: dict[int, list[Found]] = {}
        for index, row in found:
            rows.setdefault(index, []).append(row)
        overflowed = 0
        for index, of_one in rows.items():
            if len(of_one) > self.lookup.limit:
                overflowed += 1
                self.widen(invalidation, WidenReason.LOOKUP_OVERFLOW)
                continue
            for row in of_one:
                for values in asked[index]:
                    self._add(invalidation, values, row, at)
        self.state.lookups["overflow"] += overflowed
        self.state.lookups["ok"] += len(asked) - overflowed

    def widen(self, invalidation: Invalidation, reason: WidenReason) -> None:
        """Add the coarse form, counted once."""
        self._widen(invalidation, None, REASON_BITS[reason])

    def _columns(self, columns: Sequence[str]) -> Mapping[str, int]:
        at = {name: index for index, name in enumerate(columns)}
        for name in self._names:
            for part in name.parts:
                if isinstance(part, _Looked) and (count := columns.count(part.reference.name)) != 1:
                    what = "twice" if count else f"not (it has {', '.join(columns)})"
                    message = (
                        f"a template names {self.lookup.name}.{part.reference.name}, which the result of the lookup"
                        f" '{self.lookup.name}' holds {what}"
                    )
                    raise LookupFailed(message, reason=WidenReason.LOOKUP_ERROR)
        return at

    def _add(self, invalidation: Invalidation, asked: Asked, found: Found, at: Mapping[str, int]) -> None:
        delays = self.rule.repeat_after
        for name in self._names:
            made = self._rendered(name, asked, found, at)
            if made is None:
                self.state.null_skips += 1
            elif name.group == "cdn" and not all(grammar.allows(made) for grammar in self._grammars):
                self.widen(invalidation, WidenReason.UNSAFE_VALUE)
            else:
                target = "cdn_soft" if name.group == "cdn" and self.rule.soft else name.group
                getattr(invalidation, target).add(made)
                if delays:
                    getattr(invalidation.repeated(delays), target).add(made)

    def _rendered(self, name: _Name, asked: Asked, found: Found, at: Mapping[str, int]) -> bytes | None:
        """The name; None if a value is NULL without a default."""
        made: list[bytes] = []
        for part in name.parts:
            if isinstance(part, bytes):
                made.append(part)
                continue
            value = asked[part.at] if isinstance(part, _Given) else found[at[part.reference.name]]
            value = part.reference.filtered(value)
            if value is None:
                return None
            made.append(self._escape(value) if name.group == "l1" else value)
        return b"".join(made)


def widen_all(invalidation: Invalidation, reason: WidenReason) -> None:
    """Every lookup that was not answered widens; none is left."""
    plans: dict[LookupPlan, set[Asked]] = dict(invalidation.lookups)
    invalidation.lookups.clear()
    invalidation.lookup_transactions.clear()
    for plan, asked in plans.items():
        plan.state.lookups["error"] += len(asked)
        plan.widen(invalidation, reason)


def l1_escaper(state: RuleState) -> Callable[[bytes], bytes]:
    """Escapes a value for an L1 glob; what no JSON message can hold becomes ``*``, counted."""
    widened = state.widened

    def escape(value: bytes) -> bytes:
        escaped = globs.escape_for_message(value)
        if escaped is not None:
            return escaped
        widened[WidenReason.UNSAFE_VALUE] += 1
        return b"*"

    return escape
