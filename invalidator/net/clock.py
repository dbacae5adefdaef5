"""The machine's clock, for parts that take a clock so that tests can turn it."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Time as the operating system and the event loop tell it."""

    def time(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        await asyncio.sleep(seconds)
