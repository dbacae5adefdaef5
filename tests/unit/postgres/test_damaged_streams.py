"""Damaged messages: an explained stop with the position kept, or names that stand in the message; nothing else.

``FUZZ_EXAMPLES=1000000 pytest --timeout=0 tests/unit/postgres/test_damaged_streams.py`` looks longer; ``FUZZ_SEED=17
FUZZ_EXAMPLES=1`` repeats what a failing test names. The messages are those that servers really sent.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Sequence

from invalidator.errors import ProtocolError
from invalidator.model import Invalidation, Relation, Transaction, WidenReason
from invalidator.ports import RowFunction
from invalidator.postgres import decoder
from invalidator.postgres.reader import Reader
from invalidator.rules import explicit
from invalidator.rules.compiler import compile_relation
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.telemetry.state import MessageState, RuleState, SourceState, TableState
from tests.support import golden, pgoutput
from tests.support.column_rules import COARSE, column_rules
from tests.support.damage import cut, damaged

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
FINAL_LSN = 0x16B3748
BEGIN = pgoutput.xlog_data(b"B" + FINAL_LSN.to_bytes(8) + bytes(12))
STREAMS = [golden.stream(file) for file in golden.FILES]
POSITION = re.compile(r"\(at [0-9A-F]+/[0-9A-F]+, first bytes: [0-9a-f]*\); the position was kept")


class ColumnRules:
    """Rules for all columns of all relations; each relation is compiled once."""

    def __init__(self) -> None:
        self._made: dict[Relation, RowFunction] = {}

    def bind(self, relation: Relation) -> RowFunction:
        made = self._made.get(relation)
        if made is None:
            rules = column_rules(relation)
            states = {rule.name: RuleState(rule.name) for rule in rules}
            made = compile_relation(list(enumerate(rules)), relation, states, TableState(relation.name))
            self._made[relation] = made
        return made

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        invalidation.tags |= {COARSE for _ in relations}

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        invalidation.key_patterns.add(relation.table.encode())


RULES = ColumnRules()


def bound_of(stream: Sequence[bytes]) -> dict[bytes, RowFunction]:
    """Row functions for the relations of a stream, as they were announced last."""
    relations = [decoder.relation(message) for message in stream if message[decoder.PAYLOAD] == decoder.RELATION]
    return {relation.oid.to_bytes(4): RULES.bind(relation) for relation in relations}


BOUND = [bound_of(stream) for stream in STREAMS]


def reader_of(bound: dict[bytes, RowFunction]) -> Reader:
    """A reader in the middle of a transaction that knows these relations."""
    messages = ExplicitInvalidation({"keys": ["cms:"], "cdn": ["cms-"]}, grammars=(), state=MessageState())
    reader = Reader(
        RULES, heartbeat_name="slot", max_items=1 << 30, max_bytes=1 << 40, state=SourceState(), on_message=messages
    )
    reader._bound.update(bound)  # bind() would hash every relation once more, for each of a million readers
    feed(reader, BEGIN)
    return reader


def feed(reader: Reader, message: bytes) -> None:
    left = [message]

    def read(_: int) -> tuple[int, memoryview]:
        data = left.pop() if left else b""
        return len(data), memoryview(data)

    reader.drain(read)


def outcome(reader: Reader, message: bytes, *, binds: bool) -> str:
    """What became of the message; whatever must not become of it is an assertion.

    Args:
        reader: knows the relations of the stream.
        message: damaged.
        binds: make rules for what is still a relation.
    """
    try:
        feed(reader, message)
    except ProtocolError as error:
        assert POSITION.search(str(error)), error  # noqa: PT017  (only some messages raise)
        assert len(str(error)) < 400  # noqa: PT017
        assert reader.end == 0
        return "refused"
    if reader.unbound is not None:
        # What it says of itself may be false, but it is a whole relation, and rules for it can be made.
        assert len(reader.unbound.columns) <= len(message)
        if binds:
            reader.bind(reader.unbound)
        return "relation"
    if reader.end:
        assert message[25] == decoder.COMMIT
        assert int.from_bytes(message[27:35]) == FINAL_LSN < reader.end
        return "commit"
    invalidation = reader.take().invalidation
    for name in (*invalidation.keys, *invalidation.tags, *invalidation.l1, *invalidation.cdn):
        assert is_of(name, message), name
    return "widened" if COARSE in invalidation.tags else "named" if invalidation else "nothing"


def is_of(name: bytes, message: bytes) -> bool:
    """Whether the name is what a rule may make of bytes of the message."""
    front, _, value = name.partition(b":")
    if message[25:26] == b"M":
        return name.startswith((b"cms:", b"cms-"))
    if front.startswith(b"old"):
        value = value.replace(b"[*]", b"*").replace(b"[?]", b"?").replace(b"[[]", b"[").replace(b"[\\\\]", b"\\")
        return name == COARSE or value in message or value.endswith(b"*")
    return name == COARSE or value in message


def test_a_damaged_message_is_refused_with_its_position_or_names_only_what_stands_in_it() -> None:
    seen: Counter[str] = Counter()
    for number in range(SEED, SEED + EXAMPLES):
        chance = random.Random(number)  # noqa: S311  (it must be the same each time)
        version = chance.randrange(len(STREAMS))
        message = damaged(chance, STREAMS[version])
        try:
            seen[outcome(reader_of(BOUND[version]), message, binds=number % 20 == 0)] += 1
        except Exception as error:
            error.add_note(f"FUZZ_SEED={number} FUZZ_EXAMPLES=1 repeats it: {message.hex()}")
            raise
    print(f"{EXAMPLES} messages from seed {SEED}: {dict(seen)}")
    assert EXAMPLES < 1000 or seen.keys() >= {"refused", "relation", "widened", "named", "nothing"}


def test_a_message_that_is_cut_off_anywhere_is_refused_or_widens_or_names_what_the_whole_one_does() -> None:
    for version, stream in enumerate(STREAMS):
        for message in stream:
            if message[25] in (decoder.BEGIN, decoder.COMMIT):
                continue  # read as wholes: test_decoder.py
            whole = reader_of(BOUND[version])
            feed(whole, message)
            names = set() if whole.unbound else everything(whole.take().invalidation)
            for size in {*range(1, min(len(message), 300)), *range(300, len(message), 97)}:
                reader = reader_of(BOUND[version])
                if outcome_is_refused(reader, message[:size]):
                    continue
                assert message[25] in b"IUDYO", (message[:size].hex(), "a control message must be whole")
                found = everything(reader.take().invalidation)
                assert found <= names | {COARSE}
                assert found == names or COARSE in found


def outcome_is_refused(reader: Reader, message: bytes) -> bool:
    try:
        feed(reader, message)
    except ProtocolError as error:
        assert POSITION.search(str(error)), error  # noqa: PT017
        return True
    return False


def everything(invalidation: Invalidation) -> set[bytes]:
    return {*invalidation.keys, *invalidation.tags, *invalidation.l1, *invalidation.cdn}


def test_damage_is_the_same_for_the_same_seed() -> None:
    first, second = (damaged(random.Random(7), STREAMS[0]) for _ in range(2))  # noqa: S311
    assert first == second
    assert cut(random.Random(7), b"abc") != b"abc"  # noqa: S311


def test_the_prefix_of_messages_is_the_one_that_the_golden_streams_hold() -> None:
    assert explicit.PREFIX == "invalidator"
