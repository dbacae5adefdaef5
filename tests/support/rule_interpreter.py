"""Does with one change what the rules say, slowly and obviously: what compiled functions are compared with.

Works on rows as Python values, so it shares neither the reading of messages nor the generated code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from urllib.parse import quote

from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import TagGrammar
from invalidator.rules.rule import Rule
from invalidator.rules.template import Literal, Reference, Template
from invalidator.telemetry.state import RuleState, TableState
from tests.support.pgoutput import UNCHANGED, Row, Value


class Unknown(Enum):
    """Why a value of an image is not there."""

    NOT_CARRIED = 1  # messages of this form do not have it
    NOT_SENT = 2  # this message could have had it


@dataclass(frozen=True)
class Change:
    """One row change; at most one of ``old`` (the whole old row) and ``key`` (its identity columns) is there."""

    operation: Operation
    new: Row | None = None
    old: Row | None = None
    key: Row | None = None


Image = dict[str, bytes | Unknown | None]


@dataclass
class Interpreter:
    """The rules of one relation, each with its index."""

    rules: Sequence[tuple[int, Rule]]
    relation: Relation
    states: Mapping[str, RuleState]
    table: TableState
    grammars: Sequence[TagGrammar] = ()
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [column.name for column in self.relation.columns]

    def apply(self, change: Change, invalidation: Invalidation, transaction: Transaction) -> None:
        self.table.rows[change.operation] += 1
        for index, rule in self.rules:
            if change.operation in rule.events:
                self._apply_rule(index, rule, change, invalidation, transaction)

    def images(self, change: Change) -> tuple[Image | None, Image | None]:
        """The old and the new row, as far as they are known; None for an image that there is not."""
        has_keys = self.relation.replica_identity != "f"
        keys = {column.name for column in self.relation.columns if column.is_identity and has_keys}
        old: Image | None = None
        if change.old is not None:
            old = self._image(change.old)
        elif change.key is not None:
            sent = self._image(change.key)
            old = {name: sent[name] if name in keys else Unknown.NOT_CARRIED for name in self.names}
        new: Image | None = None
        if change.new is not None:
            new = self._image(change.new)
            for name in self.names:
                if new[name] is Unknown.NOT_SENT and old is not None and old[name] is not Unknown.NOT_CARRIED:
                    new[name] = old[name]
        if change.operation is Operation.UPDATE and old is None and new is not None:
            old = {name: new[name] if name in keys else Unknown.NOT_CARRIED for name in self.names}
        return old, new

    def _image(self, row: Row) -> Image:
        def known(value: Value) -> bytes | Unknown | None:
            return Unknown.NOT_SENT if value is UNCHANGED else value

        return {name: known(value) for name, value in zip(self.names, row, strict=True)}

    def _apply_rule(
        self, index: int, rule: Rule, change: Change, invalidation: Invalidation, transaction: Transaction
    ) -> None:
        state = self.states[rule.name]
        if change.operation is Operation.UPDATE and not self._may_have_changed(rule, change):
            state.unchanged += 1
            return
        state.matches[change.operation] += 1
        if rule.bulk_over is not None:
            key = (index, self.relation.name)
            seen = transaction.bulk_rows[key] = transaction.bulk_rows.get(key, 0) + 1
            if seen > rule.bulk_over:
                if seen == rule.bulk_over + 1:
                    self._widen({WidenReason.BULK}, rule, change, invalidation, transaction)
                return
        reasons = self._exact(rule, change, invalidation, transaction)
        if self._missing(rule):
            state.errors["missing_column"] += 1
            reasons.add(WidenReason.MISSING_COLUMN)
        if reasons:
            self._widen(reasons, rule, change, invalidation, transaction)

    def _missing(self, rule: Rule) -> bool:
        templates = (*rule.exact.keys, *rule.exact.tags, *rule.exact.l1, *rule.exact.cdn)
        named = {name for template in templates for name in template.columns} | (rule.changed or set())
        return not named <= set(self.names)

    def _may_have_changed(self, rule: Rule, change: Change) -> bool:
        if rule.changed is None or not rule.changed <= set(self.names):
            return True
        old, new = self.images(change)
        assert old is not None
        assert new is not None
        assert change.new is not None
        for name in rule.changed:
            if change.new[self.names.index(name)] is UNCHANGED:
                continue
            if isinstance(old[name], Unknown) or old[name] != new[name]:
                return True
        return False

    def _exact(
        self, rule: Rule, change: Change, invalidation: Invalidation, transaction: Transaction
    ) -> set[WidenReason]:
        reasons: set[WidenReason] = set()
        groups = {"keys": rule.exact.keys, "tags": rule.exact.tags, "l1": rule.exact.l1, "cdn": rule.exact.cdn}
        for group, templates in groups.items():
            for template in templates:
                if not template.columns <= set(self.names):
                    continue
                for image in self._scopes(template, change):
                    made = self._render(group, template, image, rule, change, transaction)
                    if isinstance(made, set):
                        reasons |= made
                    elif made is None:
                        self.states[rule.name].null_skips += 1
                    elif group == "cdn" and not all(grammar.allows(made) for grammar in self.grammars):
                        reasons.add(WidenReason.UNSAFE_VALUE)
                    else:
                        target = "cdn_soft" if group == "cdn" and rule.soft else group
                        for part in parts_of(rule, invalidation):
                            getattr(part, target).add(made)
        return reasons

    def _scopes(self, template: Template, change: Change) -> list[str]:
        old, new = self.images(change)
        there = [scope for scope, image in (("new", new), ("old", old)) if image is not None]
        scopes = {reference.scope for reference in template.references}
        if any(scope in scopes and scope not in there for scope in ("new", "old")):
            return []
        if "row" not in scopes:
            return ["new"]
        bare = {reference.name for reference in template.references if reference.scope == "row"}
        is_same = change.operation is Operation.UPDATE and change.old is None and change.key is None
        if is_same and old is not None and all(old[name] is not Unknown.NOT_CARRIED for name in bare):
            return ["new"]  # the old row has the same values: identity columns that did not change
        return there

    def _render(
        self, group: str, template: Template, image: str, rule: Rule, change: Change, transaction: Transaction
    ) -> bytes | set[WidenReason] | None:
        """The name; None if a value is NULL; or the reasons why it cannot be told."""
        old, new = self.images(change)
        values: list[tuple[Reference, str, bytes | Unknown | None]] = []
        for reference in template.references:
            scope = image if reference.scope == "row" else reference.scope
            if scope == "meta":
                values.append((reference, scope, fact(reference.name, self.relation, change.operation, transaction)))
            else:
                row = new if scope == "new" else old
                assert row is not None
                values.append((reference, scope, row[reference.name]))
        for unknown in Unknown:
            reasons = {
                WidenReason.VALUE_UNAVAILABLE if scope == "new" else WidenReason.OLD_UNAVAILABLE
                for _, scope, value in values
                if value is unknown
            }
            if reasons:
                return reasons
        filtered = [filter_value(reference, value) for reference, _, value in values if not isinstance(value, Unknown)]
        if None in filtered:
            return None
        made = iter(value for value in filtered if value is not None)
        text = b""
        for part in template.parts:
            if isinstance(part, Literal):
                text += part.text.encode()
            else:
                value = next(made)
                text += self._in_l1(value, part, rule) if group == "l1" else value
        return text

    def _in_l1(self, value: bytes, reference: Reference, rule: Rule) -> bytes:
        escaped = escape(value)
        if escaped is None:
            if reference.scope != "meta" or reference.name not in {"schema", "table", "op"}:
                self.states[rule.name].widened["unsafe_value"] += 1
            return b"*"
        return escaped

    def _widen(
        self,
        reasons: set[WidenReason],
        rule: Rule,
        change: Change,
        invalidation: Invalidation,
        transaction: Transaction,
    ) -> None:
        for reason in reasons:
            self.states[rule.name].widened[reason] += 1
        coarse = Invalidation(cdn_all=rule.coarse.cdn_all)
        for group in ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn"):
            for template in getattr(rule.coarse, group):
                text = b""
                for part in template.parts:
                    if isinstance(part, Literal):
                        text += part.text.encode()
                    else:
                        value = filter_value(part, fact(part.name, self.relation, change.operation, transaction)) or b""
                        text += in_coarse(group, value)
                if group == "cdn" and not all(grammar.allows(text) for grammar in self.grammars):
                    coarse.cdn_all = True
                else:
                    getattr(coarse, "cdn_soft" if group == "cdn" and rule.soft else group).add(text)
        if not coarse:
            return
        for part_of in parts_of(rule, invalidation):
            for group in ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn", "cdn_soft"):
                getattr(part_of, group).update(getattr(coarse, group))
            part_of.cdn_all = part_of.cdn_all or coarse.cdn_all


def parts_of(rule: Rule, invalidation: Invalidation) -> list[Invalidation]:
    return [invalidation, invalidation.repeated(rule.repeat_after)] if rule.repeat_after else [invalidation]


def fact(name: str, relation: Relation, operation: Operation, transaction: Transaction) -> bytes:
    moment = datetime(2000, 1, 1) + timedelta(microseconds=transaction.commit_time)  # noqa: DTZ001
    text = {
        "schema": relation.schema,
        "table": relation.table,
        "op": str(operation),
        "lsn": f"{transaction.final_lsn >> 32:X}/{transaction.final_lsn & 0xFFFFFFFF:X}",
        "xid": str(transaction.xid),
        "commit_time": moment.isoformat(timespec="microseconds") + "Z",
    }[name]
    return text.encode("utf-8", "surrogateescape")


def filter_value(reference: Reference, value: bytes | None) -> bytes | None:
    for step in reference.filters:
        if step.name == "default":
            value = (step.argument or "").encode() if value is None else value
            continue
        if value is None:
            continue
        text = value.decode("utf-8", "surrogateescape")
        match step.name:
            case "lower" | "upper":
                value = getattr(text, step.name)().encode("utf-8", "surrogateescape")
            case "trim":
                value = text.strip().encode("utf-8", "surrogateescape")
            case "urlencode":
                value = quote(value, safe="").encode()
            case "hashtag":
                value = b"{" + value + b"}"
            case _:
                value = hashlib.new(step.name, value).hexdigest().encode()
    return value


def in_coarse(group: str, value: bytes) -> bytes:
    match group:
        case "l1":
            escaped = escape(value)
            return b"*" if escaped is None else escaped
        case "key_patterns" | "tag_patterns":
            return escape_bytes(value)
        case _:
            return value


def escape(value: bytes) -> bytes | None:
    """None for what is no text: an L1 message cannot hold it."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return escape_bytes(value)


def escape_bytes(value: bytes) -> bytes:
    special = {"*": "[*]", "?": "[?]", "[": "[[]", "\\": "[\\\\]"}
    return "".join(special.get(character, character) for character in value.decode("latin-1")).encode("latin-1")
