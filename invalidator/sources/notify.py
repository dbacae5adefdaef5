"""Row changes that an application notifies of by itself (LISTEN): what is sent while nobody listens is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

from invalidator.errors import ConfigError, InvalidatorError, SourceDisconnected, Unheard
from invalidator.model import Gap, GapReason
from invalidator.postgres.notify.options import NotifyOptions
from invalidator.postgres.notify.session import NotifySession
from invalidator.postgres.source import SessionSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from invalidator.model import Batch
    from invalidator.ports import Rules
    from invalidator.postgres.companions import Inspection, RecordKeeper
    from invalidator.telemetry.events import Events

_BEFORE_THE_START: Final = "nobody listened before this daemon started, and what was notified then went to nobody"


class Settings(NotifyOptions):
    """Options of ``type: notify``."""

    type: Literal["notify"]


def build(
    settings: Settings,
    events: Events,
    *,
    inspection: Inspection | None = None,
    keeper: RecordKeeper | None = None,
    recent_rows: int = 0,
) -> NotifySource:
    """Make the source.

    Args:
        settings: its options.
        events: what it reports to.
        inspection: looks at the database again and again while it listens.
        keeper: remembers whether a daemon has listened before; None: none has.
        recent_rows: how many changes are kept for who wants to look at them.
    """
    return NotifySource(settings, events, inspection=inspection, keeper=keeper, recent_rows=recent_rows)


class NotifySource(SessionSource[NotifySession]):
    """A source over the notifications of one database; see ``ports.Source`` for what it guarantees.

    Each connection but the very first one begins with a gap: between two of them nobody listens.
    """

    def __init__(
        self,
        settings: Settings,
        events: Events,
        *,
        inspection: Inspection | None = None,
        keeper: RecordKeeper | None = None,
        recent_rows: int = 0,
    ) -> None:
        super().__init__(recent_rows=recent_rows)
        self._settings = settings
        self._events = events
        self._inspection = inspection
        self._keeper = keeper
        self._heard_at: float | None = None
        events.state.source.slot = settings.slot
        events.state.source.heartbeat_interval_seconds = settings.heartbeat_seconds

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        """Yield batches for one connection; see ``ports.Source``."""
        await self.close()
        self._session = session = NotifySession(self._settings, rules, self._events, recent=self._remembered())
        is_listening = False
        try:
            await session.open(await self._gap(), self._inspection)
            is_listening = True
            while True:
                yield await session.next()
        except ConfigError as error:
            await self.close()
            if self._heard_at is None and not is_listening:
                raise
            # It worked before: somebody has put a pooler between, or changes a password. The daemon waits.
            reason = "unheard" if isinstance(error, Unheard) else "configuration"
            raise SourceDisconnected(str(error), reason=reason) from error
        except InvalidatorError:
            await self.close()
            raise
        finally:
            if is_listening:
                self._heard_at = session.heard_at

    async def _gap(self) -> Gap | None:
        """What nobody has heard before this connection."""
        if self._heard_at is not None:
            seconds = time.time() - self._heard_at
            return Gap(GapReason.NOT_LISTENING, f"nobody listened for up to {seconds:.1f} s: what was notified is lost")
        if self._keeper is not None and (not self._keeper.keeps_records or await self._keeper.has_record("")):
            return Gap(GapReason.NOT_LISTENING, _BEFORE_THE_START)
        return None
