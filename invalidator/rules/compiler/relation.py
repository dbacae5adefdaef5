"""Makes one Python function per relation and its rules: raw message in, names of what is stale out.

This is where the daemon's speed is decided (``tests/bench/compiler_bench.py``), so the function is generated: it
reads unrolled, only as far as the last column that a rule needs, and has no loop over rules.

It first reads (``reading.py``), then counts the row, then lets each rule render (``rendering.py``). Whatever it
fails on is done again, more carefully and rule by rule; a rule that fails even then widens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from invalidator.model import Invalidation, Operation, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction, TagGrammar
from invalidator.rules import reading
from invalidator.rules.coarse import REASON_BITS
from invalidator.rules.compiler.bound import BoundRule
from invalidator.rules.compiler.rendering import RuleCode
from invalidator.rules.namespace import Namespace, indented
from invalidator.rules.reading import Form, Images
from invalidator.rules.rule import Rule
from invalidator.telemetry.state import RuleState, TableState

_OPERATIONS: Final = {ord("I"): Operation.INSERT, ord("U"): Operation.UPDATE, ord("D"): Operation.DELETE}


def compile_relation(
    rules: Sequence[tuple[int, Rule]],
    relation: Relation,
    states: Mapping[str, RuleState],
    table_state: TableState,
    cdn_grammars: Sequence[TagGrammar] = (),
) -> RowFunction:
    """The function for rows of this relation.

    Args:
        rules: the rules that apply to the relation, each with its index in the rule set.
        relation: columns and identity as the stream announced them.
        states: where each rule counts, by its name.
        table_state: where the relation's rows are counted.
        cdn_grammars: what the configured CDNs take as a tag.
    """
    bound = [BoundRule(index, rule, relation, states[rule.name], cdn_grammars) for index, rule in rules]
    return _Compiler(bound, relation, table_state).function


class _Compiler:
    """The functions of one relation: the fast one now, the others when a message asks for them."""

    def __init__(self, rules: Sequence[BoundRule], relation: Relation, table_state: TableState) -> None:
        self._rules = rules
        self._relation = relation
        self._rows = table_state.rows
        self._keys = reading.key_columns(relation)
        self._namespace = Namespace(reading.READING_NAMES)
        self._full = relation.replica_identity == "f"
        self._other: RowFunction | None = None
        self._careful: dict[tuple[int, bool], RowFunction] = {}
        self.function = self._fast(full=self._full)

    def _fast(self, *, full: bool) -> RowFunction:
        """The function over all rules for the kind of old image that the replica identity makes one expect."""
        old, other = ("O", "K") if full else ("K", "O")
        branches = self._branches(old, range(len(self._rules)), careful=False)
        branches.append(f"elif t == {ord(other)}: {self._namespace.name(self._unexpected)}(b, inv, tx)")
        return self._compiled(branches, self._namespace.name(self._resume), careful=False)

    def _alone(self, position: int, *, full: bool) -> RowFunction:
        """One rule by itself, reading step by step, without the counting of rows."""
        made = self._careful.get((position, full))
        if made is None:

            def fail(message: bytes, invalidation: Invalidation, transaction: Transaction, at: int) -> None:
                self._fail(position, message, invalidation, transaction, is_counted=at >= 0)

            branches = self._branches("O" if full else "K", [position], careful=True)
            made = self._compiled(branches, self._namespace.name(fail), careful=True)
            self._careful[position, full] = made
        return made

    def _compiled(self, branches: Sequence[str], on_failure: str, *, careful: bool) -> RowFunction:
        lines = [
            "def row(b, inv, tx):",
            "    at = -1",
            "    try:",
            f"        {reading.head(len(self._relation.columns), self._keys, careful=careful)}",
            *indented(branches, 2),
            f"        else: {reading.MALFORMED}",
            "    except Exception:",
            f"        {on_failure}(b, inv, tx, at)",
        ]
        return self._namespace.function(lines, "row")

    def _branches(self, old: str, positions: Sequence[int], *, careful: bool) -> list[str]:
        def form(form: Form) -> list[str]:
            return indented(self._form(form, positions, careful=careful), 2)

        return [
            f"if t == {ord('N')}:",
            f"    if m == {ord('U')}:",
            *form(reading.UPDATE["N"]),
            f"    elif m == {ord('I')}:",
            *form(reading.INSERT),
            f"    else: {reading.MALFORMED}",
            f"elif t == {ord(old)}:",
            f"    if m == {ord('D')}:",
            *form(reading.DELETE[old]),
            f"    elif m == {ord('U')}:",
            *form(reading.UPDATE[old]),
            f"    else: {reading.MALFORMED}",
        ]

    def _form(self, form: Form, positions: Sequence[int], *, careful: bool) -> list[str]:
        """What is done with messages of one form: read, count the row, then rule by rule.

        ``at`` tells the failure handler how far it came, so that nothing is counted twice.
        """
        images = Images(form, self._relation, careful=careful)
        repeats: dict[tuple[float, ...], str] = {}
        rules: list[str] = []
        for position in positions:
            bound = self._rules[position]
            if form.operation in bound.rule.events:
                rules += [f"at = {position}", *RuleCode(bound, images, self._namespace, repeats).lines()]
        count = f"{self._namespace.name(self._rows)}[{self._namespace.name(form.operation)}] += 1"
        return [
            *images.reading(),
            *([] if careful else [count]),  # the careful functions run after the row was counted
            *(f"{name} = None" for name in repeats.values()),
            *rules,
        ] or ["pass"]

    def _unexpected(self, message: bytes, invalidation: Invalidation, transaction: Transaction) -> None:
        if self._other is None:
            self._other = self._fast(full=not self._full)
        self._other(message, invalidation, transaction)

    def _resume(self, message: bytes, invalidation: Invalidation, transaction: Transaction, at: int) -> None:
        """Go on where the fast function failed: ``at`` is the rule that was rendering, -1 while reading."""
        kind = message[reading.TUPLE_KIND_AT] if len(message) > reading.TUPLE_KIND_AT else 0
        if at >= 0:
            self._widen_for_error(at, message, invalidation, transaction)
        elif operation := _operation(message):
            self._rows[operation] += 1
        for position in range(at + 1, len(self._rules)):
            self._alone(position, full=kind == ord("O"))(message, invalidation, transaction)

    def _fail(
        self, position: int, message: bytes, invalidation: Invalidation, transaction: Transaction, *, is_counted: bool
    ) -> None:
        bound = self._rules[position]
        operation = _operation(message)
        if operation is not None and not is_counted:
            if operation not in bound.rule.events:
                return
            bound.state.matches[operation] += 1
        self._widen_for_error(position, message, invalidation, transaction)

    def _widen_for_error(
        self, position: int, message: bytes, invalidation: Invalidation, transaction: Transaction
    ) -> None:
        bound = self._rules[position]
        bound.state.errors[WidenReason.RULE_ERROR] += 1
        widen = bound.widener(_operation(message) or Operation.UPDATE)
        widen(invalidation, transaction, REASON_BITS[WidenReason.RULE_ERROR])


def _operation(message: bytes) -> Operation | None:
    at = reading.MESSAGE_TYPE_AT
    return _OPERATIONS.get(message[at]) if len(message) > at else None
