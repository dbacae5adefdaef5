"""Drops by hand what an operator names, through the same targets in the same order as everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from invalidator.batching import coalesce
from invalidator.model import Batch, Invalidation

if TYPE_CHECKING:
    from invalidator.ports import TagGrammar
    from invalidator.telemetry.events import Events

KINDS: Final = {"keys": "keys", "tags": "tags", "patterns": "key_patterns", "l1": "l1", "cdn": "cdn"}
"""What may be named → where it belongs in an invalidation."""
MAX_NAMES: Final = 100_000
PATIENCE_SECONDS: Final = 20.0


class Coarse(Protocol):
    """Gives coarse forms; see ``Engine.coarse``."""

    def coarse(
        self, tables: Collection[str] | None = None, rules: Collection[str] | None = None
    ) -> Iterable[tuple[str, Invalidation]]:
        """Rule and coarse form."""
        ...


class Deliver(Protocol):
    """Takes a batch; see ``Delivery.deliver``."""

    async def __call__(self, batch: Batch, on_finished: Callable[[], None]) -> None:
        """Accept it."""
        ...


class Purging:
    """Takes the orders of ``invalidator purge``.

    Args:
        deliver: to all targets.
        engine: the rules in force.
        grammars: what the configured CDNs take as a tag.
        events: what is told.
    """

    def __init__(
        self, deliver: Deliver, engine: Callable[[], Coarse], grammars: Sequence[TagGrammar], events: Events
    ) -> None:
        self._deliver = deliver
        self._engine = engine
        self._grammars = tuple(grammars)
        self._events = events

    async def purge(self, order: Any) -> dict[str, Any]:
        """Drop what the order names, and answer when every required target has, or after a while.

        Args:
            order: lists by kind (see ``KINDS``), ``rules`` for their coarse forms, ``all`` for those of all rules.

        Raises:
            ValueError: it cannot be understood, or names what no target takes; nothing was dropped.
        """
        invalidation, rules = self._understood(order)
        finished = asyncio.Event()
        self._events.purge_ordered(items=len(invalidation), rules=rules)
        is_applied = True
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._deliver(Batch(invalidation), finished.set)
                await finished.wait()
        except TimeoutError:
            is_applied = False
        return {"items": len(invalidation), "rules": rules, "applied": is_applied}

    def _understood(self, order: Any) -> tuple[Invalidation, list[str]]:
        if not isinstance(order, dict):
            msg = 'an object is needed, such as {"keys": ["user:42"]}'
            raise ValueError(msg)  # noqa: TRY004  (what came over the socket)
        if unknown := sorted(order.keys() - KINDS.keys() - {"rules", "all"}):
            msg = f"unknown field '{unknown[0]}': known are {', '.join(KINDS)}, rules and all"
            raise ValueError(msg)
        invalidation = Invalidation()
        for kind, group in KINDS.items():
            getattr(invalidation, group).update(_names(order.get(kind, []), kind))
        for tag in invalidation.cdn:
            self._check_tag(tag)
        rules = self._widened(order, invalidation)
        if not invalidation:
            msg = "nothing is named"
            raise ValueError(msg)
        return invalidation, rules

    def _widened(self, order: dict[str, Any], invalidation: Invalidation) -> list[str]:
        wanted = {str(name) for name in _names(order.get("rules", []), "rules", encode=False)}
        if not wanted and not order.get("all"):
            return []
        forms = dict(self._engine().coarse(rules=None if order.get("all") else wanted))
        if missing := sorted(wanted - forms.keys()):
            msg = f"there is no rule '{missing[0]}' in force"
            raise ValueError(msg)
        for form in forms.values():
            coalesce.add(invalidation, form)
        return sorted(forms)

    def _check_tag(self, tag: bytes) -> None:
        for grammar in self._grammars:
            if not grammar.allows(tag):
                msg = f"{grammar.provider} takes no such tag: {grammar.description}, at most {grammar.max_bytes} bytes"
                raise ValueError(msg)


def _names(given: Any, kind: str, *, encode: bool = True) -> list[Any]:
    if not isinstance(given, list) or not all(isinstance(name, str) and name for name in given):
        msg = f"'{kind}' must be a list of texts that are not empty"
        raise ValueError(msg)
    if len(given) > MAX_NAMES:
        msg = f"'{kind}' holds {len(given)} names; at most {MAX_NAMES} at once"
        raise ValueError(msg)
    return [name.encode("utf-8", "surrogateescape") for name in given] if encode else given
