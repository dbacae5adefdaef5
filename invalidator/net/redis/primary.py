"""Where the primary is now: as the URL says, or as most of the sentinels in it do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invalidator import credentials
from invalidator.credentials import SecretUnavailableError
from invalidator.errors import ConfigError, TargetRejected, TargetUnavailable
from invalidator.net.redis.sentinels import Place, Sentinels
from invalidator.net.redis.url import Address, parse

if TYPE_CHECKING:
    from invalidator.net.redis.options import RedisOptions


class Primary:
    """Reads the secrets and asks the sentinels anew each time, because both may say something else by then.

    Args:
        options: the URL, its password, and how long to wait for a sentinel.
    """

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._sentinels: Sentinels | None = None
        self._place: Place | None = None
        url = options.url.get_secret_value()
        is_reference = credentials.is_reference(url)
        self.may_move = is_reference or bool(parse(url).sentinels)
        """Whether sentinels may have to be asked; nobody knows before a secret is read."""
        self.label = credentials.label(url) if is_reference else parse(url).label
        """For messages: without secrets."""

    def __repr__(self) -> str:
        return f"<Primary {self.label}>"

    async def locate(self) -> Address:
        """Where it is now, and with which password.

        Raises:
            TargetUnavailable, TargetRejected: the sentinels do not say, or a secret cannot be read.
        """
        address = await self._read()
        self._place = None
        sentinels = await self._asked(address)
        if sentinels is not None:
            self._place = await sentinels.primary()
            address = address.at(*self._place)
        self.label = address.label
        return address

    async def has_moved(self) -> bool:
        """Whether the sentinels name another one than they did when it was located.

        Raises:
            TargetError: they do not say.
        """
        sentinels, place = self._sentinels, self._place
        return sentinels is not None and place is not None and await sentinels.primary() != place

    async def close(self) -> None:
        """Leave the sentinels; whoever locates it after this asks them anew."""
        sentinels, self._sentinels = self._sentinels, None
        if sentinels is not None:
            await sentinels.close()

    async def _read(self) -> Address:
        """The address as the settings and their secrets say it."""
        options = self._options
        try:
            address = parse(await credentials.read(options.url.get_secret_value(), what="url"))
            if password := options.password.get_secret_value():
                address = address.with_password(await credentials.read(password, what="password"))
        except SecretUnavailableError as error:
            msg = f"{self.label}: {error}"
            raise TargetUnavailable(msg, result="connection") from None
        except (ConfigError, ValueError) as error:
            msg = f"{self.label}: {error}"
            raise TargetRejected(msg) from None
        return address

    async def _asked(self, address: Address) -> Sentinels | None:
        """The sentinels of this address, if it has any; those of a URL that was another one are left."""
        before = self._sentinels
        if before is None or before.address != address:
            # First, so that ``has_moved`` asks those no more while they are being closed.
            self._sentinels = Sentinels(address, self._options) if address.sentinels else None
            if before is not None:
                await before.close()
        return self._sentinels
