"""Keeps deliveries from waiting, batch after batch, for a lookup that is not answered."""

from __future__ import annotations

import random
from typing import Final

from invalidator.errors import LookupFailed
from invalidator.postgres.lookup_sessions import LookupNotAskedError

FIRST_SECONDS: Final = 0.2
MAX_SECONDS: Final = 30.0
_MAX_DOUBLINGS: Final = 10


class Breaker:
    """Of one lookup: open after a failure, for longer each time; then one question tries whether it is answered.

    A plan's questions are asked one after another, so there is never a second try at the same time.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._closed_at = 0.0
        self._failure: LookupFailed | None = None

    def check(self, now: float) -> None:
        """Let a question pass, or not.

        Args:
            now: seconds of a monotonic clock.

        Raises:
            LookupNotAskedError: not now; says what the last question met.
        """
        if self._failure is not None and now < self._closed_at:
            raise LookupNotAskedError(str(self._failure), reason=self._failure.reason)

    def failed(self, error: LookupFailed, now: float) -> None:
        """A question was not answered; of one that was not asked nothing follows."""
        if isinstance(error, LookupNotAskedError):
            return
        bound = min(MAX_SECONDS, FIRST_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, _MAX_DOUBLINGS)
        self._failure = error
        self._closed_at = now + random.uniform(bound / 2, bound)  # noqa: S311

    def answered(self) -> None:
        """All is well."""
        self._failures = 0
        self._failure = None
