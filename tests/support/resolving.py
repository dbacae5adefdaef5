"""A resolver that knows no name: what that of a machine makes of one, and how soon, differs from machine to machine."""

from __future__ import annotations

import asyncio
import socket

import pytest


@pytest.fixture
async def unresolvable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is unknown from now on, at once."""

    async def unknown(host: str, port: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
