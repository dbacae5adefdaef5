"""A Valkey or Redis server of our own on a free loopback port."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from invalidator.demo.servers.locate import find_valkey, reachable
from invalidator.demo.servers.process import unprivileged_account
from invalidator.demo.servers.server import Server

if TYPE_CHECKING:
    from pathlib import Path


class KeyValueServer(Server):
    """A running Valkey or Redis without persistence; everything of it is gone after :meth:`close`.

    Args:
        binary: the server; None takes the Valkey that :func:`find_valkey` finds.
        arguments: more command line options, such as ``"--maxmemory", "20mb"``.

    Raises:
        ServerMissing: no binary was given and none is found.
        ServerFailed: the server does not start; the message holds its log.
    """

    def __init__(self, binary: Path | None = None, *arguments: str) -> None:
        self._found = binary
        self._arguments = arguments
        super().__init__("kv", unprivileged_account())

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        found = self._found or find_valkey()
        # One static file: the tree to link is the folder that holds it.
        self._binary = reachable(found, found.parent, self._base.path, self._account)

    def _start(self, port: int) -> None:
        command: list[str | Path] = [self._binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", self._base.path, "--appendonly", "no", "--daemonize", "no", *self._arguments]
        self._run(command, lambda: _pings(port), account=self._account)


def _pings(port: int) -> bool:
    """Whether somebody on the port speaks the protocol; LOADING and NOAUTH are answers too, but only one is ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
