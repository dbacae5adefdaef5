"""What happened last, for whoever watches: written only while somebody does, and bounded, however slowly he reads."""

from __future__ import annotations

import contextlib
from collections import deque
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from invalidator.model import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from invalidator.model import Applied, Batch, Invalidation

MAX_KEPT: Final = 500
MAX_NAMES: Final = 50
"""Of each kind of name; the others are counted."""
MAX_CHARACTERS: Final = 300
"""Of each name and text."""

_KINDS: Final = {
    Layer.L2: ("keys", "tags", "key_patterns", "tag_patterns"),
    Layer.L1: ("l1",),
    Layer.L3: ("cdn", "cdn_soft"),
}


class Happenings:
    """A ring of numbered records, one for all watchers: each remembers the number up to which it has read."""

    def __init__(self) -> None:
        self.number = 0
        """Of the newest record."""
        self.watchers = 0
        self._kept: deque[dict[str, Any]] = deque(maxlen=MAX_KEPT)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Keep records as long as this is entered."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1
            if not self.watchers:
                self._kept.clear()

    def after(self, number: int) -> list[dict[str, Any]]:
        """The records with higher numbers that are still kept, the oldest first."""
        count = min(self.number - number, len(self._kept))
        return list(islice(self._kept, len(self._kept) - count, None))

    def applied(
        self,
        target: str,
        layer: Layer,
        batch: Batch,
        applied: Applied,
        *,
        at: float,
        seconds: float,
        age_seconds: float | None,
    ) -> None:
        """A target applied a batch. Call it only while there are watchers."""
        named, count = _named(batch.invalidation, layer)
        self._add(
            {
                "record": "applied",
                "at": at,
                "target": target,
                "layer": layer.value,
                "invalidation": named,
                "names": count,
                "removed": applied.removed,
                "receivers": applied.receivers,
                "widened": applied.widened,
                "is_deferred": applied.is_deferred,
                "is_repeat": batch.is_repeat,
                "seconds": round(seconds, 6),
                "age_seconds": None if age_seconds is None else round(age_seconds, 6),
            }
        )

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take a finished line of the log, as a processor of structlog, and pass it on."""
        if self.watchers:
            facts = {name: value for name, value in event.items() if name not in ("ts", "level", "event")}
            line = {"level": event.get("level"), "event": event.get("event"), "facts": facts}
            at = datetime.fromisoformat(event["ts"]).timestamp()
            self._add({"record": "event", "at": at} | line)
        return event

    def _add(self, record: dict[str, Any]) -> None:
        self.number += 1
        self._kept.append(record)


def _named(invalidation: Invalidation, layer: Layer) -> tuple[dict[str, Any], int]:
    """Some names of each kind that belongs to the layer, and how many there are in all."""
    named: dict[str, Any] = {}
    count = 0
    for kind in _KINDS[layer]:
        group: set[bytes] = getattr(invalidation, kind)
        if group:
            count += len(group)
            named[kind] = sorted(_text(name) for name in islice(group, MAX_NAMES))
    if layer is Layer.L3 and invalidation.cdn_all:
        count += 1
        named["cdn_all"] = True
    return named, count


def _text(name: bytes) -> str:
    text = name[:MAX_CHARACTERS].decode("utf-8", "backslashreplace")
    return text if len(name) <= MAX_CHARACTERS else text + "…"
