"""The only door to HTTP servers: one request in, one bounded answer out; driver errors become ours here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

import invalidator
from invalidator.errors import TargetUnavailable

MAX_BODY_BYTES: Final = 1 << 20
"""What is kept of an answer. The longest useful one is Fastly's: 256 tags of 1 kB, each with an id."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Headers and body stay out of the repr: they hold credentials and row values."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def post_json(cls, url: str, payload: object, headers: Mapping[str, str]) -> Self:
        """A POST of a JSON document."""
        return cls("POST", url, {"Content-Type": "application/json", **headers}, json.dumps(payload).encode())


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the headers (names in any case) and the body up to its bound."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    def json_object(self) -> dict[str, object]:
        """The body as a JSON object; empty when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class HttpClient:
    """Sends requests over kept connections: TLS verified, no redirects, no cookies, no proxy or netrc of the machine.

    Opened by the first request, so that building a target touches neither the network nor the event loop.

    Args:
        timeout_seconds: for a whole exchange, connecting included.
        max_connections: open at the same time.
        max_body_bytes: of an answer; what is longer is cut off and its connection closed.
    """

    def __init__(
        self, *, timeout_seconds: float, max_connections: int = 8, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_connections = max_connections
        self._max_body_bytes = max_body_bytes
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Answer:
        """Send one request and read its answer. Cancelling closes the connection.

        Raises:
            TargetUnavailable: no complete answer came back: unresolved, refused, cut, not trusted or too slow.
        """
        try:
            return await self._exchange(request)
        except TimeoutError:
            msg = f"{_where(request)}: no answer within {self._timeout_seconds:g} s"
            raise TargetUnavailable(msg, result="timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            # The driver's own text may quote what the server sent; its class and errno are enough to act on.
            msg = f"{_where(request)}: {_what_failed(error)}"
            raise TargetUnavailable(msg, result="connection") from None

    async def _exchange(self, request: Request) -> Answer:
        async with (
            asyncio.timeout(self._timeout_seconds),
            self._opened().request(
                request.method, request.url, headers=request.headers, data=request.body, allow_redirects=False
            ) as response,
        ):
            body = bytearray()
            async for piece in response.content.iter_chunked(1 << 16):
                body += piece
                if len(body) > self._max_body_bytes:
                    del body[self._max_body_bytes :]
                    break  # releasing an answer that is not read to its end closes the connection
            return Answer(response.status, response.headers, bytes(body))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # ours covers the body too, and names itself
                # Bodies are small; an answer that unpacks to gigabytes is not worth having.
                headers={"User-Agent": f"invalidator/{invalidator.__version__}", "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        """Close every connection; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _where(request: Request) -> str:
    return f"{request.method} {urlsplit(request.url).netloc}"


def _what_failed(error: aiohttp.ClientError | OSError) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "the TLS certificate cannot be verified or the handshake failed"
        case aiohttp.ClientConnectorDNSError():
            return "the host name cannot be resolved"
        case aiohttp.ClientConnectorError():
            return f"cannot connect ({error.os_error.strerror or type(error.os_error).__name__})"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case aiohttp.ClientPayloadError():
            return "the connection was cut in the middle of an answer"
        case _:
            return f"the exchange failed ({type(error).__name__})"
