"""Log lines leave through a thread, so that whoever reads them cannot stop the daemon.

A pipe whose reader has stalled blocks a write for ever; a closed one fails it. Setting the descriptor to
non-blocking would change it for every process that shares it (a terminal, the container's runtime), so a thread
waits instead and the event loop never does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
import time
from typing import Final

MAX_WAITING_LINES: Final = 10_000
"""Lines that wait for a stalled reader; further ones are dropped and counted (a few MB at most)."""


class LogOutput:
    """Writes lines to a file descriptor in the order they came, without ever blocking the caller.

    Args:
        descriptor: where to; not closed by this class.
        max_waiting_lines: lines held for a reader that does not read.
    """

    def __init__(self, descriptor: int, *, max_waiting_lines: int = MAX_WAITING_LINES) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(max_waiting_lines)
        self.dropped = 0
        """Lines lost so far because nobody read them, or nobody can."""
        self._reported = 0
        self._is_broken = False
        self._thread = threading.Thread(target=self._run, name="log output", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Hand one line over; it is dropped when too many wait."""
        if self._is_broken:
            self.dropped += 1
            return
        try:
            self._lines.put_nowait(line.encode("utf-8", "backslashreplace") + b"\n")
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what waits, for at most this long; a reader that is still stalled loses the rest."""
        if self._is_broken:
            return
        deadline = time.monotonic() + timeout_seconds
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=timeout_seconds)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._is_broken = True

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(line)
                self._report_dropped()
            except OSError:
                # EPIPE, EBADF, EIO of a terminal that is gone: nobody will ever read again.
                self._is_broken = True
                self.dropped += 1 + self._lines.qsize()
                return

    def _report_dropped(self) -> None:
        lost = self.dropped - self._reported
        if lost and not self._is_broken:
            self._reported += lost
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._write(f'{{"ts":"{now}","level":"warning","event":"log.dropped","lines":{lost}}}\n'.encode())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Somebody else made the descriptor non-blocking.
                select.select([], [self._descriptor], [])
