"""Source that reads a row message: only as far, and only as much, as the rules of one relation need.

A message is one XLogData: ``w``, 24 bytes of positions and clock, then the pgoutput message (Postgres manual,
"Logical Replication Message Formats"): type byte, relation OID, and one or two tuples. A tuple is a kind byte
(N new, K old identity columns, O old row), a column count, and per column ``t``, a length and text, or ``n`` for
NULL, or ``u`` for an unchanged TOAST value that is not sent.

In the generated source ``n3`` is column 3 of the new row and ``o3`` of the old one: bytes, None for NULL, or False
for a value that was not sent. ``p`` is the position of the next column.

A slice of bytes never fails, so the value that is read last is held against the message's length: a message that ends
early would name something else. Whatever is read behind a value that is cut off fails by itself. Where the last value
read is the message's last, all lengths must add up to the message's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from invalidator.model import Operation, Relation
from invalidator.rules.namespace import indented

MESSAGE_TYPE_AT: Final = 25
TUPLE_KIND_AT: Final = 30
_FIRST_COLUMN_AT: Final = 33
_LENGTH_BYTES: Final = 5
"""``t`` and the length."""
_LONG_SKIP: Final = 16
"""From so many unneeded columns in a row on, a loop skips them: the source stays short for wide tables."""

MALFORMED: Final = "raise malformed"


class MalformedMessageError(Exception):
    """A row message is not of the form that the protocol gives it."""


READING_NAMES: Final[Mapping[str, object]] = {
    "malformed": MalformedMessageError,
    # One unpack is cheaper than four subscripts: message type, tuple kind, first column's kind and length.
    "head": Struct(">B4xB2xBI").unpack_from,
    "kind_length": Struct(">BI").unpack_from,
    "length": Struct(">I").unpack_from,
    "absent": {ord("n"): None, ord("u"): False},  # of any other kind: KeyError, and the row widens
}


@dataclass(frozen=True, slots=True)
class Form:
    """One shape of a row message: which images it carries."""

    operation: Operation
    old: str
    """'' there is none; 'N' it was not sent, so identity columns are those of the new row; 'K'; 'O'."""
    has_new: bool


INSERT: Final = Form(Operation.INSERT, "", has_new=True)
UPDATE: Final = {old: Form(Operation.UPDATE, old, has_new=True) for old in "NKO"}
DELETE: Final = {old: Form(Operation.DELETE, old, has_new=False) for old in "KO"}


class Images:
    """The values of the row images of one form: their names in the source, and which of them are needed.

    Args:
        form: which images there are.
        relation: the columns.
        careful: take no shortcut that fails on a message which ends early.
    """

    def __init__(self, form: Form, relation: Relation, *, careful: bool) -> None:
        self.form = form
        self.columns = {column.name: at for at, column in enumerate(relation.columns)}
        self.key_columns = key_columns(relation)
        self._careful = careful
        self._count = len(relation.columns)
        self._new_needs: dict[int, bool] = {}  # column -> its value is needed, not only whether it was sent
        self._old_needs: dict[int, bool] = {}

    def new_value(self, column: int) -> str:
        """The name of a value of the new row."""
        self._new_needs[column] = True
        return f"n{column}"

    def old_value(self, column: int) -> str | None:
        """The name of a value of the old row; None if messages of this form do not carry it."""
        old, is_key = self.form.old, column in self.key_columns
        if old == "N" and is_key:
            return self.new_value(column)  # had it changed, the old one would have been sent
        if old == "O" or (old == "K" and is_key):
            self._old_needs[column] = True
            return f"o{column}"
        return None

    def was_sent(self, column: int) -> str:
        """The condition that the new row's value was sent, hence may have changed."""
        self._new_needs.setdefault(column, False)
        return f"n{column} is not False"

    def reading(self) -> list[str]:
        """The lines that read every value asked for so far."""
        if self.form.old in ("", "N"):
            return self._walk("n", self._new_needs, first=True, final=True)
        replaced = [
            f"if n{column} is False: n{column} = {old}"  # unchanged and not sent: the old row has it
            for column, whole in self._new_needs.items()
            if whole and (old := self.old_value(column)) is not None
        ]
        if not self._new_needs:
            return self._walk("o", self._old_needs, first=True, final=True)
        return [
            *self._walk("o", self._old_needs, first=True, final=False),
            "p += 3",  # the new tuple's kind and column count
            *self._walk("n", self._new_needs, first=False, final=True),
            *replaced,
        ]

    def _walk(self, image: str, needs: Mapping[int, bool], *, first: bool, final: bool) -> list[str]:
        """Read one tuple; a final one only to the last column that is needed."""
        if final and not needs:
            return []
        stop = max(needs) + 1 if final else self._count
        column = 0
        lines: list[str] = []
        is_message_end = image == "n" or not self.form.has_new

        def check(column: int) -> str | None:
            """How the end of this value and that of the message must compare for the message to be malformed."""
            if not final or column != stop - 1:
                return None
            return "!=" if is_message_end and stop == self._count else ">"

        if first and has_head(self._count, self.key_columns, careful=self._careful):
            lines += _read_after_head(f"{image}0", needs.get(0), check(0))
            column = 1
        elif first:
            lines.append(f"p = {_FIRST_COLUMN_AT}")
        while column < stop:
            skipped = next((at for at in range(column, stop) if at in needs), stop) - column
            in_one_step = self._is_readable_in_one_step(column, final=final)
            if skipped >= _LONG_SKIP:
                lines += [f"for _ in range({skipped}):", *indented(_skip(in_one_step=False))]
                column += skipped
                continue
            if skipped:
                lines += _skip(in_one_step=in_one_step)
            else:
                name = f"{image}{column}"
                lines += _read(name, check(column), whole=needs[column], in_one_step=in_one_step)
            column += 1
        return lines

    def _is_readable_in_one_step(self, column: int, *, final: bool) -> bool:
        """Whether kind and length can be unpacked at once, even if the column turns out to have no length.

        Each column has at least its kind byte, so enough bytes follow unless the message ends soon. Identity
        columns are never NULL: the step fails for none but a malformed message.
        """
        if self._careful:
            return False
        return not final or self._count - column >= _LENGTH_BYTES or column in self.key_columns


