"""What a provider's purge call can take, as data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rate:
    """A sustained rate and what may go out at once after a pause."""

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider's purge call can take: data, obeyed by the target and checked by the contract suite."""

    max_tags: int
    """In one call."""
    rate: Rate
    """What the provider allows, or less."""
    max_bytes: int | None = None
    """Of the list of tags as written in one call."""
    written_in: Literal["json", "header"] = "json"
    """How a tag is written: as a JSON string with a comma, or as it is with one separator."""
    charged_per: Literal["call", "tag"] = "call"
    """What the rate counts."""
    soft: bool = False
    """Tags can be marked stale instead of removed; without it, a soft purge is a purge."""
    everything: bool = False
    """Everything can be purged in one call."""
    case_sensitive: bool = True
    """``A`` and ``a`` are two tags."""
    concurrency: int = 2
    """Calls at the same time."""

    def size(self, tag: str) -> int:
        """Bytes that a tag takes in a call, its separator included."""
        return len(json.dumps(tag) if self.written_in == "json" else tag) + 1

    def chunks(self, tags: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Cut tags into the fewest calls that respect ``max_tags`` and ``max_bytes``, in order."""
        chunk: list[str] = []
        size = 0
        for tag in tags:
            added = self.size(tag)
            full = self.max_bytes is not None and size + added > self.max_bytes
            if chunk and (full or len(chunk) == self.max_tags):
                yield tuple(chunk)
                chunk, size = [], 0
            chunk.append(tag)
            size += added
        if chunk:
            yield tuple(chunk)
