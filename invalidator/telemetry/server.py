"""The public listener: /livez, /readyz, /metrics, /status. It only reads, and shows no row value and no secret.

One request per connection and ten seconds for it: a client that sends or reads slowly holds nothing for long,
and one that opens too many connections loses its oldest. (aiohttp's own patience with one is an hour.)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from invalidator.errors import ConfigError
from invalidator.telemetry import listen as listening
from invalidator.telemetry.health import checks
from invalidator.telemetry.metrics import CONTENT_TYPES, Format, Snapshot, StateCollector, render
from invalidator.telemetry.status import status

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

    from invalidator.telemetry.state import State

CACHE_SECONDS: Final = 1.0
"""A rendered exposition is shown again for so long: several scrapers cost as much as one."""
CONNECTION_SECONDS: Final = 10.0
"""The life of one connection; Prometheus' default scrape timeout."""
MAX_CONNECTIONS: Final = 64

_INDEX: Final = "invalidator: /livez /readyz /readyz?verbose /metrics /status\n"

Page = Callable[[web.BaseRequest], Awaitable[web.Response]]


class StatusServer:
    """The listener over one state.

    Args:
        listen: ``host:port``; port 0 takes a free one.
        state: what is shown.
        clock: unix seconds.
    """

    def __init__(self, listen: str, state: State, *, clock: Callable[[], float]) -> None:
        self._listen = listen
        self._host, self._port = listening.parse(listen)
        self._state = state
        self._clock = clock
        self._collector = StateCollector(state, clock)
        self._rendered: dict[Format, tuple[float, bytes]] = {}
        self._rendering = asyncio.Lock()
        self._runner: web.ServerRunner | None = None
        self._pages: dict[str, Page] = {
            "/": self._index,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/status": self._status,
        }

    @property
    def address(self) -> str:
        """``host:port`` as bound; the configured one before the start."""
        return listening.join(self._host, self._port)

    async def start(self) -> int:
        """Listen; the result is the bound port.

        Raises:
            ConfigError: the address cannot be used.
        """
        server = _GuardedServer(self._answer)
        self._runner = runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, self._host or None, self._port)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise self._cannot_listen(error) from None
        self._port = site.port
        return self._port

    async def stop(self) -> None:
        """Close the listener and what is still connected."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _cannot_listen(self, error: OSError) -> ConfigError:
        reason = error.strerror or str(error)
        return ConfigError(
            f"cannot listen on {self._listen}: {reason}",
            fix=f"set http.listen (INVALIDATOR_HTTP__LISTEN) to a free address of this host; "
            f"who has the port: ss -ltnp 'sport = :{self._port}'",
        )

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.get(request.path)
        if request.method not in ("GET", "HEAD"):
            response = web.Response(status=405, text="only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        elif page is None:
            response = web.Response(status=404, text=_INDEX)
        else:
            response = await page(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.force_close()
        return response

    async def _index(self, _request: web.BaseRequest) -> web.Response:
        return web.Response(text=_INDEX)

    async def _livez(self, _request: web.BaseRequest) -> web.Response:
        # That this runs is the answer: a loop that is stuck does not come here. Nothing outside is asked, because
        # a restart mends neither Postgres nor Redis.
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        found = checks(self._state, self._clock())
        is_ready = all(check.is_ok for check in found)
        lines = [f"[{'+' if check.is_ok else '-'}] {check.name}: {check.detail}" for check in found]
        lines = lines if "verbose" in request.query or not is_ready else []
        text = "\n".join([*lines, "ready" if is_ready else "not ready", ""])
        return web.Response(status=200 if is_ready else 503, text=text)

    async def _status(self, _request: web.BaseRequest) -> web.Response:
        answer = status(self._state, self._clock())
        return web.Response(text=json.dumps(answer, indent=1) + "\n", content_type="application/json")

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        accepted = request.headers.get("Accept", "")
        form: Format = "openmetrics" if "application/openmetrics-text" in accepted else "text"
        body = await self._exposition(form)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPES[form]})

    async def _exposition(self, form: Format) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._rendering:
            rendered_at, body = self._rendered.get(form, (float("-inf"), b""))
            if loop.time() - rendered_at < CACHE_SECONDS:
                return body
            # The figures are read here, where nothing changes them meanwhile; the text is made elsewhere.
            snapshot = Snapshot(self._collector.collect())
            rendered_at = loop.time()
            body = await asyncio.to_thread(render, snapshot, form)
            self._rendered[form] = (rendered_at, body)
            return body


class _GuardedServer(web.Server):
    """Ends every connection after a while, and the oldest when there are too many."""

    def __init__(self, handler: Page) -> None:
        super().__init__(handler, access_log=None, lingering_time=0)
        self._ends: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > MAX_CONNECTIONS:
            # The newest may be the probe that would otherwise find a healthy daemon dead.
            next(iter(self._connections.values())).abort()
        end = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, transport.abort)
        self._ends[handler] = end

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if (end := self._ends.pop(handler, None)) is not None:
            end.cancel()
