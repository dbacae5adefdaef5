"""A real Varnish with the VCL that we ship, in front of an origin that the test controls."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from invalidator.demo.servers.process import PortTaken, ServerFailed, end, log_tail, on_free_port, spawn, wait_until
from tests.support.services import missing

_VCL: Final = Path(__file__).parents[2] / "deploy" / "varnish"


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
                page.release.wait(10)
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


class Varnish:
    """One varnishd on a free port, with its own working directory; ends with the tests, however they end."""

    def __init__(self, origin_port: int, *, secret: str | None = None) -> None:
        if shutil.which("varnishd") is None:
            missing("varnishd is not installed (packages varnish and varnish-modules)")
        self._directory = Path(tempfile.mkdtemp(prefix="invalidator-varnish-"))
        self._directory.chmod(0o755)  # its worker runs as a user of its own
        vcl = (_VCL / "default.vcl").read_text()
        assert '.host = "origin"' in vcl
        assert '.port = "8080"' in vcl
        vcl = vcl.replace('"origin"', '"127.0.0.1"').replace('"8080"', f'"{origin_port}"')
        (self._directory / "default.vcl").write_text(vcl)
        shutil.copy(_VCL / "invalidator.vcl", self._directory)
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("INVALIDATOR_")}
        if secret is not None:
            self._env["INVALIDATOR_PURGE_SECRET"] = secret
        self.url = f"http://127.0.0.1:{on_free_port(self._start)}"

    def _start(self, port: int) -> None:
        log = self._directory / "log"
        command = [
            "varnishd", "-F", "-a", f"127.0.0.1:{port}", "-T", "none", "-f", str(self._directory / "default.vcl"),
            "-s", "malloc,32m", "-n", str(self._directory / "work"),
        ]  # fmt: skip
        with log.open("wb") as output:
            self.process = spawn(command, env=self._env, last_signal=signal.SIGTERM, stdout=output)
        try:
            wait_until(lambda: self._listens(port), what="varnishd")
        except ServerFailed as error:
            tail = log_tail(log)
            self.stop()
            if "Address already in use" in tail or "in use" in tail:
                raise PortTaken(tail) from None
            raise ServerFailed(f"{error}\n{tail}") from None

    def _listens(self, port: int) -> bool:
        if self.process.poll() is not None:
            msg = "varnishd ended"
            raise ServerFailed(msg)
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def stop(self) -> None:
        end(self.process, signal.SIGTERM)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """The origin behind the shared Varnish servers: use paths and tags of your own."""
    server = Origin()
    yield server
    server.close()


@pytest.fixture(scope="session")
def varnish(origin: Origin) -> Iterator[Varnish]:
    """A Varnish for all tests: do not stop it, and purge everything only if you mean it."""
    server = Varnish(origin.port)
    yield server
    server.close()


@pytest.fixture(scope="session")
def guarded_varnish(origin: Origin) -> Iterator[Varnish]:
    """A Varnish that wants the secret ``open-sesame``."""
    server = Varnish(origin.port, secret="open-sesame")  # noqa: S106
    yield server
    server.close()
