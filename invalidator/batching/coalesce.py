"""Merges invalidations: nothing is lost, duplicates are gone, the stronger form wins."""

from __future__ import annotations

from collections.abc import Sequence

from invalidator.model import Batch, Invalidation


def add(into: Invalidation, other: Invalidation) -> None:
    """Make ``into`` cover everything that ``other`` names; ``other`` is left as it is."""
    into.keys |= other.keys
    into.tags |= other.tags
    into.key_patterns |= other.key_patterns
    into.tag_patterns |= other.tag_patterns
    into.l1 |= other.l1
    into.cdn |= other.cdn
    into.cdn_soft |= other.cdn_soft
    into.cdn_soft -= into.cdn
    into.cdn_all = into.cdn_all or other.cdn_all
    for delays, part in other.repeats.items():
        add(into.repeated(delays), part)


def merge(batches: Sequence[Batch]) -> Batch:
    """One batch that covers consecutive ones: the newest end, the oldest commit, the newest heartbeat."""
    if len(batches) == 1:
        return batches[0]
    invalidation = Invalidation()
    for batch in batches:
        add(invalidation, batch.invalidation)
    return Batch(
        invalidation,
        end=max((batch.end for batch in batches if batch.end is not None), default=None),
        oldest_commit_time=min(
            (batch.oldest_commit_time for batch in batches if batch.oldest_commit_time is not None), default=None
        ),
        heartbeat=max((batch.heartbeat for batch in batches if batch.heartbeat is not None), default=None),
        is_repeat=all(batch.is_repeat for batch in batches),
    )
