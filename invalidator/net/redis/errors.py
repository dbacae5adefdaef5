"""What redis-py and servers say when something fails, as our errors."""

from __future__ import annotations

import re
import ssl
from typing import Final

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import MovedError, NoScriptError, ResponseError
from redis.exceptions import TimeoutError as DriverTimeoutError

from invalidator.errors import TargetError, TargetRejected, TargetUnavailable

NOT_NOW: Final = frozenset(
    {
        "BUSY",  # a script runs for too long
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",  # the last snapshot could not be written
        "NOREPLICAS",
        "OOM",
        "READONLY",  # a replica, or a primary that was demoted
        "TRYAGAIN",
        "UNBLOCKED",
    }
)
"""First words of error replies that a retry can cure. All others are refusals that only the operator can cure."""

_IN_SCRIPT: Final = re.compile(r": -([A-Z]+) ")


class ScriptMissing(TargetUnavailable):
    """The server does not have the script (any more): it must be sent in full."""


def translate(error: Exception, label: str) -> TargetError:
    """Our error for one of redis-py's."""
    code = code_of(error)
    # The server repeats what it was sent after these words: row values.
    text = str(error).partition(", with args beginning")[0][:300]
    message = f"{label}: {text if text.startswith(code) else f'{code} {text}'}"
    if isinstance(error, NoScriptError):
        return ScriptMissing(message, result="unavailable")
    if isinstance(error, DriverTimeoutError):
        return TargetUnavailable(f"{label}: {text}", result="timeout")
    if code in NOT_NOW:
        return TargetUnavailable(message, result="unavailable")
    if isinstance(error, MovedError) or code in {"MOVED", "ASK", "CROSSSLOT"}:
        return TargetRejected(f"{label}: is a node of a Redis Cluster, which is not supported yet")
    if _is_refused(error):
        return TargetRejected(message)
    return TargetUnavailable(f"{label}: {text}", result="connection")


def code_of(error: Exception) -> str:
    """The first word of an error reply, which tells its kind."""
    known: str | None = getattr(error, "status_code", None)  # redis-py cuts the words off that it knows
    text = str(error)
    # Redis before 7 tells what stopped a script behind many words: "ERR Error running script (...): -OOM ...".
    inner = _IN_SCRIPT.search(text) if text.startswith("Error running script") else None
    return inner[1] if inner else known or text.partition(" ")[0]


def _is_refused(error: Exception) -> bool:
    if _has_certificate_failure(error):
        return True
    if isinstance(error, DriverConnectionError):
        # redis-py files wrong credentials under connection errors, and no reply at all too.
        return getattr(error, "error_type", None) is not None and error.error_type.value == "auth"
    return isinstance(error, ResponseError)


def _has_certificate_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
