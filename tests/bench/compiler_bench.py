"""Prints the CPU time per row of generated row functions, beside a hand-written floor.

    python -m tests.bench.compiler_bench [ROWS]

The stream is the one that the end-to-end benchmark uses: 60 % updates, 20 % inserts, 20 % deletes. Figures are
microseconds per row, the median and the best of five runs. ``floor`` is written by hand for one table layout, counts
nothing, checks nothing and knows neither NULL nor unsent values: what any generated function has to pay on top is
the price of being right.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct

from invalidator.model import Invalidation, Operation, Relation, Transaction
from invalidator.ports import RowFunction
from invalidator.rules import condition
from invalidator.rules.engine import Engine
from invalidator.rules.rule import Coarse, Exact, Place, Rule, RuleSet
from invalidator.rules.template import parse
from tests.support import pgoutput

COLUMN_LIST = pgoutput.make_relation("id", "slug", identity=("id",))
SLUG_IDENTITY = pgoutput.make_relation("id", "slug", identity=("id", "slug"), replica_identity="i")
TRAILING_NULL = pgoutput.make_relation("id", "slug", "removed")
WIDE_COLUMNS = (
    "id",
    "uid",
    "tenant",
    "slug",
    "title",
    "status",
    "price",
    "meta",
    "version",
    "created",
    "updated",
    "body",
)
WIDE = pgoutput.make_relation(*WIDE_COLUMNS, identity=("id",))
WIDE_FULL = pgoutput.make_relation(*WIDE_COLUMNS, replica_identity="f")


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    relation: Relation
    exact: Exact
    target: float | None = None
    changed: frozenset[str] | None = None
    bulk_over: int | None = 10_000
    when: str | None = None


def exact(keys: Sequence[str] = (), tags: Sequence[str] = (), l1: Sequence[str] = (), cdn: Sequence[str] = ()) -> Exact:
    return Exact(*(tuple(map(parse, group)) for group in (keys, tags, l1, cdn)))


BOTH_KEYS = ("article:{id}", "article:slug:{slug}")
NEW_KEYS = ("article:{id}", "article:slug:{new.slug}")
CASES = (
    Case("two keys, column list", SLUG_IDENTITY, exact(BOTH_KEYS), 1.3),
    Case("two keys (new slug), column list", COLUMN_LIST, exact(NEW_KEYS), 1.3),
    Case("two keys and a tag, column list", SLUG_IDENTITY, exact(BOTH_KEYS, ("article:{id}",)), 2.0),
    Case("two keys, column list, unbounded", SLUG_IDENTITY, exact(BOTH_KEYS), 1.3, bulk_over=None),
    Case("two keys, the old slug not sent", COLUMN_LIST, exact(BOTH_KEYS)),
    Case("one key, column list", COLUMN_LIST, exact(("article:{id}",))),
    Case("two keys (new slug), full rows", WIDE, exact(NEW_KEYS)),
    Case("one key, the last column NULL", TRAILING_NULL, exact(("article:{id}", "article:by:{new.removed}"))),
    Case("two keys, replica identity full", WIDE_FULL, exact(BOTH_KEYS)),
    Case("one key if the title changed, full", WIDE_FULL, exact(("article:{id}",)), changed=frozenset({"title"})),
    Case(
        "key, tag, l1 and cdn, column list", SLUG_IDENTITY, exact(("a:{id}",), ("a:{id}",), ("a:{id}:*",), ("a:{id}",))
    ),
    Case("one key when the title has changed, full", WIDE_FULL, exact(("article:{id}",)), when="changed(title)"),
    Case("one hashed key, column list", COLUMN_LIST, exact(("article:{id|sha1}",))),
)


def stream(relation: Relation, rows: int) -> list[bytes]:
    """Messages with the mix and the sizes of the end-to-end benchmark; 300,000 articles."""
    source = random.Random(1)
    full = relation.replica_identity == "f"

    def row(number: int) -> list[bytes | None]:
        known = {
            "id": b"%d" % number,
            "slug": b"article-number-%d" % number,
            "body": b"x" * 600,
            "removed": None,
        }
        return [known.get(column.name, b"value of 12") for column in relation.columns]

    messages = []
    for _ in range(rows):
        new = row(source.randrange(300_000))
        match source.random():
            case share if share < 0.6:
                messages.append(pgoutput.update(relation.oid, new, old=new if full else None))
            case share if share < 0.8:
                messages.append(pgoutput.insert(relation.oid, new))
            case _ if full:
                messages.append(pgoutput.delete(relation.oid, old=new))
            case _:
                messages.append(pgoutput.delete(relation.oid, key=pgoutput.key_of(relation, new)))
    return messages


def bound(case: Case, *, rules: int = 1) -> RowFunction:
    """The function of one rule, or of several that are alike."""
    made = RuleSet(tuple(_rule(case, f"article-{number}") for number in range(rules)), "bench")
    function = Engine(made, states={}, tables={}).bind(case.relation)
    assert function is not None
    return function


def _rule(case: Case, name: str) -> Rule:
    return Rule(
        name=name,
        schema="public",
        table="article",
        events=frozenset(Operation),
        changed=case.changed,
        exact=case.exact,
        coarse=Coarse(tags=(parse("articles"),)),
        bulk_over=case.bulk_over,
        repeat_after=(),
        soft=False,
        place=Place("bench", 1, 1),
        when=None if case.when is None else condition.parse(case.when),
    )


def floor(messages: Sequence[bytes], invalidation: Invalidation) -> None:
    """Two keys of the column list ``(id, slug)``, as fast as plain Python seems to go."""
    head, kind_length = Struct(">BIBHBI").unpack_from, Struct(">BI").unpack_from
    add = invalidation.keys.add
    for message in messages:
        _, _, _, _, _, length = head(message, 25)
        at = 38 + length
        add(b"article:" + message[38:at])
        kind, length = kind_length(message, at)
        if kind == 116:
            add(b"article:slug:" + message[at + 5 : at + 5 + length])


def drain(function: RowFunction) -> Callable[[Sequence[bytes], Invalidation], None]:
    """Feed a function as a source does: ten rows a transaction."""

    def run(messages: Sequence[bytes], invalidation: Invalidation) -> None:
        for start in range(0, len(messages), 10):
            transaction = Transaction(start, start, start)
            for message in messages[start : start + 10]:
                function(message, invalidation, transaction)

    return run


def measure(run: Callable[[Sequence[bytes], Invalidation], None], messages: Sequence[bytes]) -> list[float]:
    """Microseconds per row of five runs, each into a batch of 2,000 names at a time as the daemon does."""
    figures = []
    for _ in range(5):
        begun = time.process_time()
        for start in range(0, len(messages), 2_000):
            run(messages[start : start + 2_000], Invalidation())
        figures.append((time.process_time() - begun) / len(messages) * 1e6)
    return figures


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(f"{'':40} {'median':>7} {'best':>7} {'goal':>5}   µs/row of {rows} rows")
    figures = measure(floor, stream(SLUG_IDENTITY, rows))
    print(f"{'floor: two keys, nothing else':40} {statistics.median(figures):7.2f} {min(figures):7.2f}")
    for case in CASES:
        figures = measure(drain(bound(case)), stream(case.relation, rows))
        median = statistics.median(figures)
        verdict = "" if case.target is None else f"{case.target:5.1f}   {'ok' if median <= case.target else 'MISSED'}"
        print(f"{case.name:40} {median:7.2f} {min(figures):7.2f} {verdict}")
    begun = time.process_time()
    for _ in range(20):
        bound(CASES[-1])
        bound(CASES[7])
    print(f"{'binding a relation':40} {(time.process_time() - begun) / 40 * 1e3:7.2f} ms")


if __name__ == "__main__":
    main()
