"""Globs for targets: escaping, single names, and patterns that another one covers."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.targets._globs import escape, literal, literal_prefix, uncovered

names = st.binary(max_size=20) | st.text("ab*?[]\\^-!x", max_size=12).map(str.encode)


@given(names)
def test_an_escaped_name_stands_for_just_that_name(name: bytes) -> None:
    assert literal(escape(name)) == name


@given(names, names)
def test_an_escaped_name_matches_itself_and_nothing_else_in_fnmatch(name: bytes, other: bytes) -> None:
    glob = escape(name).decode("latin-1")
    assert fnmatch.fnmatchcase(name.decode("latin-1"), glob)
    assert fnmatch.fnmatchcase(other.decode("latin-1"), glob) == (name == other)


@pytest.mark.parametrize("glob", [b"*", b"user:*", b"user:?", b"user:[ab]", b"user:[*", b"user:\\*", b"[*]*", b"[^*]"])
def test_a_glob_that_may_match_several_is_no_single_name(glob: bytes) -> None:
    assert literal(glob) is None


def test_the_literal_prefix_ends_at_the_first_special_character() -> None:
    assert literal_prefix(b"user:[*]:1") == b"user:"
    assert literal_prefix(b"user:1") == b"user:1"


def test_a_prefix_glob_covers_what_begins_with_it() -> None:
    assert uncovered({b"user:*", b"user:7:*", b"user:7", b"user:?x*", b"order:*"}) == [b"user:*", b"order:*"]


def test_everything_covers_everything() -> None:
    assert uncovered({b"*", b"a*", b"[*]"}) == [b"*"]


def test_an_escaped_star_covers_nothing() -> None:
    assert sorted(uncovered({b"user:[*]", b"user:[*]x", b"user:[[]*"})) == sorted(
        [b"user:[*]", b"user:[*]x", b"user:[[]*"]
    )
