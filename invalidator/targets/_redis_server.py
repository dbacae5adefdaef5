"""What a Redis says about itself, for the probes of the targets that are one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from invalidator.errors import TargetRejected
from invalidator.net.redis import RedisClient

_VERSIONS: Final = (  # relatives tell a redis_version too, for programs that ask for nothing else
    ("dragonfly_version", "Dragonfly"),
    ("valkey_version", "Valkey"),
    ("redis_version", "Redis"),
)


@dataclass(frozen=True, slots=True)
class About:
    """The answer of INFO, as far as we are allowed to ask."""

    values: Mapping[str, str]

    @property
    def version(self) -> str:
        """Product and version; the bare product when the server keeps it to itself."""
        for key, product in _VERSIONS:
            if key in self.values:
                return f"{product} {self.values[key].removeprefix('df-').removeprefix('v')}"
        return "Redis"

    @property
    def incarnation(self) -> str | None:
        """Another one after a restart and after a fail-over; None when the server does not tell."""
        run, replication = self.values.get("run_id"), self.values.get("master_replid")
        return None if run is None else f"{run} {replication or ''}"

    @property
    def eviction_policy(self) -> str | None:
        """What goes when memory is full; None when nothing bounds the memory, or that is not known."""
        if self.values.get("maxmemory", "0") == "0":
            return None
        return self.values.get("maxmemory_policy")


async def about(client: RedisClient) -> About:
    """Ask the server.

    Raises:
        TargetUnavailable: no answer.
    """
    try:
        reply = await client.execute(b"INFO")
    except TargetRejected:  # INFO is @dangerous in ACLs: many roles may not
        return About({})
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return About({key: value.strip() for key, colon, value in pairs if colon})


async def timed(client: RedisClient, *command: bytes) -> str:
    """Run a command and tell how long its answer took.

    Raises:
        TargetUnavailable, TargetRejected: as ``RedisClient.execute``.
    """
    await client.execute(b"PING")  # the connection is open now and does not count
    begun = time.perf_counter()
    await client.execute(*command)
    milliseconds = (time.perf_counter() - begun) * 1000
    return f"{command[0].decode()} {milliseconds:.1f} ms"
