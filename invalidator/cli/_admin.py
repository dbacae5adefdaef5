"""Asking a daemon on this machine over its admin socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invalidator.errors import ConfigError, TargetUnavailable

TIMEOUT_SECONDS = 30.0


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("admin", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def socket_path(given: str | None, settings_file: Path | None, overrides: tuple[str, ...]) -> str:
    """Where the socket is: the option, or ``admin.socket`` of the settings.

    Raises:
        ConfigError: neither says.
    """
    from invalidator.cli._options import load_settings

    path = given or load_settings(settings_file, overrides).admin.socket
    if not path:
        msg = "the settings name no admin socket, so the daemon cannot be asked"
        raise ConfigError(msg, fix="admin: {socket: /run/invalidator/admin.sock}   # and restart the daemon")
    return path


def follow(path: str, target: str) -> Iterator[Any]:
    """What the daemon tells, record by record, until it says farewell.

    Raises:
        TargetUnavailable: no daemon answers, not to us, or not any more.
        ConfigError: it does not understand the question.
    """
    connection = _Connection(path)
    with _translated(path), contextlib.closing(connection):
        connection.request("GET", target)
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            _read(path, target, answer)
        while line := answer.readline():
            if line.strip():
                yield json.loads(line)
    msg = f"the daemon at '{path}' is gone: it ended without a farewell"
    raise TargetUnavailable(msg)


def ask(path: str, method: str, target: str, order: Any = None) -> Any:
    """What the daemon answers.

    Raises:
        TargetUnavailable: no daemon answers, or not to us.
        ConfigError: it does not understand the question.
    """
    connection = _Connection(path)
    with _translated(path), contextlib.closing(connection):
        connection.request(method, target, None if order is None else json.dumps(order))
        return _read(path, target, connection.getresponse())


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        msg = f"'{path}' is not ours to open: ask as the user that the daemon runs as"
        raise TargetUnavailable(msg) from error
    except (OSError, http.client.HTTPException) as error:
        msg = f"no daemon answers at '{path}': {getattr(error, 'strerror', None) or error}"
        raise TargetUnavailable(msg) from error


def _read(path: str, target: str, answer: http.client.HTTPResponse) -> Any:
    body = answer.read()
    try:
        document = json.loads(body)
    except ValueError as error:
        msg = f"what answers at '{path}' does not know {target} ({answer.status} {answer.reason}): another version?"
        raise TargetUnavailable(msg) from error
    if answer.status != http.HTTPStatus.OK:
        raise ConfigError(str(document.get("error", answer.reason)))
    return document
