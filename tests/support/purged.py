"""A CDN behind a daemon: it is down when it is told so, and remembers its purges."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.daemon import ITEM_RULE, Stack
from tests.support.http import Received, Reply, ScriptedServer, accepted

CDN_RULE: Final[dict[str, Any]] = ITEM_RULE | {
    "invalidate": {"keys": ["item:{id}"], "cdn": ["item-{id}"]},
    "coarse": {"cdn": ["items"]},
}


class Cdn:
    """The stand-in."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.is_down = False
        self.purged: set[str] = set()
        server.otherwise = self._answer

    def _answer(self, request: Received) -> Reply:
        if self.is_down:
            return Reply(503)
        self.purged.update(request.tags())
        return accepted()

    async def has_purged(self, *tags: str) -> None:
        """Return when it has purged all of these."""
        count = 0
        while not self.purged.issuperset(tags):
            count = max(count, len(self.server.requests)) + 1
            await self.server.received(count)

    def stand_behind(self, stack: Stack, *, repeat_after_seconds: list[float]) -> None:
        """Make it the stack's target ``edge``, beside Redis, with a rule that has tags."""
        stack.rules = [CDN_RULE]
        stack.targets = {
            "redis": stack.targets["redis"],
            "edge": {
                "type": "varnish",
                "url": self.server.url,
                "health_path": None,
                "rate_per_second": 1e6,
                "rate_burst": 1e6,
                "repeat_after_seconds": repeat_after_seconds,
                "retry": {"max_delay_seconds": 0.3},
            },
        }


@pytest.fixture
def cdn(http_server: ScriptedServer) -> Cdn:
    """One that is up, and behind nothing yet."""
    return Cdn(http_server)
