"""Patterns that we send agree with the server's own matcher, the one behind SCAN, KEYS and PSUBSCRIBE.

``FUZZ_EXAMPLES=10000 pytest --timeout=0 tests/integration/test_globs.py`` looks longer.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from invalidator import yamlfile
from invalidator.model import Column, Invalidation, Operation, Relation, Transaction
from invalidator.rules import document, globs
from invalidator.rules.coarse import CoarseForm
from invalidator.rules.engine import Engine
from invalidator.rules.rows import row_message
from invalidator.rules.rule import Rule, RuleSet
from invalidator.rules.template import encode
from invalidator.targets import _globs
from tests.support.redis import SharedServer

SPECIAL = [b"*", b"?", b"[", b"]", b"\\", b"^", b"!", b"-", b"{", b"}", b",", b" ", b"\n"]
CHARACTERS = st.sampled_from([*SPECIAL, b"a", b"b", b"\xff", b"\xc3\xa4", b"\0"]) | st.binary(min_size=1, max_size=2)
HOSTILE = st.lists(CHARACTERS, max_size=8).map(b"".join)
HAND_PICKED = [
    b"", b"*", b"?", b"[", b"]", b"\\", b"\\\\", b"[a]", b"[^a]", b"[!a]", b"[a-z]", b"]a[", b"\\*", b"a\nb", b"{a,b}",
    b"\xff\xfe", "Ä𝄞".encode(), b"**", b"\0", b"^", b"-", b"!",
]  # fmt: skip
GLOBS = st.text("ab*?[]\\^-!", max_size=8)
LITERALS = st.text("ab:*?[]\\^-!ä ", max_size=5)
EACH = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def client(redis_flavour: SharedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_flavour.url) as connected:
        yield connected


def matching(client: redis.Redis, pattern: bytes, names: Collection[bytes]) -> set[bytes]:
    """Which of the names the server finds by the pattern; KEYS and SCAN have to agree."""
    client.flushdb()
    client.mset(dict.fromkeys(names, b""))
    found: set[bytes] = set(client.keys(pattern))  # type: ignore[arg-type]
    assert found == set(client.scan_iter(match=pattern, count=1000))
    return found


@EACH
@given(HOSTILE, HOSTILE)
@example(b"\\", b"\\\\")
@example(b"[", b"[[]")
@example(b"]a[", b"]a")
@example(b"[^a]", b"b")
def test_an_escaped_value_matches_itself_alone_in_redis(client: redis.Redis, value: bytes, other: bytes) -> None:
    pattern = b"l1:" + globs.escape(value) + b":*"
    names = {b"l1:" + value + b":x": True, b"l1:" + other + b":x": other == value}

    found = matching(client, pattern, names)

    assert found == {name for name, is_meant in names.items() if is_meant}
    assert found == {name for name in names if fnmatch.fnmatchcase(name, pattern)}


def test_of_many_hostile_values_each_pattern_finds_just_one(client: redis.Redis) -> None:
    for value in HAND_PICKED:
        for escaped in (globs.escape(value), _globs.escape(value)):
            assert matching(client, b"k:" + escaped, [b"k:" + each for each in HAND_PICKED]) == {b"k:" + value}


# -- patterns of rules -----------------------------------------------------------------------------------------------


def loaded(folder: Path, **templates: str) -> Rule | None:
    """The one rule with a template in each group that is named; None if it is refused. JSON is YAML."""
    groups = {group: [template] for group, template in templates.items()}
    path = folder / "rules.yaml"
    rule = {"name": "r", "table": "public.r", "invalidate": groups}
    path.write_text(json.dumps({"version": 1, "rules": [rule]}), encoding="utf-8")
    try:
        return document.load([path]).rules[0]
    except yamlfile.Invalid:
        return None


def dropped(rule: Rule, **row: bytes) -> Invalidation:
    """What the stream makes of an inserted row."""
    texts = {name: value.decode("utf-8", "surrogateescape") for name, value in row.items()}
    relation = Relation(1, "public", "r", "d", tuple(Column(name, 25, is_identity=name == "id") for name in row))
    function = Engine(RuleSet((rule,), ""), states={}, tables={}).bind(relation)
    assert function is not None
    made = Invalidation()
    function(row_message(relation, Operation.INSERT, None, texts), made, Transaction(1, 1, 1))
    return made


def coarse_of(rule: Rule) -> Invalidation:
    made = Invalidation()
    CoarseForm(rule, {"schema": b"public", "table": b"r", "op": Operation.TRUNCATE.value.encode()}, []).add(made, None)
    return made


def braced(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def written(pieces: list[str]) -> str:
    """A template with a row value between the pieces."""
    return "{id}".join(map(braced, pieces))


@EACH
@given(
    st.lists(st.text("ab:]\\^-!ä {}", max_size=4), min_size=2, max_size=4), st.lists(HOSTILE, min_size=1, max_size=5)
)
@example(["a\\", ""], [b"*", b"\\"])
@example(["a]", "\\b"], [b"[", b""])
def test_the_derived_pattern_of_keys_covers_each_name_and_keeps_the_literal_text(
    client: redis.Redis, tmp_path: Path, pieces: list[str], values: list[bytes]
) -> None:
    rule = loaded(tmp_path, keys=written(["k" + pieces[0], *pieces[1:]]))
    assert rule is not None
    names = {b"k" + value.join(map(encode, pieces)) for value in values}
    assert names == set().union(*(dropped(rule, id=value).keys for value in values))
    (pattern,) = coarse_of(rule).key_patterns

    assert matching(client, pattern, names | {b"other", b"x" + next(iter(names))}) == names


@EACH
@given(
    st.lists(st.text("ab:]^-!ä {}", max_size=3), min_size=3, max_size=3),
    st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=4),
)
@example([":", ":", ":"], [(b"*", b"?"), (b"a", b"a"), (b"\\", b"[a]")])
@example(["]", "^", "-"], [(b"[", b"]"), (b"[^", b"a-b]")])
@example(["", "", ""], [(b"\xff", b"*"), (b"", b"")])
def test_what_is_made_of_a_hostile_row_finds_the_entries_of_that_row_alone(
    client: redis.Redis, tmp_path: Path, pieces: list[str], rows: list[tuple[bytes, bytes]]
) -> None:
    front, between, end = pieces
    exact = f"k{braced(front)}{{id}}{braced(between)}{{slug}}{braced(end)}"
    rule = loaded(tmp_path, keys=exact, tags=exact, l1=f"{exact}*")
    assert rule is not None
    names = [b"k" + encode(front) + a + encode(between) + b + encode(end) for a, b in rows]
    entries = {name + more for name in names for more in (b"", b":x", b"*")}

    for (a, b), name in zip(rows, names, strict=True):
        made = dropped(rule, id=a, slug=b)
        assert made.keys == made.tags == {name}
        (pattern,) = made.l1
        own = {entry for entry in entries if entry.startswith(name)}
        found = matching(client, pattern, entries)
        assert found == own if is_utf8(a) and is_utf8(b) else found >= own  # a JSON message holds nothing else: widened


def is_utf8(value: bytes) -> bool:
    return value.decode("utf-8", "replace").encode() == value


@EACH
@given(
    GLOBS, GLOBS, st.lists(HOSTILE, min_size=1, max_size=3), st.lists(st.text("ab*?[]\\^-!", max_size=6), max_size=6)
)
@example("a\\*", "", [b"1"], ["a*1"])
@example("a\\\\*", "", [b"1"], ["a\\x1"])
@example("[a-]", "]", [b"b"], ["b"])
@example("[^\\]]", "*", [b"*"], ["b*x"])
def test_the_derived_pattern_of_an_l1_template_matches_whatever_the_template_matches(
    client: redis.Redis, tmp_path: Path, front: str, back: str, values: list[bytes], others: list[str]
) -> None:
    rule = loaded(tmp_path, l1=written(["k" + front, back]))
    assume(rule is not None)
    assert rule is not None
    plain = [b"k" + encode(front.replace("*", "").replace("\\", "")) + value + encode(back) for value in values]
    names = {
        *plain,
        *(b"k" + encode(other) for other in others),
        *(b"k" + encode(other) + values[0] for other in others),
    }
    (covering,) = coarse_of(rule).l1
    covered = matching(client, covering, names)

    for value in values:
        (exact,) = dropped(rule, id=value).l1
        assert matching(client, exact, names) <= covered, (exact, covering)


@EACH
@given(GLOBS, HOSTILE.filter(bool), st.lists(st.text("ab*?[]\\^-!", max_size=5), min_size=1, max_size=8))
@example("[a-]", b"b", ["b", "]", "a", "-"])
@example("[]", b"a", ["", "a"])
@example("[^", b"^", ["a", "^"])
@example("\\", b"*", ["", "x"])
def test_a_value_behind_a_glob_stands_for_itself_or_the_glob_is_known_to_be_open(
    client: redis.Redis, front: str, value: bytes, names: list[str]
) -> None:
    assume(globs.open_at_end(front) is None)
    texts = [encode(name) for name in {*names, front}]

    by_front = matching(client, b"k" + encode(front), [b"k" + text for text in texts])
    found = matching(
        client, b"k" + encode(front) + globs.escape(value) + b"|", [b"k" + text + value + b"|" for text in texts]
    )

    assert {name + value + b"|" for name in by_front} <= found
    if "*" not in front:  # a star may take a part of the value too
        assert found == {name + value + b"|" for name in by_front}


@pytest.mark.parametrize("front", ["a[", "a[b-", "a[^", "a\\", "a[b\\", "a\\\\\\", "[a-]", "[a-]]["])
def test_a_glob_that_would_take_the_next_character_is_refused_in_front_of_a_value(tmp_path: Path, front: str) -> None:
    assert globs.open_at_end(front) is not None
    assert loaded(tmp_path, l1=written(["k" + front, "]"])) is None


@pytest.mark.parametrize("front", ["a", "[a]", "[a-z]", "\\[", "\\\\", "[]", "[^]", "[\\]]", "a]", "*", "[a-]]"])
def test_a_glob_that_is_complete_may_stand_in_front_of_a_value(tmp_path: Path, front: str) -> None:
    assert globs.open_at_end(front) is None
    assert loaded(tmp_path, l1=written(["k" + front, "]"])) is not None


# -- what targets know of globs --------------------------------------------------------------------------------------


@EACH
@given(st.one_of(GLOBS.map(str.encode), HOSTILE, HOSTILE.map(_globs.escape)), st.lists(HOSTILE, max_size=5))
@example(b"[\\\\]", [b"\\", b"\\\\"])
@example(b"a[", [b"a[", b"a"])
def test_what_targets_take_for_a_single_name_is_all_that_redis_finds(
    client: redis.Redis, glob: bytes, names: list[bytes]
) -> None:
    single = _globs.literal(glob)
    everything = {*names, glob} | ({single} if single is not None else set())

    found = matching(client, glob, everything)

    if single is not None:
        assert found == {single}
    assert all(name.startswith(_globs.literal_prefix(glob)) for name in found)


@EACH
@given(st.sets(GLOBS.map(str.encode), min_size=1, max_size=5), st.lists(st.text("ab*[]\\", max_size=5), max_size=8))
@example({b"a\\*", b"a\\*b"}, ["a*", "a*b"])
@example({b"a[*", b"a[*]"}, ["a*"])
def test_globs_that_are_left_out_as_covered_find_nothing_that_the_others_do_not(
    client: redis.Redis, patterns: set[bytes], names: list[str]
) -> None:
    everything = {*map(encode, names), *patterns}

    kept = _globs.uncovered(patterns)

    found = set().union(*(matching(client, pattern, everything) for pattern in kept))
    assert found == set().union(*(matching(client, pattern, everything) for pattern in patterns))
