"""Committed row changes from a table that triggers write into: for databases without logical replication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from invalidator.errors import ConfigError, InvalidatorError, SourceDisconnected
from invalidator.postgres.outbox.options import OutboxOptions
from invalidator.postgres.outbox.session import OutboxSession
from invalidator.postgres.source import SessionSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from invalidator.model import Batch
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection
    from invalidator.telemetry.events import Events


class Settings(OutboxOptions):
    """Options of ``type: outbox``."""

    type: Literal["outbox"]


def build(
    settings: Settings, events: Events, *, inspections: Sequence[Inspection] = (), recent_rows: int = 0
) -> OutboxSource:
    """Make the source.

    Args:
        settings: its options.
        events: what it reports to.
        inspections: look at the database again and again while it is read.
        recent_rows: how many row changes are kept for who wants to look at them.
    """
    return OutboxSource(settings, events, inspections=inspections, recent_rows=recent_rows)


class OutboxSource(SessionSource[OutboxSession]):
    """A source over the outbox of one database; see ``ports.Source`` for what it guarantees.

    Batches come in the order in which their transactions became visible, as far as one look tells them apart.
    """

    def __init__(
        self, settings: Settings, events: Events, *, inspections: Sequence[Inspection] = (), recent_rows: int = 0
    ) -> None:
        super().__init__(recent_rows=recent_rows)
        self._settings = settings
        self._events = events
        self._inspections = inspections
        self._has_streamed = False
        events.state.source.slot = settings.name
        events.state.source.heartbeat_interval_seconds = settings.heartbeat_seconds

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        """Yield batches for one connection; see ``ports.Source``."""
        await self.close()
        self._session = session = OutboxSession(self._settings, rules, self._events, recent=self._remembered())
        try:
            await session.open(self._inspections)
            self._has_streamed = True
            while True:
                yield await session.next()
        except ConfigError as error:
            await self.close()
            if not self._has_streamed:
                raise
            # It worked before: the outbox is being made anew. The daemon waits for the operator.
            raise SourceDisconnected(str(error), reason="configuration") from error
        except InvalidatorError:
            await self.close()
            raise
