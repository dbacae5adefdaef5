"""What is the same for the connections of every source: what fails first ends them, and a silent server is gone."""

from __future__ import annotations

import asyncio

import pytest

from invalidator.errors import ProtocolError, SourceDisconnected
from invalidator.postgres.connected import Connected
from invalidator.postgres.side import SideConnection
from invalidator.telemetry.events import Events
from invalidator.telemetry.state import Role, State

pytestmark = pytest.mark.usefixtures("quiet_logs")

DEADLINE_SECONDS = 10


class Line(Connected):
    """A connection to nothing."""

    def __init__(self, *, silence_seconds: float = 0.01, is_listening: bool = True) -> None:
        self.state = State()
        self.state.source.role = Role.STREAMING
        super().__init__(Events(self.state), silence_seconds=silence_seconds)
        self.is_listening = is_listening
        self.looks = self.asked = 0
        self.moved = asyncio.Event()
        self.hung_up = 0

    async def reached(self, looks: int = 0, asked: int = 0) -> None:
        """Return when the server's silence was looked at, or the side connection asked for, so many times."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.looks < looks or self.asked < asked:
                self.moved.clear()
                await self.moved.wait()

    async def failure(self) -> Exception:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._stirred.wait()
        assert self._failure is not None
        return self._failure

    async def _beside(self) -> SideConnection:
        self.asked += 1
        self.moved.set()
        raise SourceDisconnected("nobody is there")

    def _is_listening(self) -> bool:
        self.looks += 1
        self.moved.set()
        return self.is_listening

    def _hang_up(self) -> None:
        self.hung_up += 1

    async def end(self) -> None:
        self._stop()
        await self._stopped()


async def test_a_server_that_says_nothing_is_gone_and_that_is_told_at_once() -> None:
    line = Line()
    line._run(line._keep_listening(), "silence")
    failure = await line.failure()
    assert isinstance(failure, SourceDisconnected)
    assert failure.reason == "silence"
    assert "nothing for 0.01 s" in str(failure)
    assert line.hung_up == 1
    assert line.state.source.role is Role.RECONNECTING
    await line.end()


async def test_silence_while_nobody_listens_is_not_the_servers() -> None:
    line = Line(is_listening=False)
    line._run(line._keep_listening(), "silence")
    await line.reached(looks=50)  # five times what a server may be silent
    assert line._failure is None
    line.is_listening = True
    assert (await line.failure()).args
    await line.end()


async def test_what_a_task_raises_ends_the_connection_and_what_comes_later_changes_nothing() -> None:
    line = Line(silence_seconds=60)

    async def break_down() -> None:
        raise ProtocolError("unexpected")

    line._run(break_down(), "broken")
    assert isinstance(await line.failure(), ProtocolError)
    line.restart("for another reason")
    assert isinstance(line._failure, ProtocolError)
    assert line.hung_up == 1
    with pytest.raises(ProtocolError, match="unexpected"), line._first_failure():
        raise SourceDisconnected("the server closed the connection")
    await line.end()


async def test_a_question_that_fails_by_itself_says_why() -> None:
    line = Line()
    with pytest.raises(SourceDisconnected, match="too many"), line._first_failure():
        raise SourceDisconnected("too many clients")


class Looking:
    """An inspection that is never reached."""

    interval_seconds = 0.0

    async def look_again(self, side: SideConnection) -> None:
        raise AssertionError


async def test_an_inspection_that_cannot_be_made_is_tried_again_and_ends_nothing() -> None:
    line = Line(silence_seconds=60)
    line._run(line._keep_looking(Looking()), "preflight")
    await line.reached(asked=3)
    assert line._failure is None
    await line.end()
