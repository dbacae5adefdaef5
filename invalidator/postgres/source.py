"""What every source in Postgres does with the one connection that it has, or has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from invalidator.postgres.recent import Numbers, Recent

if TYPE_CHECKING:
    from invalidator.model import Lsn
    from invalidator.ports import Rules
    from invalidator.postgres.recent import RecentTransaction


class OneSession(Protocol):
    """One connection to a source; see ``ports.Source`` for what each of these means."""

    def swap(self, rules: Rules) -> None:
        """Put other rules in force between two transactions."""
        ...

    def restart(self, why: str) -> None:
        """End it, so that the next one reads again what is not confirmed."""
        ...

    def confirm(self, position: Lsn) -> None:
        """Everything up to the position is applied."""
        ...

    async def close(self) -> None:
        """End it, so that another daemon may take over at once."""
        ...


S = TypeVar("S", bound=OneSession)


class SessionSource(Generic[S]):
    """Hands what ``ports.Source`` asks to the session that there is; without one there is nothing to do.

    Args:
        recent_rows: how many row changes are kept for who wants to look at them.
    """

    def __init__(self, *, recent_rows: int = 0) -> None:
        self._session: S | None = None
        self._recent_rows = recent_rows
        self._recent: Recent | None = None
        self._numbers = Numbers()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} session={self._session}>"

    def _remembered(self) -> Recent | None:
        """What keeps the newest changes of the next connection; None: they are not to be kept."""
        self._recent = Recent(self._recent_rows, self._numbers) if self._recent_rows else None
        return self._recent

    def recent(self) -> list[RecentTransaction]:
        """The newest transactions of this connection that concern rules or were explicit, the oldest first."""
        return [] if self._recent is None else self._recent.transactions()

    def recent_number(self, count: int) -> int:
        """The number after which so many whole ones are kept; numbers never go back."""
        return self._numbers.newest if self._recent is None else self._recent.number_before(count)

    def recent_after(self, number: int, rows: int) -> list[RecentTransaction]:
        """Whole ones with a higher number, about so many rows of them, the oldest first."""
        return [] if self._recent is None else self._recent.whole_after(number, rows=rows)

    def swap(self, rules: Rules) -> None:
        """Put other rules in force between two transactions; see ``ports.Source``."""
        if self._session is not None:
            self._session.swap(rules)

    def restart(self, why: str) -> None:
        """End the connection that there is; see ``ports.Source``."""
        if self._session is not None:
            self._session.restart(why)

    def confirm(self, position: Lsn) -> None:
        """Everything up to the position is applied; see ``ports.Source``."""
        if self._session is not None:
            self._session.confirm(position)

    async def close(self) -> None:
        """End the connections, so that another daemon may take over at once."""
        session, self._session = self._session, None
        self._recent = None
        if session is not None:
            await session.close()
