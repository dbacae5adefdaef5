"""A real Varnish with the VCL that we ship, in front of an origin that the test controls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from invalidator.demo.servers import ServerMissing
from invalidator.demo.servers.varnish import VarnishServer
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import missing

VCL: Final = Path(__file__).parents[2] / "deploy" / "varnish"


@dataclass
class Page:
    """What the origin answers for one path."""

    body: str
    tags: str
    release: threading.Event = field(default_factory=threading.Event)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Origin:
    """A web server whose pages a test sets; it reads the page first and answers when the page is released."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                page = origin.pages.get(self.path)
                if page is None:
                    self.send_error(404)
                    return
                body = page.body.encode()
                page.asked.release()
                page.release.wait(DEADLINE_SECONDS)
                self.send_response(200)
                self.send_header("Cache-Control", "max-age=3600")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("xkey", page.tags)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def put(self, path: str, body: str, tags: str) -> Page:
        """From now on this is what the path has."""
        page = self.pages[path] = Page(body, tags)
        page.release.set()
        return page

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_varnish(origin: Origin, **options: Any) -> VarnishServer:
    """One of your own; close it."""
    try:
        return VarnishServer(origin.port, VCL, **options)
    except ServerMissing as error:
        missing(str(error))


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """The origin behind the shared Varnish servers: use paths and tags of your own."""
    server = Origin()
    yield server
    server.close()


@pytest.fixture(scope="session")
def varnish(origin: Origin) -> Iterator[VarnishServer]:
    """A Varnish for all tests: do not stop it, and purge everything only if you mean it."""
    server = start_varnish(origin)
    yield server
    server.close()


@pytest.fixture(scope="session")
def guarded_varnish(origin: Origin) -> Iterator[VarnishServer]:
    """A Varnish that wants the secret ``open-sesame``."""
    server = start_varnish(origin, secret="open-sesame")  # noqa: S106
    yield server
    server.close()
