"""Certificates are checked: a purge token is not given to whoever answers."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from invalidator.errors import TargetUnavailable
from invalidator.net.http import HttpClient, Request
from tests.support.services import missing


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server context with a certificate that nobody has signed."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed, so there is no certificate to test with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", key, "-out", certificate,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_an_untrusted_certificate_ends_the_exchange_before_the_request(certificate: ssl.SSLContext) -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(1000))
        writer.close()

    client = HttpClient(timeout_seconds=5)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TargetUnavailable, match="TLS certificate cannot be verified") as caught:
            await client.send(Request("GET", f"https://127.0.0.1:{port}/", {"Authorization": "token"}))
    assert caught.value.result == "connection"
    assert received == b""
    await client.close()
