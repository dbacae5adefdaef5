"""Every target that there is a file for, each with a server of its kind that can be well, silent or hostile.

A new target needs nothing here: whether it speaks HTTP or Redis' protocol follows from its options.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import pytest

from invalidator import registry
from invalidator.net.redis import RedisOptions
from invalidator.ports import Target
from tests.support.http import Reply, ScriptedServer, accepted
from tests.support.resp import Command, Cut, ScriptedRedis, Silence, well

SECRET = "canary-secret-4711"  # noqa: S105
ROW_VALUE = "canary-row-value-4712"


class Peer(Protocol):
    """The server behind a target, whatever it speaks."""

    url: str

    @property
    def calls(self) -> int:
        """How many requests came."""

    async def called(self) -> None:
        """Wait for the next request after those seen so far."""

    async def idle(self) -> None:
        """Wait until no connection is open."""

    def recover(self) -> None:
        """Answer well."""

    def fall_silent(self) -> None:
        """Take requests and never answer."""

    def hang_up(self) -> None:
        """Close the connection in the middle of each answer."""

    def refuse(self) -> None:
        """Answer that we may not do this."""

    def be_unable(self) -> None:
        """Answer that this is not possible at the moment."""


class HttpPeer:
    """A provider's API."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self.url = server.url

    @property
    def calls(self) -> int:
        return len(self._server.requests)

    async def called(self) -> None:
        await self._server.received(self.calls + 1)

    async def idle(self) -> None:
        await self._server.idle()

    def recover(self) -> None:
        self._server.otherwise = accepted()

    def fall_silent(self) -> None:
        self._server.otherwise = Reply(hold=asyncio.Event())

    def hang_up(self) -> None:
        self._server.otherwise = Reply(body=b"half", cut_after=-1)

    def refuse(self) -> None:
        self._server.otherwise = lambda request: Reply(403, body=request.raw_head + request.body)

    def be_unable(self) -> None:
        self._server.otherwise = lambda request: Reply(503, body=request.raw_head + request.body)


class RedisPeer:
    """A Redis."""

    def __init__(self, server: ScriptedRedis) -> None:
        self._server = server
        self.url = server.url.replace("://", f"://daemon:{SECRET}@")

    @property
    def calls(self) -> int:
        return len(self._server.commands)

    async def called(self) -> None:
        await self._server.received(self.calls + 1)

    async def idle(self) -> None:
        await self._server.idle()

    def recover(self) -> None:
        self._server.answer = well

    def fall_silent(self) -> None:
        self._answer(Silence())

    def hang_up(self) -> None:
        self._answer(Cut(b":"))

    def refuse(self) -> None:
        # Servers repeat in this reply what they were sent.
        self._answer(b"-ERR unknown command 'X', with args beginning with: 'product:%s'\r\n" % ROW_VALUE.encode())

    def be_unable(self) -> None:
        self._answer(b"-MISCONF Redis is configured to save RDB snapshots, but is unable to\r\n")

    def _answer(self, answer: bytes | Silence | Cut) -> None:
        introductions = {b"CLIENT", b"ROLE", b"AUTH", b"SELECT"}

        def by_command(command: Command) -> bytes | Silence | Cut:
            return well(command) if command[0] in introductions else answer

        self._server.answer = by_command


@dataclass(frozen=True)
class Candidate:
    """One target type under test."""

    type_name: str
    module: ModuleType
    peer: Peer | None
    """None for a target that talks to nobody."""

    def settings(self, **options: object) -> Any:
        """Its options, each that is needed with a value that fits."""
        values: dict[str, object] = {"type": self.type_name}
        for name, field in self.module.Settings.model_fields.items():
            if name in {"url", "api_url"} and self.peer is not None:
                values[name] = self.peer.url
            elif "Secret" in str(field.annotation):
                values[name] = SECRET
            elif name == "timeout_seconds":
                values[name] = 60
            elif name in {"rate_per_second", "rate_burst"}:
                values[name] = 1e6
            elif field.is_required() and name != "type":
                values[name] = field.examples[0]
        return self.module.Settings.model_validate(values | options)

    def build(self, **options: object) -> Target:
        """The target; the caller closes it."""
        target: Target = self.module.build("under-test", self.settings(**options))
        return target


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test once per target; tests that need a server only with those that talk to one."""
    if "target_type" in metafunc.fixturenames:
        names = [name for name in registry.types("targets") if "peer" not in metafunc.fixturenames or _talks(name)]
        metafunc.parametrize("target_type", names)


def _talks(type_name: str) -> bool:
    return bool({"url", "api_url"} & registry.load("targets", type_name).Settings.model_fields.keys())


@pytest.fixture
async def candidate(target_type: str) -> AsyncIterator[Candidate]:
    """A target type with a server of its kind that is well."""
    module = registry.load("targets", target_type)
    async with AsyncExitStack() as stack:
        peer: Peer | None = None
        if issubclass(module.Settings, RedisOptions):
            peer = RedisPeer(await stack.enter_async_context(ScriptedRedis()))
        elif _talks(target_type):
            peer = HttpPeer(await stack.enter_async_context(ScriptedServer()))
        yield Candidate(target_type, module, peer)


@pytest.fixture
async def target(candidate: Candidate) -> AsyncIterator[Target]:
    """The target, built by its own module."""
    made = candidate.build()
    yield made
    await made.close()


@pytest.fixture
async def hasty(candidate: Candidate) -> AsyncIterator[Target]:
    """The target, with a patience that a test can wait for; on a busy machine a peer that is well may exceed it."""
    made = candidate.build(timeout_seconds=0.3)
    yield made
    await made.close()


@pytest.fixture
def peer(candidate: Candidate) -> Peer:
    """The server behind the target."""
    assert candidate.peer is not None
    return candidate.peer
