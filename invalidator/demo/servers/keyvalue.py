"""A Valkey or Redis server of our own on a free loopback port."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Self

from invalidator.demo.servers.directory import ServerDirectory
from invalidator.demo.servers.locate import find_valkey, reachable
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
    from pathlib import Path


class KeyValueServer:
    """A running Valkey or Redis without persistence; everything of it is gone after :meth:`close`.

    Args:
        binary: the server; None takes the Valkey that :func:`find_valkey` finds.
        arguments: more command line options, such as ``"--maxmemory", "20mb"``.

    Raises:
        ServerMissing: no binary was given and none is found.
        ServerFailed: the server does not start; the message holds its log.
    """

    def __init__(self, binary: Path | None = None, *arguments: str) -> None:
        self._account = unprivileged_account()
        self._base = ServerDirectory("kv", self._account)
        self._log = self._base / "log"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        try:
            found = binary or find_valkey()
            # One static file: the tree to link is the folder that holds it.
            self._binary = reachable(found, found.parent, self._base.path, self._account)
            self.port = on_free_port(self._start)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process, for signals such as SIGSTOP."""
        if self._process is None:
            msg = "the server is not started"
            raise ServerFailed(msg)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start again on the same port, empty. Does nothing while the server runs."""
        if not self.running:
            self._start(self.port)

    def stop(self) -> None:
        """Shut down in order (SIGTERM) and wait for the end."""
        end(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """End at once (SIGKILL), as a crash does."""
        end(self._process, signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same port; what was stored is gone."""
        self.stop()
        self.start()

    def log_tail(self) -> str:
        """The end of the server's log."""
        return log_tail(self._log)

    def close(self) -> None:
        """End the server and remove its directory."""
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a stopped process would not see the next signal
            self.kill()
        self._base.remove()

    def _start(self, port: int) -> None:
        command: list[str | Path] = [self._binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", self._base.path, "--appendonly", "no", "--daemonize", "no", *self._arguments]
        with self._log.open("ab") as log:
            written = log.tell()
            process = self._process = spawn(command, account=self._account, stdout=log, cwd=self._base.path)

        def answers() -> bool:
            if process.poll() is None:
                return _pings(port)
            text = log_tail(self._log, since=written)
            failure = PortTaken if "already in use" in text else ServerFailed
            msg = f"{self._binary.name} ended with code {process.returncode}:\n{text}"
            raise failure(msg)

        wait_until(answers, what=f"{self._binary.name} on port {port} answers")


def _pings(port: int) -> bool:
    """Whether somebody on the port speaks the protocol; LOADING and NOAUTH are answers too, but only one is ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
