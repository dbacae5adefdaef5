"""Every error this package raises, by who has to act.

    InvalidatorError
    ├── ConfigError            the operator edits settings, rules or the database; exit code 78
    │   └── Unheard              a pooler stands between us and notifications
    ├── SourceError
    │   ├── SourceDisconnected   we reconnect, with jitter
    │   ├── SlotInUse            another daemon is active: we stand by
    │   ├── SlotLost             the stream has a hole: the operator decides
    │   └── ProtocolError        a bug, or a newer server: stop with the position kept
    ├── LookupFailed             nobody at once: the rule widens, and the operator is told
    ├── JournalUnusable          nobody at once: CDN work is confirmed late, and the operator is told
    └── TargetError
        ├── TargetUnavailable    the same call again, with backoff
        ├── TargetThrottled      the same call again, not before ``retry_after_seconds``
        └── TargetRejected       the target refuses what we send: the operator acts, nothing is dropped
            └── RecordTaken        another database's record has our name: nothing is confirmed

Driver errors become these in ``net/`` and ``postgres/`` and nowhere else. A message holds the facts (name,
position, limit) and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from invalidator.model import Invalidation, WidenReason


class InvalidatorError(Exception):
    """Anything this package raises on purpose."""


class ConfigError(InvalidatorError):
    """Settings, rules or the database's set-up are wrong; nothing was started.

    Args:
        message: what is wrong, complete and ready to print (may have several lines).
        fix: what to type to mend it (SQL, YAML or a command), if that is known.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message}\n   = fix: {fix}")
        self.fix = fix


class Unheard(ConfigError):  # noqa: N818  (a state of the connection)
    """The server took LISTEN, and no notification comes back to us."""


class SourceError(InvalidatorError):
    """The source cannot go on as it is."""


class SourceDisconnected(SourceError):  # noqa: N818  (a state of the stream, not a mistake)
    """The stream ended; what is not confirmed comes again after reconnecting.

    Args:
        message: what was seen.
        reason: a word from a fixed set, used as a metric label.
    """

    def __init__(self, message: str, *, reason: str = "connection") -> None:
        super().__init__(message)
        self.reason = reason


class SlotInUse(SourceError):  # noqa: N818
    """Another process streams from the slot; this one stands by.

    Args:
        message: what the server said.
        holder_pid: the server process that holds the slot, if it said so.
        system: of which database the slot is, as in ``StreamStart``; None: nobody asked.
    """

    def __init__(self, message: str, *, holder_pid: int | None = None, system: str | None = None) -> None:
        super().__init__(message)
        self.holder_pid = holder_pid
        self.system = system


class SlotLost(SourceError):  # noqa: N818
    """The slot no longer holds the WAL that was not confirmed: changes are missing."""


class ProtocolError(SourceError):
    """The stream holds something this version does not understand; the position is kept."""


class LookupFailed(InvalidatorError):  # noqa: N818
    """A lookup was not answered, or with something that its rule cannot use; the rule's coarse form is applied.

    Args:
        message: what was seen, without row values.
        reason: why the rule widens.
    """

    def __init__(self, message: str, *, reason: WidenReason) -> None:
        super().__init__(message)
        self.reason = reason


class JournalUnusable(InvalidatorError):  # noqa: N818
    """The journal did not take or give work; its targets are applied as if there was none.

    Args:
        message: what was seen.
        reason: a word from a fixed set: full, disk_full, read_only, locked, damaged, failed, foreign, newer.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class TargetError(InvalidatorError):
    """A target did not apply a batch.

    Args:
        message: what was seen, without secrets and without row values.
        result: a word from the fixed set timeout, connection, unavailable, rate_limited, http_4xx, http_5xx,
            rejected: the metric label.
        remaining: what is still to be applied when a part was; None means all of it.
    """

    result = "connection"

    def __init__(self, message: str, *, result: str | None = None, remaining: Invalidation | None = None) -> None:
        super().__init__(message)
        if result is not None:
            self.result = result
        self.remaining = remaining


class TargetUnavailable(TargetError):  # noqa: N818
    """The target cannot be reached or cannot work now: try again."""


class TargetThrottled(TargetError):  # noqa: N818
    """The target asks us to slow down.

    Args:
        message: what was seen.
        retry_after_seconds: not before this many seconds.
        remaining: what is still to be applied.
    """

    result = "rate_limited"

    def __init__(self, message: str, *, retry_after_seconds: float, remaining: Invalidation | None = None) -> None:
        super().__init__(message, remaining=remaining)
        self.retry_after_seconds = retry_after_seconds


class TargetRejected(TargetError):  # noqa: N818
    """The target refuses the request itself (credentials, permission, unknown service).

    Retried slowly and reported as a problem, because only the operator can mend it.
    """

    result = "rejected"
    fix: str | None = None
    """What to type, where the target knows it."""


class RecordTaken(TargetRejected):
    """A daemon of another database keeps its record at this target under the same name."""

    result = "taken"


def most_telling(failures: ExceptionGroup[InvalidatorError]) -> InvalidatorError:
    """The failure that the operator should read: what only an operator can mend comes first."""
    leaves = list(_leaves(failures))
    return min(leaves, key=lambda error: not isinstance(error, (ConfigError, SlotLost)))


def _leaves(failures: ExceptionGroup[InvalidatorError]) -> Iterator[InvalidatorError]:
    for error in failures.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
