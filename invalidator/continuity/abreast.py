"""Several things done side by side: one that is slow holds up nobody but who wants to wait for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING

from invalidator.delivery.waiting import wait

if TYPE_CHECKING:
    from invalidator.ports import Clock


class Abreast:
    """Begins what is asked for, and leaves what is late on its way.

    Args:
        clock: its seconds count.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Abreast under_way={list(self._tasks)}>"

    async def do(
        self, work: Mapping[str, Callable[[], Coroutine[None, None, None]]], *, patience_seconds: float | None
    ) -> None:
        """Begin all of it but what is under way; return when everything has ended, or the patience.

        Args:
            work: what to do, by names.
            patience_seconds: how long to wait; None: for everything.

        Raises:
            Exception: what one of them raised, since the last call or now.
        """
        for name, begin in work.items():
            if name not in self._tasks:
                self._tasks[name] = task = asyncio.create_task(begin(), name=name)
                task.add_done_callback(self._one_ended)
        if self._tasks:
            self._one_ended()
            await wait(self._ended, self._clock, patience_seconds)
        for name in [name for name, task in self._tasks.items() if task.done()]:
            self._tasks.pop(name).result()

    async def stop(self) -> None:
        """Leave nothing under way."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _one_ended(self, _: object = None) -> None:
        if all(task.done() for task in self._tasks.values()):
            self._ended.set()
        else:
            self._ended.clear()
