from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.targets.cdn._capabilities import Capabilities, Rate

RATE = Rate(1, 1)


def test_a_chunk_holds_as_many_tags_as_a_call_takes_and_not_one_more() -> None:
    capabilities = Capabilities(max_tags=3, rate=RATE)
    assert list(capabilities.chunks("abc")) == [("a", "b", "c")]
    assert list(capabilities.chunks("abcd")) == [("a", "b", "c"), ("d",)]
    assert list(capabilities.chunks([])) == []


def test_a_header_of_exactly_the_limit_is_one_call_and_one_byte_more_is_two() -> None:
    capabilities = Capabilities(max_tags=100, rate=RATE, max_bytes=10, written_in="header")
    assert list(capabilities.chunks(["1234", "6789"])) == [("1234", "6789")]
    assert list(capabilities.chunks(["1234", "67890"])) == [("1234",), ("67890",)]


def test_a_json_tag_counts_with_its_quotes_and_escapes() -> None:
    capabilities = Capabilities(max_tags=100, rate=RATE)
    assert capabilities.size("abc") == len('"abc",')
    assert capabilities.size('a"\\') == len('"a\\"\\\\",')


@given(
    tags=st.lists(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)),
    max_tags=st.integers(1, 10),
    max_bytes=st.integers(64, 200),
)
def test_chunks_lose_nothing_keep_the_order_and_obey_both_limits(
    tags: list[str], max_tags: int, max_bytes: int
) -> None:
    capabilities = Capabilities(max_tags=max_tags, rate=RATE, max_bytes=max_bytes)
    chunks = list(capabilities.chunks(tags))
    assert [tag for chunk in chunks for tag in chunk] == tags
    for chunk in chunks:
        assert 1 <= len(chunk) <= max_tags
        assert len(json.dumps(chunk, separators=(",", ":"))) - 1 <= max_bytes


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1), st.integers(1, 5))
def test_no_two_neighbours_would_have_fitted_into_one_call(tags: list[str], max_tags: int) -> None:
    capabilities = Capabilities(max_tags=max_tags, rate=RATE, max_bytes=12, written_in="header")
    chunks = list(capabilities.chunks(tags))
    for left, right in itertools.pairwise(chunks):
        added = (*left, right[0])
        assert len(added) > max_tags or sum(map(capabilities.size, added)) > 12


@pytest.mark.parametrize("written_in", ["json", "header"])
def test_a_tag_longer_than_the_limit_goes_alone(written_in: str) -> None:
    capabilities = Capabilities(max_tags=9, rate=RATE, max_bytes=8, written_in=written_in)  # type: ignore[arg-type]
    assert list(capabilities.chunks(["a", "x" * 20, "b"])) == [("a",), ("x" * 20,), ("b",)]
