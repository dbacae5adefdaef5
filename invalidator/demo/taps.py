"""What the daemon did, seen from outside: at Redis by MONITOR, at L1 by its messages, at the edge by its log."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

if TYPE_CHECKING:
    from invalidator.demo.servers.varnish import VarnishServer

_HEARTBEAT = "heartbeat"


@dataclass(slots=True)
class Effects:
    """What was dropped, each name once, in the order in which it was seen."""

    unlinked: dict[str, None] = field(default_factory=dict)
    published: dict[str, None] = field(default_factory=dict)
    purged: dict[str, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.unlinked or self.published or self.purged)


class Taps:
    """Collects effects until they are taken."""

    def __init__(self) -> None:
        self._effects = Effects()
        self._marker = asyncio.Event()
        self._purge = asyncio.Event()
        self._client: Redis | None = None

    def take(self) -> Effects:
        """What was seen since the last call."""
        effects, self._effects = self._effects, Effects()
        self._purge.clear()
        return effects

    def published(self, message: dict[str, Any]) -> None:
        """An L1 message was heard."""
        names = [*message.get("keys", ()), *message.get("patterns", ()), *(f"#{t}" for t in message.get("tags", ()))]
        if message.get("clear"):
            names.append("*")
        self._effects.published.update(dict.fromkeys(names))

    def purged(self, tags: list[str]) -> None:
        """The edge was told to purge these tags."""
        self._effects.purged.update(dict.fromkeys(tags))
        self._purge.set()

    async def watch_redis(self, url: str, ready: asyncio.Event) -> None:
        """Note every key that is unlinked, until cancelled."""
        # Nothing may be done at Redis for long: a silent connection is no broken one.
        async with Redis.from_url(url, socket_timeout=None) as client, client.monitor() as monitor:
            self._client = client
            ready.set()
            async for seen in monitor.listen():
                words = seen["command"].split(" ")
                command = words[0].upper()
                if command == "UNLINK":
                    self._effects.unlinked.update(dict.fromkeys(w for w in words[1:] if _HEARTBEAT not in w))
                elif command == "ECHO":
                    self._marker.set()

    async def settle(self) -> None:
        """Return once everything that Redis has done before now was noted."""
        if self._client is None:
            return
        self._marker.clear()
        await self._client.echo("settle")
        async with asyncio.timeout(30):
            await self._marker.wait()

    async def purges_seen(self, within_seconds: float, quiet_seconds: float = 0.03) -> None:
        """Return once purges were noted since the last :meth:`take`; Varnish writes its log a little later.

        Args:
            within_seconds: give up, if there was none, after this long: what comes later would be taken for an effect
                of what is done next.
            quiet_seconds: without another one, that was all.
        """
        wait = within_seconds
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(wait):
                    await self._purge.wait()
                self._purge.clear()
                wait = quiet_seconds

    async def watch_varnish(self, server: VarnishServer) -> None:
        """Note the tags of every purge that Varnish logs, until cancelled."""
        process = server.watch_purges()
        if process.stdout is None:
            return
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
        try:
            while line := await reader.readline():
                self.purged([tag for tag in line.decode().split() if tag != "-"])
        finally:
            transport.close()
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()