def key_columns(relation: Relation) -> frozenset[int]:
    """The columns whose old value is sent exactly when it changed; with FULL there is no such thing."""
    if relation.replica_identity == "f":
        return frozenset()
    return frozenset(at for at, column in enumerate(relation.columns) if column.is_identity)


def has_head(columns: int, keys: frozenset[int], *, careful: bool) -> bool:
    """Whether the function begins with one unpack of the message's head and the first column's."""
    return not careful and (columns >= _LENGTH_BYTES or 0 in keys)


def head(columns: int, keys: frozenset[int], *, careful: bool) -> str:
    """The line that reads message type ``m`` and tuple kind ``t``, and with :func:`has_head` ``k`` and ``l``."""
    if has_head(columns, keys, careful=careful):
        return f"m, t, k, l = head(b, {MESSAGE_TYPE_AT})"
    return f"m = b[{MESSAGE_TYPE_AT}]; t = b[{TUPLE_KIND_AT}]"


def _read_after_head(name: str, whole: bool | None, check: str | None) -> list[str]:
    start = _FIRST_COLUMN_AT + _LENGTH_BYTES
    skip = f"p = {start} + l if k == 116 else {_FIRST_COLUMN_AT + 1}"
    if whole is None:
        return [skip]
    if not whole:
        return [skip, f"{name} = k != 117"]
    return [
        "if k == 116:",
        f"    p = {start} + l; {name} = b[{start}:p]",
        *([] if check is None else [f"    if p {check} len(b): {MALFORMED}"]),
        f"else: p = {_FIRST_COLUMN_AT + 1}; {name} = absent[k]",
    ]


def _skip(*, in_one_step: bool) -> list[str]:
    if in_one_step:
        return ["k, l = kind_length(b, p)", "p += 5 + l if k == 116 else 1"]
    return ["p += 5 + length(b, p + 1)[0] if b[p] == 116 else 1"]


def _read(name: str, check: str | None, *, whole: bool, in_one_step: bool) -> list[str]:
    if not whole:
        return [f"{name} = b[p] != 117", *_skip(in_one_step=in_one_step)]
    return [
        "k, l = kind_length(b, p)" if in_one_step else "k = b[p]",
        "if k == 116:",
        *([] if in_one_step else ["    l = length(b, p + 1)[0]"]),
        f"    q = p + 5; p = q + l; {name} = b[q:p]",
        *([] if check is None else [f"    if p {check} len(b): {MALFORMED}"]),
        f"else: p += 1; {name} = absent[k]",
    ]
