"""A Postgres cluster of our own on a free loopback port, ready for logical decoding."""

from __future__ import annotations

import os
import secrets
import signal
from typing import TYPE_CHECKING, Final, Literal

from invalidator.demo.servers.locate import find_postgres, reachable
from invalidator.demo.servers.process import ServerFailed, end, log_tail, spawn, unprivileged_account, wait_until
from invalidator.demo.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "shared_buffers": "16MB",
    "max_connections": "100",
    # A demo's and a test's data may be lost when the machine fails, not when Postgres does.
    "fsync": "off",
    "full_page_writes": "off",
    # No parallel plans and no timed statistics jobs: two cores are shared with everything else.
    "max_parallel_workers": "0",
    "log_min_messages": "warning",
    "cluster_name": "invalidator",
}
_INTERRUPT: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

StopMode = Literal["smart", "fast", "immediate"]


class PostgresServer(Server):
    """A running cluster with ``wal_level=logical``; everything of it is gone after :meth:`close`.

    As root it runs as ``postgres`` or ``nobody``. Its only user ``postgres`` has a random password, because
    the port can be reached by everybody on this machine.

    Args:
        binaries: the folder with ``postgres`` and ``initdb``; None takes what :func:`find_postgres` finds.
        settings: server settings, over those for tests and demo.

    Raises:
        ServerMissing: no binaries were given and none are found.
        ServerFailed: the cluster cannot be made or started; the message holds the log.
    """

    ending = signal.SIGQUIT

    def __init__(self, *, binaries: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._found = binaries
        self._password = secrets.token_hex(16)
        self._settings = {**_SETTINGS, **(settings or {})}
        super().__init__("pg", unprivileged_account())

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URI of the superuser for one database."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut down and wait for the end, in the sense of ``pg_ctl stop -m``.

        A fast shutdown waits for replication clients: stop from another thread if one of them is yours.
        """
        end(self._process, _INTERRUPT[mode])

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same port."""
        self.stop(mode)
        self.start()

    def _prepare(self) -> None:
        self._settings.setdefault("unix_socket_directories", str(self._base.path))
        self._data = self._base / "data"
        found = self._found or find_postgres()
        # bin, lib and share lie beside each other and belong together.
        tree = found.parent.parent
        self.binaries = reachable(found / "postgres", tree, self._base.path, self._account).parent
        self._initialise()

    def _initialise(self) -> None:
        secret = self._base / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password, encoding="ascii")
        if self._account is not None:
            os.chown(secret, self._account.uid, self._account.gid)
        command: list[str | Path] = [
            self.binaries / "initdb",
            "-D",
            self._data,
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
        ]
        command += [f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        with self._log.open("ab") as log:
            process = spawn(command, account=self._account, env=self._environment(), stdout=log)
        if process.wait() != 0:
            msg = f"initdb ended with code {process.returncode}:\n{self.log_tail()}"
            raise ServerFailed(msg)
        secret.unlink()

    def _environment(self) -> dict[str, str]:
        """Ours, without what would tell libpq or Postgres of another server."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {**kept, "LC_ALL": "C.UTF-8"}

    def _start(self, port: int) -> None:
        # After a kill the old backends need a moment to notice and to let the shared memory go.
        wait_until(lambda: self._started(port), what="the former server's shared memory is free")

    def _started(self, port: int) -> bool:
        """True once ready; False when it must be tried again."""
        options = [item for name, value in self._settings.items() for item in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self.binaries / "postgres", "-D", self._data, "-p", str(port), *options]
        with self._log.open("ab") as log:
            written = log.tell()
            process = self._process = spawn(
                command,
                account=self._account,
                env=self._environment(),
                stdout=log,
                last_signal=signal.SIGQUIT,  # an immediate shutdown also releases the System V segment
            )
        wait_until(lambda: process.poll() is not None or self._is_ready(process.pid), what="Postgres is ready")
        if process.poll() is None:
            return True
        text = log_tail(self._log, since=written)
        if "pre-existing shared memory block" in text or 'lock file "postmaster.pid" already exists' in text:
            return False
        raise self._ended(self.binaries / "postgres", text)

    def _is_ready(self, pid: int) -> bool:
        """What ``pg_ctl -w`` looks at: first line the pid, eighth the state (miscadmin.h, LOCK_FILE_LINE_*)."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
