"""Where the primary is, by what most of the sentinels say.

One sentinel alone may be wrong: cut off from the others it names the old primary for ever, which, cut off with it,
still takes itself for one. So an address counts when more than half of the sentinels that the settings list name it,
and the server there is asked for its role as well (https://redis.io/docs/latest/develop/reference/sentinel-clients/).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from invalidator.errors import TargetError, TargetRejected, TargetUnavailable
from invalidator.net.redis.connection import RedisConnection
from invalidator.net.redis.replies import Reply

if TYPE_CHECKING:
    from invalidator.net.redis.options import RedisOptions
    from invalidator.net.redis.url import Address

Place = tuple[str, int]
"""Host and port."""

_UNKNOWN: Final = "knows no such primary"


class Sentinels:
    """All sentinels of one primary.

    Args:
        address: names them, and the primary.
        options: how long to wait for each.
    """

    def __init__(self, address: Address, options: RedisOptions) -> None:
        self.address = address
        self._clients = [RedisConnection(_at(each), options, each.label) for each in address.sentinels]
        self._needed = len(self._clients) // 2 + 1
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Sentinels {self.address.label}>"

    async def primary(self) -> Place:
        """Host and port that more than half of them name; does not wait for the others.

        Raises:
            TargetUnavailable: there is none; says what was answered.
            TargetRejected: most of them know no such primary.
        """
        tasks = [asyncio.create_task(self._ask(client)) for client in self._clients]
        answers: list[Place | str] = []
        try:
            for next_answer in asyncio.as_completed(tasks):
                answers.append(await next_answer)
                answer, count = Counter(answers).most_common(1)[0]
                if count >= self._needed and isinstance(answer, tuple):
                    return answer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise self._disagreed(answers)

    async def close(self) -> None:
        """Release the connections, for good: what is being asked ends without an answer."""
        self._is_closed = True
        await asyncio.gather(*(client.close() for client in self._clients))

    async def _ask(self, client: RedisConnection) -> Place | str:
        """What one of them says: a place, or in words why there is none."""
        if self._is_closed:
            return f"{client.label}: is asked no more"
        try:
            reply = await client.execute(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.address.service.encode())
        except TargetError as error:
            return str(error)
        return _place(reply) or f"{client.label}: {_UNKNOWN}"

    def _disagreed(self, answers: Sequence[Place | str]) -> TargetError:
        named = Counter(answer for answer in answers if isinstance(answer, tuple))
        said = [f"{host}:{port} is named by {count}" for (host, port), count in named.most_common()]
        said += [answer for answer in answers if isinstance(answer, str)]
        msg = (
            f"{self.address.label}: where the primary is must be said by {self._needed} of {len(self._clients)} "
            f"sentinels: {'; '.join(said)}"
        )
        if sum(isinstance(answer, str) and answer.endswith(_UNKNOWN) for answer in answers) >= self._needed:
            return TargetRejected(msg)
        return TargetUnavailable(msg, result="unavailable")


def _at(address: Address) -> Callable[[], Awaitable[Address]]:
    """A sentinel does not move."""

    async def locate() -> Address:
        return address

    return locate


def _place(reply: Reply) -> Place | None:
    if not (isinstance(reply, list) and len(reply) == 2):
        return None
    host, port = reply
    if not (isinstance(host, bytes) and isinstance(port, bytes) and port.isdigit()):
        return None
    return host.decode("ascii", "replace"), int(port)
