"""What every source in Postgres does with the one connection that it has, or has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from invalidator.model import Lsn
    from invalidator.ports import Rules


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
    """Hands what ``ports.Source`` asks to the session that there is; without one there is nothing to do."""

    _session: S | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} session={self._session}>"

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
        if session is not None:
            await session.close()
