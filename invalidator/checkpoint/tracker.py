"""Which position may be confirmed: the only code that decides it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from invalidator.model import Lsn


@dataclass(slots=True, eq=False)
class Ticket:
    """One batch on its way; finished when every required target has applied it and its repeats."""

    end: Lsn | None
    is_finished: bool = False


class Tracker:
    """Batches finish in any order; a position is confirmable when everything before it has finished.

    One tracker serves one connection to the source: positions of an earlier connection mean nothing to it.
    """

    def __init__(self) -> None:
        self._open: deque[Ticket] = deque()
        self._confirmable: Lsn | None = None

    def __repr__(self) -> str:
        return f"<Tracker open={len(self._open)} confirmable={self._confirmable}>"

    def __len__(self) -> int:
        """Batches that are not finished, or that wait for an earlier one."""
        return len(self._open)

    def start(self, end: Lsn | None) -> Ticket:
        """Take in the next batch, in the order of the source.

        Args:
            end: what may be confirmed with this batch; None when it ends inside a transaction.
        """
        ticket = Ticket(end)
        self._open.append(ticket)
        return ticket

    def finish(self, ticket: Ticket) -> Lsn | None:
        """Mark a batch as applied and return the newest confirmable position if it advanced."""
        ticket.is_finished = True
        advanced = False
        while self._open and self._open[0].is_finished:
            end = self._open.popleft().end
            if end is not None and (self._confirmable is None or end > self._confirmable):
                self._confirmable = end
                advanced = True
        return self._confirmable if advanced else None
