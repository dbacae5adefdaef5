"""The coarse form of a rule: what is dropped when it cannot be told exactly what is stale.

It has to cover everything that the rule can name. So whatever is unknown while it is rendered makes it wider,
never narrower: a key becomes a pattern, a CDN tag becomes everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from invalidator.model import Invalidation, Lsn, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules import globs
from invalidator.rules.rule import Rule
from invalidator.rules.template import Literal, Template, encode
from invalidator.telemetry.state import RuleState

_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
TRANSACTION_FACTS: Final = ("lsn", "xid", "commit_time")
"""The ``{meta.…}`` facts that only the open transaction knows."""


REASON_BITS: Final = {reason: 1 << at for at, reason in enumerate(WidenReason)}
"""Why a row of one rule widens, as bits: a row counts each reason once."""


@cache
def _reasons(bits: int) -> tuple[WidenReason, ...]:
    return tuple(reason for reason, bit in REASON_BITS.items() if bits & bit)


Widen = Callable[[Invalidation, Transaction | None, int], None]
"""Counts the reasons (bits) and adds the rule's coarse form."""


def lsn_fact(transaction: Transaction) -> bytes:
    """``{meta.lsn}``: the start of the commit record, as Postgres prints it."""
    return str(Lsn(transaction.final_lsn)).encode("ascii")


def xid_fact(transaction: Transaction) -> bytes:
    """``{meta.xid}``: the transaction's number."""
    return b"%d" % transaction.xid


def commit_time_fact(transaction: Transaction) -> bytes:
    """``{meta.commit_time}``: ISO 8601 in UTC with microseconds, ``2026-01-02T03:04:05.678901Z``."""
    try:
        moment = _POSTGRES_EPOCH + timedelta(microseconds=transaction.commit_time)
    except OverflowError:  # a clock beyond the year 9999; any text will do, an error would not
        return b"%d" % transaction.commit_time
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode("ascii")


TRANSACTION_FACT_FUNCTIONS: Final[dict[str, Callable[[Transaction], bytes]]] = {
    "lsn": lsn_fact,
    "xid": xid_fact,
    "commit_time": commit_time_fact,
}


def relation_facts(relation: Relation, operation: Operation) -> dict[str, bytes]:
    """The ``{meta.…}`` facts that are known before a transaction is."""
    return {
        "schema": encode(relation.schema),
        "table": encode(relation.table),
        "op": operation.value.encode("ascii"),
    }


def rule_facts(rule: Rule) -> dict[str, bytes]:
    """The ``{meta.…}`` facts that are known of every row of a rule."""
    names = {"schema": rule.schema, "table": rule.table}
    return {fact: encode(name) for fact, name in names.items() if "*" not in name}


class CoarseForm:
    """The coarse form of one rule for known facts: rendered once, added often.

    Args:
        rule: whose coarse form.
        facts: the ``{meta.…}`` facts that are known; the transaction's are taken from the transaction.
        grammars: what the configured CDNs take as a tag.
    """

    def __init__(self, rule: Rule, facts: Mapping[str, bytes], grammars: Sequence[TagGrammar]) -> None:
        self._rule = rule
        self._facts = facts
        self._grammars = grammars
        self._delays = rule.repeat_after
        self._needs_transaction = any(
            reference.name in TRANSACTION_FACTS for template in _templates(rule) for reference in template.references
        )
        self._groups, self._everything = self._render(facts)

    def add(self, invalidation: Invalidation, transaction: Transaction | None) -> None:
        """Add the coarse form, and once more to what is repeated if the rule repeats."""
        groups, everything = self._groups, self._everything
        if self._needs_transaction and transaction is not None:
            known = {name: fact(transaction) for name, fact in TRANSACTION_FACT_FUNCTIONS.items()}
            groups, everything = self._render({**self._facts, **known})
        _add(invalidation, groups, everything)
        if self._delays and (groups or everything):
            _add(invalidation.repeated(self._delays), groups, everything)

    def _render(self, facts: Mapping[str, bytes]) -> tuple[list[tuple[str, frozenset[bytes]]], bool]:
        coarse = self._rule.coarse
        made = Invalidation(cdn_all=coarse.cdn_all)
        for templates, exact, patterns in (
            (coarse.keys, made.keys, made.key_patterns),
            (coarse.tags, made.tags, made.tag_patterns),
        ):
            for template in templates:
                if _is_known(template, facts):
                    exact.add(_text(template, facts))
                else:
                    patterns.add(_glob(template, facts, literals_are_globs=False))
        made.key_patterns.update(_glob(template, facts) for template in coarse.key_patterns)
        made.tag_patterns.update(_glob(template, facts) for template in coarse.tag_patterns)
        made.l1.update(_glob(template, facts, only_utf8=True) for template in coarse.l1)
        for template in coarse.cdn:
            tag = _text(template, facts) if _is_known(template, facts) else None
            if tag is not None and all(grammar.allows(tag) for grammar in self._grammars):
                (made.cdn_soft if self._rule.soft else made.cdn).add(tag)
            else:
                made.cdn_all = True
        groups = [(name, frozenset(names)) for name in _SETS if (names := getattr(made, name))]
        return groups, made.cdn_all


def widener(state: RuleState, form: CoarseForm) -> Widen:
    """The function that widens one rule: counts why, adds the coarse form."""
    widened, errors, add = state.widened, state.errors, form.add

    def widen(invalidation: Invalidation, transaction: Transaction | None, bits: int) -> None:
        for reason in _reasons(bits):
            widened[reason] += 1
            if reason is WidenReason.MISSING_COLUMN:
                errors[reason] += 1
        add(invalidation, transaction)

    return widen


_SETS: Final = ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn", "cdn_soft")


def _add(part: Invalidation, groups: list[tuple[str, frozenset[bytes]]], everything: bool) -> None:
    for name, names in groups:
        getattr(part, name).update(names)
    if everything:
        part.cdn_all = True


def _templates(rule: Rule) -> tuple[Template, ...]:
    coarse = rule.coarse
    return (*coarse.keys, *coarse.key_patterns, *coarse.tags, *coarse.tag_patterns, *coarse.l1, *coarse.cdn)


def _is_known(template: Template, facts: Mapping[str, bytes]) -> bool:
    return all(reference.name in facts for reference in template.references)


def _text(template: Template, facts: Mapping[str, bytes]) -> bytes:
    """The template as it is; every fact it needs is known."""
    return b"".join(
        encode(part.text) if isinstance(part, Literal) else part.filtered(facts[part.name]) or b""
        for part in template.parts
    )


def _glob(
    template: Template, facts: Mapping[str, bytes], *, literals_are_globs: bool = True, only_utf8: bool = False
) -> bytes:
    """The template as a glob; a fact that is unknown, or cannot be written, is ``*``."""
    escape = globs.escape_for_message if only_utf8 else globs.escape
    made: list[bytes] = []
    for part in template.parts:
        if isinstance(part, Literal):
            text = encode(part.text)
            made.append(text if literals_are_globs else globs.escape(text))
        else:
            value = part.filtered(facts[part.name]) if part.name in facts else None
            escaped = None if value is None else escape(value)
            made.append(b"*" if escaped is None else escaped)
    return b"".join(made)
