"""The admin socket: what only the operator on this machine may ask for. A unix socket with mode 0600.

POST /reload         read the rule files again; answers with the outcome
POST /purge          drop what the JSON in the body names; answers when it is dropped
GET  /transactions   the last transactions that came, and what the rules made of them
GET  /status         the same as on the public listener
GET  /tail           what the daemon does, while it does it: one JSON object a line, until either end hangs up
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from invalidator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MODE: Final = 0o600
_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_MAX_PATH_BYTES: Final = 100
"""What every system takes as the path of a unix socket (Linux 107, macOS 103)."""

SIGN_OF_LIFE_SECONDS: Final = 5.0
"""After so long without a record an empty line says that there is nothing to say."""
_FAREWELL_SECONDS: Final = 1.0

Answer = Callable[["Mapping[str, str]"], Awaitable[Any]]
"""Takes the query's parameters, gives what is sent as JSON. ValueError: the parameters are wrong."""

Watch = Callable[["Mapping[str, Sequence[str]]"], AsyncGenerator["dict[str, Any] | None", None]]
"""Takes the query's parameters, all values of each, and gives what is sent one by one; None: nothing new so far."""

Order = Callable[[Any], Awaitable[Any]]
"""The same for what is posted: takes the JSON in the body, or the query's parameters if there is none."""


class AdminServer:
    """Serves the handlers on a unix socket.

    Args:
        path: where the socket is; None: nowhere.
        posts: what may be asked for, by path.
        gets: what may be looked at, by path.
        watches: what may be watched, by path.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        posts: Mapping[str, Order],
        gets: Mapping[str, Answer],
        watches: Mapping[str, Watch] | None = None,
    ) -> None:
        self._path = path
        self._posts = posts
        self._gets = gets
        self._watches = watches or {}
        self._watchers = Watchers()
        self._runner: web.AppRunner | None = None
        self._made: tuple[int, int] | None = None

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
        for path, watch in self._watches.items():
            application.router.add_get(path, self._watchers.handler(watch))
        listening = _listen(self._path)
        self._made = _identity(self._path)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """Stop listening and remove the socket, unless another daemon's has taken its place."""
        if self._runner is not None and self._path is not None:
            await self._watchers.stop()
            if _identity(self._path) == self._made:  # while we listen: nobody takes the socket of the living
                self._path.unlink(missing_ok=True)
            await self._runner.cleanup()
            self._runner = None


class Watchers:
    """Sends what is watched to those who watch, and says farewell when the daemon stops.

    A reader that stops reading makes its own handler wait, and nobody else: what was not sent yet fits into the
    connection's buffer (64 kB and one record).
    """

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def handler(self, watch: Watch) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What serves one path."""

        async def handle(request: web.Request) -> web.StreamResponse:
            query = {name: request.query.getall(name) for name in request.query}
            try:
                records = watch(query)
            except ValueError as error:
                return web.json_response({"error": str(error)}, status=400)
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            task = asyncio.ensure_future(self._send(request, response, records))
            self._tasks.add(task)
            try:
                await asyncio.wait([task])
            finally:
                self._tasks.discard(task)
                task.cancel()
            # An OSError means that the reader has gone; cancelled, that it does not read and the daemon stops.
            failure = None if task.cancelled() else task.exception()
            if failure is not None and not isinstance(failure, OSError):
                raise failure
            return response

        return handle

    async def stop(self) -> None:
        """End all of them; who does not read gets no farewell."""
        self._stopping.set()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=_FAREWELL_SECONDS)
            for task in stuck:
                task.cancel()

    async def _send(
        self, request: web.Request, response: web.StreamResponse, records: AsyncGenerator[dict[str, Any] | None, None]
    ) -> None:
        await response.prepare(request)
        sent_at = time.monotonic()
        async with contextlib.aclosing(records):
            async for record in records:
                if request.transport is None or request.transport.is_closing():
                    return
                if record is not None:
                    await response.write(_line(record))
                    sent_at = time.monotonic()
                elif self._stopping.is_set():
                    await response.write(_line({"record": "end", "reason": "the daemon stops"}))
                    return
                elif time.monotonic() - sent_at > SIGN_OF_LIFE_SECONDS:
                    await response.write(b"\n")
                    sent_at = time.monotonic()


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace") + b"\n"


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


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None: there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
