"""The admin socket: what only the operator on this machine may ask for. A unix socket with mode 0600.

POST /reload         read the rule files again; answers with the outcome
POST /purge          drop what the JSON in the body names; answers when it is dropped
GET  /transactions   the last transactions that came, and what the rules made of them
GET  /status         the same as on the public listener
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from invalidator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODE: Final = 0o600
_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_MAX_PATH_BYTES: Final = 100
"""What every system takes as the path of a unix socket (Linux 107, macOS 103)."""

Answer = Callable[["Mapping[str, str]"], Awaitable[Any]]
"""Takes the query's parameters, gives what is sent as JSON. ValueError: the parameters are wrong."""

Order = Callable[[Any], Awaitable[Any]]
"""The same for what is posted: takes the JSON in the body, or the query's parameters if there is none."""


class AdminServer:
    """Serves the handlers on a unix socket.

    Args:
        path: where the socket is; None: nowhere.
        posts: what may be asked for, by path.
        gets: what may be looked at, by path.
    """

    def __init__(self, path: Path | None, *, posts: Mapping[str, Order], gets: Mapping[str, Answer]) -> None:
        self._path = path
        self._posts = posts
        self._gets = gets
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the socket cannot be made, or another process serves it.
        """
        if self._path is None:
            return
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        for path, answer in self._posts.items():
            application.router.add_post(path, _order_handler(answer))
        for path, answer in self._gets.items():
            application.router.add_get(path, _handler(answer))
        listening = _listen(self._path)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._runner is not None and self._path is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)
            self._runner = None


def _handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            return web.json_response(await answer(request.query))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle


def _order_handler(order: Order) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            given = await request.json() if request.can_read_body else dict(request.query)
            return web.json_response(await order(given))
        except ValueError as error:  # also of the body that is no JSON
            return web.json_response({"error": str(error)}, status=400)

    return handle


def _listen(path: Path) -> socket.socket:
    """A listening socket that nobody but us could connect to at any moment."""
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        msg = f"admin.socket: '{path}' is longer than the {_MAX_PATH_BYTES} bytes that a unix socket's path may have"
        raise ConfigError(msg)
    try:
        _clear(path)
        listening = _bound(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"admin.socket: {str(path)!r} cannot be made: {reason}"
        fix = "make its directory writable for the daemon, or switch it off: admin: {socket: ''}"
        raise ConfigError(msg, fix=fix) from error
    listening.setblocking(False)
    return listening


def _bound(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~_MODE)
    try:
        listening.bind(os.fspath(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _clear(path: Path) -> None:
    """Remove a socket that a dead process left behind; a living one's is not ours."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            msg = f"admin.socket: '{path}' exists and is no socket"
            raise ConfigError(msg)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                path.unlink(missing_ok=True)
                return
        msg = f"admin.socket: another process serves '{path}'"
        raise ConfigError(msg, fix="give each daemon on this machine a socket of its own")
