"""What is to be applied again, and when. Decides; the caller brings the time."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

What = TypeVar("What")


class Schedule(Generic[What]):
    """Repeats in the order in which they are due.

    Args:
        max_items: names that may wait in here; beyond it the earliest are due before their time.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._heap: list[tuple[float, int, int, What]] = []
        self._order = itertools.count()
        self.items = 0
        """Names that wait, over all repeats."""

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due(self) -> float | None:
        """When the earliest is due, in the caller's seconds; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def add(self, due: float, items: int, what: What) -> None:
        """Put one repeat of that many names in its place."""
        heapq.heappush(self._heap, (due, next(self._order), items, what))
        self.items += items

    def pop(self, now: float) -> tuple[What, float] | None:
        """The next repeat that is to be applied, and how many seconds before its time (0: it is due)."""
        if not self._heap or (self._heap[0][0] > now and self.items <= self._max_items):
            return None
        due, _, items, what = heapq.heappop(self._heap)
        self.items -= items
        return what, max(0.0, due - now)
