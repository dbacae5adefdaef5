"""Committed row changes from a logical replication slot with the pgoutput plugin."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

from invalidator.errors import ConfigError, InvalidatorError, SlotInUse, SlotLost, SourceDisconnected
from invalidator.postgres.options import StreamOptions
from invalidator.postgres.session import Session
from invalidator.postgres.source import SessionSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from invalidator.model import Batch
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection, Preparation, SlotKeeper
    from invalidator.postgres.reader import DdlFunction, MessageFunction
    from invalidator.postgres.slots import Process
    from invalidator.telemetry.events import Events

_LOOK_SECONDS = 60.0
"""While it stands by, the database is held against the rules so often; between that only the slot is looked at."""

__all__ = ["PgoutputSource", "Settings", "build"]


class Settings(StreamOptions):
    """Options of ``type: pgoutput``."""

    type: Literal["pgoutput"]
    create: bool = False
    """Make the publication and the slot when they are missing. Off by default: a forgotten slot fills the disk."""


def build(  # noqa: PLR0913  (who takes what)
    settings: Settings,
    events: Events,
    *,
    prepare: Preparation | None = None,
    inspections: Sequence[Inspection] = (),
    keeper: SlotKeeper | None = None,
    on_message: MessageFunction | None = None,
    on_ddl: DdlFunction | None = None,
    recent_rows: int = 0,
) -> PgoutputSource:
    """Make the source.

    Args:
        settings: its options.
        events: what it reports to.
        prepare: makes what ``create`` asks for.
        inspections: look at the database again and again while it streams.
        keeper: decides what becomes of a slot that is gone or lost; None: that is the end.
        on_message: takes the messages with which applications invalidate by themselves.
        on_ddl: takes the messages of the DDL hook.
        recent_rows: how many row changes are kept for who wants to look at them.
    """
    return PgoutputSource(
        settings,
        events,
        prepare=prepare,
        inspections=inspections,
        keeper=keeper,
        on_message=on_message,
        on_ddl=on_ddl,
        recent_rows=recent_rows,
    )


class PgoutputSource(SessionSource[Session]):
    """A source over one slot; see ``ports.Source`` for what it guarantees."""

    def __init__(  # noqa: PLR0913  (as above)
        self,
        settings: Settings,
        events: Events,
        *,
        prepare: Preparation | None = None,
        inspections: Sequence[Inspection] = (),
        keeper: SlotKeeper | None = None,
        on_message: MessageFunction | None = None,
        on_ddl: DdlFunction | None = None,
        recent_rows: int = 0,
    ) -> None:
        super().__init__(recent_rows=recent_rows)
        self._settings = settings
        self._events = events
        self._prepare = prepare
        self._inspections = inspections
        self._keeper = keeper
        self._on_message = on_message
        self._on_ddl = on_ddl
        self._has_seen_slot = False
        self._looked_at = -math.inf
        self._process: Process | None = None
        events.state.source.slot = settings.slot
        events.state.source.heartbeat_interval_seconds = settings.heartbeat_seconds

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        """Yield batches in commit order for one connection; see ``ports.Source``."""
        await self.close()
        recent = self._remembered()
        session = Session(
            self._settings, rules, self._events, on_message=self._on_message, on_ddl=self._on_ddl, recent=recent
        )
        self._session = session
        began = time.monotonic()
        stands_by = began - self._looked_at < _LOOK_SECONDS
        try:
            await session.open(
                self._prepare,
                has_streamed=self._has_seen_slot,
                stands_by=stands_by,
                before=self._process,
                inspections=self._inspections,
                keeper=self._keeper,
            )
            self._has_seen_slot = True
            self._looked_at = -math.inf
            self._process = session.process
            while True:
                yield await session.next()
        except ConfigError as error:
            await self.close()
            if not self._has_seen_slot:
                raise
            # It worked before: a password is being rotated, a publication made anew. The daemon waits for the operator.
            raise SourceDisconnected(str(error), reason="configuration") from error
        except SlotLost as error:
            was_streaming = session.has_opened
            await self.close()
            if self._keeper is None or not was_streaming:
                raise
            # Lost while it streamed: the next connection sees the slot as it is now, and decides.
            raise SourceDisconnected(str(error), reason="slot_lost") from error
        except SlotInUse:
            self._has_seen_slot = True  # one that is missing from now on is a hole, which a new one would hide
            if not stands_by:
                self._looked_at = began
            await self.close()
            raise
        except InvalidatorError:
            await self.close()
            raise
