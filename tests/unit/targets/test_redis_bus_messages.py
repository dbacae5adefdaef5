"""The bytes of messages to in-process caches: nothing is left out, whatever names hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.model import Invalidation
from invalidator.targets._globs import escape
from invalidator.targets._l1_messages import Content, content, message, pattern_message, patterns, split

ALL = frozenset({"l1", "keys", "tags"})
HOSTILE = ["*", "a?b", "[x]", "line\nbreak", '"quoted"', "\x01", "é€𝄞", "\\", "\u2028", "a" * 5000]


def said(part: Content) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(
        message(part, epoch="e", sequence=7, position="0/1", timestamp=5).decode("utf-8", "strict")
    )
    return whole


def test_a_message_is_exactly_as_documented() -> None:
    made = content(
        Invalidation(l1={b"user:42", b"list:user:42:*"}, tags={b"user:42"}, keys={b"k"}), frozenset({"l1", "tags"})
    )
    assert message(
        made,
        epoch="4be0643f-1d98-573b-97cd-ca98a65347dd",
        sequence=1287,
        position="0/16B3748",
        timestamp=1795379811136,
    ) == (
        b'{"v":1,"epoch":"4be0643f-1d98-573b-97cd-ca98a65347dd","seq":1287,"lsn":"0/16B3748",'
        b'"timestamp":1795379811136,"keys":["user:42"],"patterns":["list:user:42:*"],"tags":["user:42"],"clear":false}'
    )


def test_a_pattern_message_is_exactly_as_documented() -> None:
    assert pattern_message("user:42:*", 1795379811136) == b'{"pattern": "user:42:*", "timestamp": 1795379811136}'


@pytest.mark.parametrize("value", HOSTILE)
def test_an_escaped_row_value_arrives_as_the_key_that_it_is(value: str) -> None:
    name = f"user:{value}"
    made = content(Invalidation(l1={escape(name.encode())}), frozenset({"l1"}))
    assert said(made)["keys"] == [name]
    assert made.widened == 0


def test_only_what_is_included_is_said() -> None:
    told = Invalidation(keys={b"k"}, tags={b"t"}, l1={b"l"}, cdn={b"c"}, key_patterns={b"k*"}, tag_patterns={b"t*"})
    assert content(told, frozenset({"l1"})) == Content(keys=["l"])
    assert content(told, frozenset({"keys"})) == Content(keys=["k"], patterns=["k*"])
    assert not content(Invalidation(keys={b"k"}, cdn={b"c"}), frozenset({"l1", "tags"}))


def test_a_star_alone_clears_and_widens_nothing() -> None:
    assert content(Invalidation(l1={b"*", b"user:1"}, tags={b"t"}), ALL) == Content(clear=True)


def test_a_glob_over_tags_clears_because_subscribers_cannot_match_it() -> None:
    made = content(Invalidation(tags={b"t"}, tag_patterns={b"user:*"}), ALL)
    assert made == Content(clear=True, widened=1)


def test_a_tag_that_is_no_text_clears() -> None:
    assert content(Invalidation(tags={b"user:\xff", b"user:1"}), ALL) == Content(clear=True, widened=1)


def test_a_key_that_is_no_text_becomes_a_glob_around_the_bytes() -> None:
    made = content(Invalidation(keys={b"user:*\xff\xfe:\xe9t\xc3\xa9"}), ALL)
    assert made == Content(patterns=["user:[*]*:*té"], widened=1)


def test_a_glob_that_is_no_text_is_cut_before_its_first_special_character() -> None:
    made = content(Invalidation(l1={b"user:\xff:[a\xfe]*", b"list:[a\xfe]"}), ALL)
    assert made == Content(patterns=["list:*", "user:*"], widened=2)


def test_an_empty_content_is_one_heartbeat() -> None:
    parts, widened = split(Content(), 1024)
    assert [said(part)["keys"] for part in parts] == [[]]
    assert widened == 0


def test_a_name_that_fits_in_no_message_clears() -> None:
    parts, widened = split(Content(keys=["a", "b" * 1024], tags=["t"]), 1024)
    assert parts == [Content(clear=True)]
    assert widened == 1


texts = st.lists(st.text(max_size=120), max_size=40, unique=True)


@given(texts, texts, texts, st.integers(1024, 3000))
def test_a_split_loses_nothing_and_keeps_every_message_within_its_size(
    keys: list[str], globs: list[str], tags: list[str], most: int
) -> None:
    whole = Content(keys=keys, patterns=globs, tags=tags)
    parts, widened = split(whole, most)
    assert widened == 0
    assert [key for part in parts for key in part.keys] == keys
    assert [glob for part in parts for glob in part.patterns] == globs
    assert [tag for part in parts for tag in part.tags] == tags
    for part in parts:
        made = message(part, epoch="e" * 36, sequence=2**63, position="FFFFFFFF/FFFFFFFF", timestamp=10**13)
        assert len(made) <= most
        assert json.loads(made)["keys"] == part.keys


@given(st.sets(st.binary(max_size=30)), st.sets(st.binary(max_size=30)), st.sets(st.binary(max_size=30)))
def test_whatever_bytes_names_hold_messages_are_text_and_say_something(
    l1: set[bytes], keys: set[bytes], tags: set[bytes]
) -> None:
    made = content(Invalidation(l1=l1, keys=keys, tags=tags), ALL)
    assert bool(made) == bool(l1 or keys or tags)
    said(made)
    for glob in patterns(Content(keys=made.keys, patterns=made.patterns), 1024)[0]:
        json.loads(pattern_message(glob, 1).decode("utf-8", "strict"))


def test_patterns_are_escaped_keys_and_globs_once_each() -> None:
    made, widened = patterns(Content(keys=["user:*", "user:1"], patterns=["user:1", "list:*"]), 1024)
    assert made == ["list:*", "user:1", "user:[*]"]
    assert widened == 0


def test_everything_is_one_star() -> None:
    assert patterns(Content(clear=True), 1024) == (["*"], 0)


@pytest.mark.parametrize("character", ["a", "é", "𝄞", "\x01", '"'])
def test_a_pattern_that_is_too_long_is_cut_to_what_begins_like_it(character: str) -> None:
    glob = "user:" + character * 5000
    (made,), widened = patterns(Content(patterns=[glob]), 1024)
    assert widened == 1
    assert made.endswith("*")
    assert glob.startswith(made[:-1])
    assert len(pattern_message(made, 10**13)) <= 1024
