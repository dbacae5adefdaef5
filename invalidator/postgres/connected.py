"""What one connection is like whatever is read from it: what runs beside it, how it breaks, what silence means.

Whatever fails first ends it. That is told at once, also while nobody asks for the next batch, and raised when somebody
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from invalidator.errors import ConfigError, SourceDisconnected, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from invalidator.postgres.companions import Inspection
    from invalidator.postgres.side import SideConnection
    from invalidator.telemetry.events import Events

_LOOKS: Final = 10
"""At the silence of the server, within the time that it may last."""


class Connected:
    """One connection to a source.

    Args:
        events: what it reports to.
        silence_seconds: a server that says nothing for longer is gone, whatever TCP says.
    """

    def __init__(self, events: Events, *, silence_seconds: float) -> None:
        self._events = events
        self._state = events.state.source
        self._loop = asyncio.get_running_loop()
        self._silence_seconds = silence_seconds
        self._heard_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None
        self._stirred = asyncio.Event()
        """Set when there may be something to hand over, or to raise."""

    def restart(self, why: str) -> None:
        """End this connection, so that the next one reads again what is not confirmed."""
        self._fail(SourceDisconnected(why, reason="redo"))

    # ---------------------------------------------------------------- what runs beside it

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do it beside reading; what it raises ends the connection."""
        task = self._loop.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _stopped(self) -> None:
        """Wait for them; their questions end at once when the connections that they are asked on are closed before."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_looking(self, inspection: Inspection) -> None:
        """Hold the database against the rules. A question that fails is no reason to stop reading."""
        while self._failure is None:
            try:
                await inspection.look_again(await self._beside())
            except (SourceError, ConfigError) as error:
                if self._failure is None:  # else the connection is lost, which is told already
                    self._events.preflight_failed(error)
            await asyncio.sleep(inspection.interval_seconds)

    async def _beside(self) -> SideConnection:
        """Where to ask questions beside reading."""
        raise NotImplementedError

    # ---------------------------------------------------------------- silence

    async def _keep_listening(self) -> None:
        """See that the server says something. One that hangs keeps its connections, and TCP takes it for well."""
        while self._failure is None:
            await asyncio.sleep(self._silence_seconds / _LOOKS)
            if not self._is_listening():
                self._hear()
            elif self._silent_seconds() > self._silence_seconds:
                self._fail(_silent(self._silence_seconds))

    def _is_listening(self) -> bool:
        """Whether silence is the server's; it is ours while we read nothing and ask nothing."""
        return True

    def _hear(self) -> None:
        """The server said something, or nobody listened."""
        self._heard_at = time.monotonic()

    def _silent_seconds(self) -> float:
        return time.monotonic() - self._heard_at

    # ---------------------------------------------------------------- failing

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._fail(error)

    @contextlib.contextmanager
    def _first_failure(self) -> Iterator[None]:
        """What has ended the connection says more than a question that fails because of it."""
        try:
            yield
        except (SourceError, ConfigError):
            if self._failure is not None:
                raise self._failure from None
            raise

    def _guarded(self, step: Callable[[], object]) -> None:
        """Run a step inside a callback: what it raises reaches the consumer instead of the event loop."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  (raised again in next(): in a callback nobody would hear of it)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._events.stream_broken(error)
            self._stirred.set()  # first: whoever waits must hear of it whatever becomes of hanging up
            self._hang_up()

    def _hang_up(self) -> None:
        """Wait for nothing any more."""


def _silent(seconds: float) -> SourceDisconnected:
    msg = f"the server has sent nothing for {seconds:g} s, not even the answer we asked for"
    return SourceDisconnected(msg, reason="silence")
