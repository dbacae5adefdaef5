"""Whether notifications really come back to us: a pooler in transaction mode takes LISTEN, and nothing is heard."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, LiteralString

from invalidator.errors import Unheard
from invalidator.model import Lsn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from invalidator.postgres.notify.listener import Listener
    from invalidator.postgres.side import SideConnection

_SEND: Final[LiteralString] = """
    SELECT pg_current_wal_insert_lsn()::text, extract(epoch FROM clock_timestamp())::float8,
           pg_notification_queue_usage(), pg_notify(%s, %s)
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """A notification of our own that is on its way."""

    sent: float
    """Unix seconds on our clock."""
    position: Lsn
    """What was committed before it and notified is heard before it: the server's queue is in the order of commits."""
    clock_offset_seconds: float
    """Clock of the server minus ours."""
    queue_usage: float
    """The share of the server's queue that is full."""

    @property
    def payload(self) -> bytes:
        """What it says."""
        return repr(self.sent).encode()


def own_channel() -> str:
    """A channel that nobody else listens to or knows."""
    return f"invalidator_{secrets.token_hex(12)}"


async def send(side: SideConnection, channel: str) -> Beat:
    """Notify; on another connection than the one that listens, or a pooler might deliver it by luck.

    Raises:
        SourceError, ConfigError: the server did not take it.
    """
    sent = time.time()
    position, at, usage, _ = (await side.fetch(_SEND, [channel, repr(sent)]))[0]
    # The server read its clock somewhere between our two readings: the middle is off by half a round trip.
    return Beat(sent, Lsn.parse(position), at - (sent + time.time()) / 2, usage)


async def prove(listener: Listener, side: SideConnection, channel: str, *, seconds: float) -> Beat:
    """Listen, notify, and wait until it comes back.

    Raises:
        Unheard: it does not.
        SourceError, ConfigError: a connection broke, or the server refused.
    """
    await listener.listen([channel])
    beat = await send(side, channel)
    async with must_be_heard(listener, seconds):
        await listener.heard(channel)
    return beat


@contextlib.asynccontextmanager
async def must_be_heard(listener: Listener, seconds: float) -> AsyncIterator[None]:
    """Wait no longer.

    Raises:
        Unheard: nothing came back, and the server answers all the same.
        SourceError, ConfigError: it does not answer either: it hangs, or the network is gone.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        await listener.fetch("SELECT 1")
        msg = (
            f"the server took LISTEN, and a notification of our own has not come back within {seconds:g} s: a "
            "connection pooler in transaction or statement mode stands between, and no notification passes it"
        )
        fix = "let source.dsn lead to the server itself, or to a pool in session mode   (lookups may use the pooler)"
        raise Unheard(msg, fix=fix) from None
