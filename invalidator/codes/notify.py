"""Codes about notifications, known with ``--online``."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Notifications (`source.type: notify`, `--online`)"

CODES: Final = (
    Code(
        "notifications-unheard",
        "error",
        "The server took LISTEN, and a notification that the check sent itself did not come back within 10 seconds.",
        "A connection pooler in transaction or statement mode gives LISTEN to a connection that is somebody else's a"
        " moment later, so the daemon would hear nothing, and everything would look well. `source.dsn` must lead past"
        " it; `lookups.dsn` may lead to it.",
    ),
)
