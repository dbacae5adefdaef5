"""How long to wait: between two attempts, and for whichever comes first of an event and a time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from invalidator.errors import TargetThrottled

if TYPE_CHECKING:
    from invalidator.errors import TargetError
    from invalidator.ports import Clock, RetryOptions


def retry_seconds(error: TargetError, attempt: int, retry: RetryOptions) -> float:
    """Full jitter: a random wait under a bound that doubles, so that many daemons do not knock together.

    A target that asked for a pause gets that before.
    """
    bound = min(retry.max_delay_seconds, retry.initial_delay_seconds * 2 ** min(attempt - 1, 30))
    wait = random.uniform(0, bound)  # noqa: S311  (jitter, not a secret)
    return wait + error.retry_after_seconds if isinstance(error, TargetThrottled) else wait


async def wait(event: asyncio.Event, clock: Clock, seconds: float | None) -> None:
    """Return when the event is set or so many seconds have passed; None: for the event alone."""
    happened = asyncio.ensure_future(event.wait())
    sleep = asyncio.ensure_future(clock.sleep(seconds)) if seconds is not None else None
    try:
        await asyncio.wait([happened] if sleep is None else [happened, sleep], return_when=asyncio.FIRST_COMPLETED)
    finally:
        happened.cancel()
        if sleep is not None:
            sleep.cancel()
