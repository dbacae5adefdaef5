"""A physical standby of a server of the test's own."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from invalidator.demo.servers import PostgresServer
from invalidator.demo.servers.process import ServerFailed, spawn


class Standby(PostgresServer):
    """Follows another cluster by streaming; readable.

    Args:
        primary: the cluster that it follows.
    """

    def __init__(self, primary: PostgresServer) -> None:
        self._primary = primary
        super().__init__(binaries=primary.binaries)

    def _initialise(self) -> None:
        self._password = urlsplit(self._primary.dsn()).password or ""
        command: list[str | Path] = [self.binaries / "pg_basebackup", "-d", self._primary.dsn(), "-D", self._data]
        command += ["-R", "-X", "stream", "-c", "fast", "--no-sync"]
        with self._log.open("ab") as log:
            process = spawn(command, account=self._account, env=self._environment(), stdout=log)
        if process.wait() != 0:
            msg = f"pg_basebackup ended with code {process.returncode}:\n{self.log_tail()}"
            raise ServerFailed(msg)
