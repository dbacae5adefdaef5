"""How often a provider may be asked: a token bucket that is told the time."""

from __future__ import annotations

from invalidator.targets.cdn._capabilities import Rate


class TokenBucket:
    """Hands out tokens in the order they are asked for; holds no clock and never waits itself.

    Args:
        rate: how fast tokens come, and how many there are at most (and at first).
        now: monotonic seconds.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = rate.burst
        self._at = now

    def take(self, tokens: float, now: float) -> float:
        """Take tokens and return the seconds to wait before using them, 0 when they are there.

        The bucket goes into debt for them, so who asks later waits longer, and a call that needs more than a
        full bucket waits its turn instead of for ever.
        """
        self._tokens = min(self._rate.burst, self._tokens + (now - self._at) * self._rate.per_second) - tokens
        self._at = now
        return max(0.0, -self._tokens / self._rate.per_second)
