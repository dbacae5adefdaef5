"""A connection to the primary of a Redis or one of its relatives, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Final

from invalidator.errors import TargetError
from invalidator.net.redis.connection import RedisConnection
from invalidator.net.redis.errors import ScriptMissing
from invalidator.net.redis.primary import Primary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.net.redis.options import RedisOptions
    from invalidator.net.redis.replies import Reply

SENTINEL_SECONDS: Final = 0.5
"""Between two questions whether the primary is still the one that we are connected to."""


class Script:
    """A Lua script, called by its hash.

    Args:
        text: the source, as in its file.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


class RedisClient(RedisConnection):
    """Reads the secrets and asks the sentinels, if there are any, each time before it connects.

    Args:
        options: where, and how long to wait.
    """

    def __init__(self, options: RedisOptions) -> None:
        self._primary = Primary(options)
        super().__init__(self._primary.locate, options, self._primary.label)

    async def call(self, script: Script, keys: Sequence[bytes], *arguments: bytes) -> Reply:
        """Run a script on the server; its text travels only when the server does not know it.

        Raises:
            TargetUnavailable: no reply, or one that says "not now".
            TargetRejected: the server refuses the script, or a command in it.
        """
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return await self.execute(b"EVALSHA", script.sha, *rest)
        except ScriptMissing:
            return await self.execute(b"EVAL", script.text, *rest)

    async def run(self) -> None:
        """Leave a primary that the sentinels have replaced, until cancelled; without sentinels return at once.

        Nothing tells us of it: a primary that is cut off from them, together with us, goes on as one.
        """
        while self._primary.may_move:
            await asyncio.sleep(SENTINEL_SECONDS)
            connection = self._connection
            if connection is None:
                continue
            with contextlib.suppress(TargetError):
                if await self._primary.has_moved() and self._connection is connection:
                    # Not under the lock: an exchange with a server that is gone would hold it until its timeout.
                    await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the connection, and those to the sentinels; a command after this opens new ones."""
        await super().close()
        await self._primary.close()
