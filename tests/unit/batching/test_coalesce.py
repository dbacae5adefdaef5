"""Merging loses no name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invalidator.batching import coalesce
from invalidator.model import Batch, Invalidation, Lsn

names = st.frozensets(st.binary(min_size=1, max_size=3), max_size=5).map(set)


@st.composite
def invalidations(draw: st.DrawFn, depth: int = 1) -> Invalidation:
    repeats = {}
    if depth:
        repeats = draw(st.dictionaries(st.sampled_from([(1.0,), (1.0, 5.0)]), invalidations(depth - 1), max_size=2))
    return Invalidation(
        keys=draw(names),
        tags=draw(names),
        key_patterns=draw(names),
        tag_patterns=draw(names),
        l1=draw(names),
        cdn=draw(names),
        cdn_soft=draw(names),
        cdn_all=draw(st.booleans()),
        repeats=repeats,
    )


@given(st.lists(invalidations(), min_size=1, max_size=5))
def test_a_merged_batch_names_everything_that_its_parts_name_and_nothing_else(parts: list[Invalidation]) -> None:
    merged = coalesce.merge([Batch(part) for part in parts]).invalidation

    for kind in ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn"):
        assert getattr(merged, kind) == set().union(*(getattr(part, kind) for part in parts))
    soft = set().union(*(part.cdn_soft for part in parts))
    if len(parts) > 1:
        assert merged.cdn_soft == soft - merged.cdn
    assert merged.cdn_all == any(part.cdn_all for part in parts)
    for delays in {d for part in parts for d in part.repeats}:
        keys = set().union(*(part.repeats[delays].keys for part in parts if delays in part.repeats))
        assert merged.repeats[delays].keys == keys


def test_merging_leaves_the_parts_as_they_are() -> None:
    first, second = Invalidation(keys={b"a"}), Invalidation(keys={b"b"})

    coalesce.merge([Batch(first), Batch(second)])

    assert (first.keys, second.keys) == ({b"a"}, {b"b"})


def test_a_merged_batch_reaches_to_the_newest_end_and_is_as_old_as_its_oldest_commit() -> None:
    merged = coalesce.merge(
        [
            Batch(Invalidation(), Lsn(10), oldest_commit_time=100.0, heartbeat=1.0),
            Batch(Invalidation(), None, oldest_commit_time=90.0),
            Batch(Invalidation(), Lsn(30), heartbeat=3.0, is_repeat=True),
        ]
    )

    assert (merged.end, merged.oldest_commit_time, merged.heartbeat) == (Lsn(30), 90.0, 3.0)
    assert not merged.is_repeat


def test_a_tag_that_is_purged_need_not_be_marked_stale_too() -> None:
    merged = coalesce.merge([Batch(Invalidation(cdn={b"a"})), Batch(Invalidation(cdn_soft={b"a", b"b"}))])

    assert merged.invalidation.cdn_soft == {b"b"}
