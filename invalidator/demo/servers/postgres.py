"""A Postgres cluster of our own on a free loopback port, ready for logical decoding."""

from __future__ import annotations

import os
import secrets
import signal
from typing import TYPE_CHECKING, Final, Literal, Self

from invalidator.demo.servers.directory import ServerDirectory
from invalidator.demo.servers.locate import find_postgres, reachable
from invalidator.demo.servers.process import (
    PortTaken,
    ServerFailed,
    end,
    log_tail,
    on_free_port,
    spawn,
    unprivileged_account,
    wait_until,
)

if TYPE_CHECKING:
    import subprocess
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


class PostgresServer:
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

    def __init__(self, *, binaries: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._account = unprivileged_account()
        self._base = ServerDirectory("pg", self._account)
        self._data = self._base / "data"
        self._log = self._base / "log"
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {**_SETTINGS, "unix_socket_directories": str(self._base.path), **(settings or {})}
        self.port = 0
        try:
            found = binaries or find_postgres()
            # bin, lib and share lie beside each other and belong together.
            tree = found.parent.parent
            self.binaries = reachable(found / "postgres", tree, self._base.path, self._account).parent
            self._initialise()
            self.port = on_free_port(self._start)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URI of the superuser for one database."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The postmaster."""
        if self._process is None:
            msg = "the server is not started"
            raise ServerFailed(msg)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start again on the same port with the same data. Does nothing while the server runs."""
        if not self.running:
            self._start(self.port)

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut down and wait for the end, in the sense of ``pg_ctl stop -m``.

        A fast shutdown waits for replication clients: stop from another thread if one of them is yours.
        """
        end(self._process, _INTERRUPT[mode])

    def kill(self) -> None:
        """End the postmaster with SIGKILL; the next start recovers from the WAL."""
        end(self._process, signal.SIGKILL)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same port."""
        self.stop(mode)
        self.start()

    def log_tail(self) -> str:
        """The end of the server's log."""
        return log_tail(self._log)

    def close(self) -> None:
        """End the server and remove its directory."""
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a stopped process would not see the next signal
            end(self._process, signal.SIGQUIT)
        self._base.remove()

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
        failure = PortTaken if "already in use" in text else ServerFailed
        msg = f"postgres ended with code {process.returncode}:\n{text}"
        raise failure(msg)

    def _is_ready(self, pid: int) -> bool:
        """What ``pg_ctl -w`` looks at: first line the pid, eighth the state (miscadmin.h, LOCK_FILE_LINE_*)."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
