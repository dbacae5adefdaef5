"""A primary, its replica, and three sentinels that watch over them: real processes of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from invalidator.demo.servers import KeyValueServer, ServerMissing, find_valkey
from invalidator.demo.servers.locate import reachable
from invalidator.demo.servers.process import unprivileged_account
from invalidator.demo.servers.server import Server
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import missing

SERVICE = "mymaster"
SENTINELS = 3
PATIENT = {"down-after-milliseconds": 60_000, "failover-timeout": 60_000}
"""On a busy machine all five stand still now and then: nothing fails over before a test wants it."""
IMPATIENT = {"down-after-milliseconds": 1500, "failover-timeout": 5000}
"""A replica may have been cut off for ten times the first; after a tie they vote again in twice the second."""
CURIOUS = {"info-period": 200, "publish-period": 200, "tilt-period": 1000}
"""Untold, they look at the servers every 10 s, tell each other what they know every 2 s, and do nothing for 30 s after
they have stood still."""


class SentinelServer(Server):
    """One sentinel.

    Args:
        primary: the port that it begins with.
    """

    def __init__(self, primary: int) -> None:
        self._primary = primary
        super().__init__("sentinel", unprivileged_account())

    def _prepare(self) -> None:
        found = find_valkey()
        self._binary = reachable(found, found.parent, self._base.path, self._account)

    def _start(self, port: int) -> None:
        file = self._base / "sentinel.conf"
        if not file.exists():  # later it is the sentinel's own
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._base.path}\nlogfile ''\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary} 2\n"
                + "".join(f"sentinel {option} {SERVICE} {value}\n" for option, value in PATIENT.items())
            )
            file.chmod(0o666)

        def answers() -> bool:
            try:
                with redis.Redis(port=port, socket_timeout=1) as client:
                    return bool(client.ping())
            except redis.RedisError:
                return False

        self._run([self._binary, file, "--sentinel"], answers, account=self._account)
        with redis.Redis(port=port, socket_timeout=DEADLINE_SECONDS) as client:
            for option, value in CURIOUS.items():
                client.execute_command("SENTINEL", "DEBUG", option, value)


class Group:
    """All five; roles change by themselves."""

    def __init__(self) -> None:
        first = KeyValueServer()
        replica = KeyValueServer(None, "--replicaof", "127.0.0.1", str(first.port), "--repl-diskless-sync-delay", "0")
        self.servers = {first.port: first, replica.port: replica}
        self.sentinels = [SentinelServer(first.port) for _ in range(SENTINELS)]
        self.until_whole()

    @property
    def url(self) -> str:
        """For the settings of a target."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}/0"

    def primary(self) -> KeyValueServer:
        """The one that most of the sentinels name."""
        named = [self._named(sentinel) for sentinel in self.sentinels if sentinel.running]
        return self.servers[max(set(named), key=named.count)]

    def replica(self) -> KeyValueServer:
        """The other one."""
        return next(each for port, each in self.servers.items() if port != self.primary().port)

    def client(self, server: KeyValueServer) -> redis.Redis:
        """A client of one of the two."""
        return redis.Redis(port=server.port, socket_timeout=DEADLINE_SECONDS)

    def until_whole(self) -> None:
        """Return when all know each other, and the replica follows."""
        self.until(lambda: all(map(self._is_whole, self.sentinels)), "the sentinels know all of each other")
        with self.client(self.replica()) as client:
            self.until(lambda: client.info("replication").get("master_link_status") == "up", "the replica follows")

    def cut_replication(self) -> None:
        """From now on nothing that the primary takes reaches the replica."""
        with self.client(self.primary()) as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync", "-replicaof")
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            self.until(lambda: client.info("replication")["connected_slaves"] == 0, "the replica is cut off")

    def mend_replication(self) -> None:
        """Let every server that lives be followed again."""
        for server in self.servers.values():
            if server.running:
                with self.client(server) as client:
                    client.execute_command("ACL", "SETUSER", "default", "+psync", "+sync", "+replicaof")

    def fail_over(self) -> None:
        """Tell a sentinel to; returns when most name the other server."""
        before = self.primary().port
        with redis.Redis(port=self.sentinels[0].port, socket_timeout=DEADLINE_SECONDS) as client:
            # Until it knows the replica well enough it refuses, and has begun nothing.
            self.until(lambda: client.execute_command("SENTINEL", "FAILOVER", SERVICE), "a sentinel finds a replica")
        self.until(lambda: self.primary().port != before, "the sentinels fail over")

    def be_impatient(self) -> None:
        """From now on a primary that does not answer for a moment is replaced."""
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port, socket_timeout=DEADLINE_SECONDS) as client:
                for option, value in IMPATIENT.items():
                    client.execute_command("SENTINEL", "SET", SERVICE, option, value)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Return when it holds; fail after a while."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                if condition():
                    return
            except redis.RedisError:
                pass
            if time.monotonic() > deadline:
                pytest.fail(f"not within {DEADLINE_SECONDS} s: {what}\n{self.sentinels[0].log_tail()}")
            time.sleep(0.05)

    def close(self) -> None:
        """End all of it."""
        for server in (*self.sentinels, *self.servers.values()):
            server.close()

    def _named(self, sentinel: SentinelServer) -> int:
        with redis.Redis(port=sentinel.port, socket_timeout=DEADLINE_SECONDS) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def _is_whole(self, sentinel: SentinelServer) -> bool:
        with redis.Redis(port=sentinel.port, socket_timeout=DEADLINE_SECONDS, decode_responses=True) as client:
            seen = client.sentinel_master(SERVICE)
            return bool(seen["num-other-sentinels"] == SENTINELS - 1 and seen["num-slaves"] >= 1)


@pytest.fixture
def sentinel_group() -> Iterator[Group]:
    """A group of the test's own; local binaries only."""
    try:
        find_valkey()
    except ServerMissing as error:
        missing(str(error))
    group = Group()
    try:
        yield group
    finally:
        group.close()
